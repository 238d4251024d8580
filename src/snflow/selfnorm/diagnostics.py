"""How well the learned inverses follow: one line a layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from snflow.selfnorm.networks import SelfNormalizing
from snflow.selfnorm.self_normalizing import SelfNormalizingMap


@dataclass(frozen=True)
class LayerDiagnostics:
    """How far one learned inverse is from the inverse.

    Attributes:
        reconstruction_error: mean of ‖g(f(x)) − x‖² over the last training batch.
        inverse_residual: ‖A(r) A(w) − I‖_F / √D, estimated from random probes; ``None`` for a pair of networks.
        penalty_weight: λ, as the multiplier has moved it.
        repairs: how often the guard has repaired the inverse.
        tracking_steps: how often the inverse was moved by a step of its own.
    """

    reconstruction_error: float
    inverse_residual: float | None
    penalty_weight: float
    repairs: int
    tracking_steps: int


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
    for name, pair in module.named_modules():
        if isinstance(pair, SelfNormalizing):
            error, weight = float(pair.reconstruction_error), float(pair.penalty_weight)
            found[name] = LayerDiagnostics(error, None, weight, repairs=0, tracking_steps=0)
    for name, layer, shape in _layers(module):
        found[name] = LayerDiagnostics(
            reconstruction_error=float(layer.reconstruction_error),
            inverse_residual=float(layer.inverse_residual(shape)),
            penalty_weight=float(layer.penalty_weight),
            repairs=int(layer.repairs),
            tracking_steps=int(layer.tracking_steps),
        )
    return found


def refresh_inverses(module: nn.Module) -> None:
    """Set every inverse weight that is no parameter to the best inverse of the present weight.

    Weights that were put there from outside, a moving average of them for one, leave such an inverse behind; a
    training forward would move it, an evaluation does not.

    Args:
        module: a flow, a chain or a layer; layers that have seen no data yet are left alone.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.SelfNormalizingDense(2, inverse_tracking="newton")
        >>> _ = layer(torch.randn(3, 2))
        >>> with torch.no_grad():
        ...     _ = layer.weight.mul_(2)
        >>> refresh_inverses(layer)
        >>> torch.allclose(layer.inverse_matrix @ layer.weight, torch.eye(2))
        True
    """
    for _, layer, shape in _layers(module):
        if not isinstance(layer.inverse_weight, nn.Parameter):
            layer.refresh_inverse(shape)


def _layers(module: nn.Module) -> Iterator[tuple[str, SelfNormalizingMap, tuple[int, ...]]]:
    """Each layer that has seen data, with its name and the shape of its events."""
    for name, layer in module.named_modules():
        if isinstance(layer, SelfNormalizingMap) and int(layer.log_det_shape.prod()) > 0:
            yield name, layer, tuple(layer.log_det_shape.tolist())
