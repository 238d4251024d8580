"""The angle between the gradient that training takes and the exact one."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from snflow.selfnorm.self_normalizing import SelfNormalizingMap


def gradient_angles(flow: nn.Module, batch: Tensor, *, penalty: bool = True) -> dict[str, float]:
    """∠(∂L/∂w, ∂L*/∂w) for each self-normalizing layer: L as in ``train()``, L* as in ``eval()``, in degrees.

    L is the mean negative log-likelihood; the training gradient has all that the rule puts into it, a penalty's pull
    and random probes too. Both see the same dequantization noise. The flow, its generators and its gradients are left
    as they were.

    Args:
        flow: maps a batch to log-likelihoods ``(batch,)``.
        batch: data, with shape ``(batch, *event)``.
        penalty: whether L counts λ‖g(f(x)) − x‖²; without it the angle is that of the likelihood's gradient alone,
            which the learned inverse approximates.

    Returns:
        Degrees in [0, 180] by the layer's name in the flow.

    References:
        Keller et al. (2021), Self Normalizing Flows, figure 3.

    Example:
        >>> import snflow
        >>> flow = snflow.flows.dense((3,), initialization="orthogonal", penalty_weight=0.0)
        >>> max(gradient_angles(flow, torch.randn(8, 3)).values()) < 1e-3
        True
    """
    if not any(isinstance(layer, SelfNormalizingMap) for layer in flow.modules()):
        return {}
    trained = _gradients(flow, batch, training=True, penalty=penalty)
    exact = _gradients(flow, batch, training=False, penalty=penalty)
    return {name: _degrees(trained[name], exact[name]) for name in trained}


def _gradients(flow: nn.Module, batch: Tensor, *, training: bool, penalty: bool) -> dict[str, Tensor]:
    twin = copy.deepcopy(flow).train(training)
    layers = {name: layer for name, layer in twin.named_modules() if isinstance(layer, SelfNormalizingMap)}
    if not penalty:
        for layer in layers.values():
            layer.penalty_weight.zero_()
    devices = [batch.device] if batch.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(0)
        loss = -twin(batch).mean()
        gradients = torch.autograd.grad(loss, [layer.weight for layer in layers.values()])
    return dict(zip(layers, gradients, strict=True))


def _degrees(one: Tensor, other: Tensor) -> float:
    one, other = (g.double().flatten() / g.double().norm() for g in (one, other))
    # By the half-angle: the arc cosine loses half of the digits of a small angle.
    return 2 * math.degrees(math.atan2(float((one - other).norm()), float((one + other).norm())))
