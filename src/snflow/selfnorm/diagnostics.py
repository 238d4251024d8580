"""Diagnostics of learned inverses: residuals, and angles between gradients."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snflow.selfnorm.layers import SelfNormalizingMap
from snflow.selfnorm.pair import SelfNormalizing
from snflow.selfnorm.penalty import Penalty


@dataclass(frozen=True)
class LayerDiagnostics:
    """The accuracy of a learned inverse.

    Attributes:
        reconstruction_error: mean of ‖g(f(x)) − x‖² over the last training batch.
        inverse_residual: ‖I − RW‖_F/√D, estimated from random probes; ``None`` for a pair of networks.
        penalty_weight: the current λ, which a multiplier may have changed.
        repairs: number of repairs by the guard of :class:`~snflow.Penalty`.
        tracking_steps: number of steps taken by :class:`~snflow.Newton` or :class:`~snflow.Secant`.
    """

    reconstruction_error: float
    inverse_residual: float | None
    penalty_weight: float
    repairs: int
    tracking_steps: int


def layer_diagnostics(module: nn.Module) -> dict[str, LayerDiagnostics]:
    """Diagnostics of each self-normalizing layer of a module, to be called after forward passes in training.

    Args:
        module: a flow, a chain or a layer.

    Returns:
        The diagnostics, by the name of the layer in the module; layers that have not processed data yet are omitted.

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
        updates, guarded = int(layer.tracking.updates), isinstance(layer.tracking, Penalty)
        found[name] = LayerDiagnostics(
            reconstruction_error=float(layer.reconstruction_error),
            inverse_residual=float(layer.inverse_residual(shape)),
            penalty_weight=float(layer.tracking.penalty_weight),
            repairs=updates if guarded else 0,
            tracking_steps=0 if guarded else updates,
        )
    return found


def refresh_inverses(module: nn.Module) -> None:
    """Set every inverse weight that is not a parameter to the best inverse of the current weight.

    If weights are replaced, for example by their moving average, such inverses become outdated: a forward pass in
    training would update them, but an evaluation does not.

    Args:
        module: a flow, a chain or a layer; layers that have not processed data yet are skipped.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.SelfNormalizingDense(2, tracking=snflow.Newton())
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
    """Iterate over the layers that have processed data, with their names and event shapes."""
    for name, layer in module.named_modules():
        if isinstance(layer, SelfNormalizingMap) and int(layer.log_det_shape.prod()) > 0:
            yield name, layer, tuple(layer.log_det_shape.tolist())


def gradient_angles(
    flow: nn.Module, batch: Tensor, context: Tensor | None = None, *, penalty: bool = True
) -> dict[str, float]:
    """∠(∂L/∂w, ∂L*/∂w) in degrees for each self-normalizing layer, with L as in ``train()`` and L* as in ``eval()``.

    L is the mean negative log-likelihood. The training gradient contains all terms of the gradient rule, including the
    penalty and random probes. Both gradients use the same dequantization noise. The flow, the random number generators
    and the stored gradients are not changed.

    Args:
        flow: maps a batch to log-likelihoods ``(batch,)``.
        batch: data, with shape ``(batch, *event)``.
        context: the contexts of the data, with shape ``(batch, *context_shape)``.
        penalty: whether L includes λ‖g(f(x)) − x‖²; without it, the angle measures only the approximation of the
            likelihood gradient by the learned inverse.

    Returns:
        The angles in degrees, in [0, 180], by the name of the layer in the flow.

    References:
        Keller et al. (2021), Self Normalizing Flows, figure 3.

    Example:
        >>> import snflow
        >>> flow = snflow.flows.dense(3, initialization="orthogonal", tracking=snflow.Penalty(weight=0.0))
        >>> max(gradient_angles(flow, torch.randn(8, 3)).values()) < 1e-3
        True
    """
    if not any(isinstance(layer, SelfNormalizingMap) for layer in flow.modules()):
        return {}
    inputs = (batch,) if context is None else (batch, context)
    trained = _gradients(flow, inputs, training=True, penalty=penalty)
    exact = _gradients(flow, inputs, training=False, penalty=penalty)
    return {name: _degrees(trained[name], exact[name]) for name in trained}


def _gradients(flow: nn.Module, inputs: tuple[Tensor, ...], *, training: bool, penalty: bool) -> dict[str, Tensor]:
    twin = copy.deepcopy(flow).train(training)
    layers = {name: layer for name, layer in twin.named_modules() if isinstance(layer, SelfNormalizingMap)}
    if not penalty:
        for layer in layers.values():
            layer.tracking.penalty_weight.zero_()
    device = inputs[0].device
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(0)
        loss = -twin(*inputs).mean()
        gradients = torch.autograd.grad(loss, [layer.weight for layer in layers.values()])
    return dict(zip(layers, gradients, strict=True))


def _degrees(one: Tensor, other: Tensor) -> float:
    one, other = (g.double().flatten() / g.double().norm() for g in (one, other))
    # Half-angle formula: the arc cosine would lose half of the digits of a small angle.
    return 2 * math.degrees(math.atan2(float((one - other).norm()), float((one + other).norm())))
