"""The method: layers that learn their own inverse, and the gradient rule that uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snflow.lazy import lazily

if TYPE_CHECKING:
    from snflow.selfnorm.angle import gradient_angles as gradient_angles
    from snflow.selfnorm.conv import SelfNormalizingConv2d as SelfNormalizingConv2d
    from snflow.selfnorm.dense import SelfNormalizingDense as SelfNormalizingDense
    from snflow.selfnorm.diagnostics import LayerDiagnostics as LayerDiagnostics
    from snflow.selfnorm.diagnostics import layer_diagnostics as layer_diagnostics
    from snflow.selfnorm.diagnostics import refresh_inverses as refresh_inverses
    from snflow.selfnorm.networks import SelfNormalizing as SelfNormalizing
    from snflow.selfnorm.options import LearnedInverse as LearnedInverse
    from snflow.selfnorm.self_normalizing import SelfNormalizingMap as SelfNormalizingMap
    from snflow.selfnorm.strided import SelfNormalizingStridedConv2d as SelfNormalizingStridedConv2d
    from snflow.selfnorm.tracking.followers import Followers as Followers

_HOMES = {
    "Followers": "tracking.followers",
    "LayerDiagnostics": "diagnostics",
    "LearnedInverse": "options",
    "SelfNormalizing": "networks",
    "SelfNormalizingConv2d": "conv",
    "SelfNormalizingDense": "dense",
    "SelfNormalizingMap": "self_normalizing",
    "SelfNormalizingStridedConv2d": "strided",
    "gradient_angles": "angle",
    "layer_diagnostics": "diagnostics",
    "refresh_inverses": "diagnostics",
}

__all__ = [
    "Followers",
    "LayerDiagnostics",
    "LearnedInverse",
    "SelfNormalizing",
    "SelfNormalizingConv2d",
    "SelfNormalizingDense",
    "SelfNormalizingMap",
    "SelfNormalizingStridedConv2d",
    "gradient_angles",
    "layer_diagnostics",
    "refresh_inverses",
]

# The options of this package are read by the command line's --help, which must not wait for torch.
__getattr__ = lazily(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})
