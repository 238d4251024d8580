"""Plain networks: the conditioners of couplings, and the f and g of a self-normalizing pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snflow.lazy import lazily

if TYPE_CHECKING:
    from snflow.nets.attention import AttentionConvNet as AttentionConvNet
    from snflow.nets.convnet import ConvNet as ConvNet
    from snflow.nets.lipschitz import CLipSwish as CLipSwish
    from snflow.nets.lipschitz import LipschitzDenseNet as LipschitzDenseNet
    from snflow.nets.lipschitz import LipschitzNet as LipschitzNet
    from snflow.nets.lipschitz import LipSwish as LipSwish
    from snflow.nets.lipschitz import SpectralConv2d as SpectralConv2d
    from snflow.nets.lipschitz import SpectralLinear as SpectralLinear
    from snflow.nets.masked import MaskedMLP as MaskedMLP
    from snflow.nets.mlp import MLP as MLP
    from snflow.nets.periodic import PeriodicMLP as PeriodicMLP
    from snflow.nets.residual import ResidualMLP as ResidualMLP
    from snflow.nets.resnet import ResidualConvNet as ResidualConvNet
    from snflow.nets.velocity import VelocityNet as VelocityNet

_HOMES = {
    "AttentionConvNet": "attention",
    "ConvNet": "convnet",
    "CLipSwish": "lipschitz",
    "LipSwish": "lipschitz",
    "LipschitzDenseNet": "lipschitz",
    "LipschitzNet": "lipschitz",
    "MLP": "mlp",
    "MaskedMLP": "masked",
    "PeriodicMLP": "periodic",
    "ResidualConvNet": "resnet",
    "ResidualMLP": "residual",
    "SpectralConv2d": "lipschitz",
    "SpectralLinear": "lipschitz",
    "VelocityNet": "velocity",
}

__all__ = [
    "MLP",
    "AttentionConvNet",
    "CLipSwish",
    "ConvNet",
    "LipSwish",
    "LipschitzDenseNet",
    "LipschitzNet",
    "MaskedMLP",
    "PeriodicMLP",
    "ResidualConvNet",
    "ResidualMLP",
    "SpectralConv2d",
    "SpectralLinear",
    "VelocityNet",
]

# The options of this package are read by the command line's --help, which must not wait for torch.
__getattr__ = lazily(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})
