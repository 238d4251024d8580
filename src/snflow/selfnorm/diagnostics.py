"""How well the learned inverses follow: one line a layer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from snflow.selfnorm.self_normalizing import SelfNormalizingMap


@dataclass(frozen=True)
class LayerDiagnostics:
    """How far one learned inverse is from the inverse.

    Attributes:
        reconstruction_error: mean of ‖g(f(x)) − x‖² over the last training batch.
        inverse_residual: ‖A(r) A(w) − I‖_F / √D, estimated from random probes.
    """

    reconstruction_error: float
    inverse_residual: float


def layer_diagnostics(module: nn.Module) -> dict[str, LayerDiagnostics]:
    """Measure each self-normalizing layer inside of a module that has seen data.

    Args:
        module: a flow, a chain or a layer.

    Returns:
        The diagnostics by the layer's name in the module; layers that have seen no data yet are left out.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.SelfNormalizingDense(2)
        >>> _ = layer(torch.randn(3, 2))
        >>> layer_diagnostics(snflow.Chain([layer]))["layers.0"].inverse_residual < 0.1
        True
    """
    found: dict[str, LayerDiagnostics] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, SelfNormalizingMap) and int(layer.log_det_shape.prod()) > 0:
            shape = tuple(layer.log_det_shape.tolist())
            found[name] = LayerDiagnostics(float(layer.reconstruction_error), float(layer.inverse_residual(shape)))
    return found
