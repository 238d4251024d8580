"""A number whose gradient is that of a log-determinant, for a map with a learned inverse."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snflow.numerics.events import sum_event
from snflow.numerics.jacobian import Map, along


@dataclass(frozen=True)
class Surrogate:
    """What one training pass through a pair gives, a number a row where nothing else is said.

    Attributes:
        z: f(x), with shape ``(batch, *event)``.
        log_det: its gradient estimates that of log|det J_f(x)|; its value means nothing.
        reconstruction: ‖g(f(x)) − x‖², x behind a gradient stop.
        jacobian: the mean over probes of ‖J_g J_f ν − ν‖², x behind a gradient stop; zeros when not asked for.
    """

    z: Tensor
    log_det: Tensor
    reconstruction: Tensor
    jacobian: Tensor


def surrogate(
    forward: Map, inverse: Map, x: Tensor, probes: Tensor, *, with_jacobian: bool, noise: Tensor | None = None
) -> Surrogate:
    """mean over ν of νᵀ J_g(z) · J_f(x) ν, the first factor behind a gradient stop.

    Its gradient by the parameters of f and by x is E νᵀ J_g ∂J_f ν = tr(J_g ∂J_f), that of log|det J_f| where g is
    the inverse of f: one vector-Jacobian product of g and one Jacobian-vector product of f a probe.

    Args:
        forward: f, row by row.
        inverse: g, row by row.
        x: data, with shape ``(batch, *event)``.
        probes: ν, with shape ``(probes, batch, *event)`` and E ννᵀ = I.
        with_jacobian: whether ‖J_g J_f ν − ν‖² is needed.
        noise: where beside the data g is asked to undo f: the reconstruction is the mean of that of x and of x + noise.

    Returns:
        z and the terms of the objective.

    References:
        Keller et al. (2021), Self Normalizing Flows, section 3.2, eq. 4 and 31; Draxler et al. (2024), Free-form flows.

    Example:
        >>> w = torch.tensor(2.0, requires_grad=True)
        >>> x = torch.ones(1, 1)
        >>> s = surrogate(lambda x: w * x, lambda z: z / w, x, torch.ones(1, 1, 1), with_jacobian=False)
        >>> torch.autograd.grad(s.log_det.sum(), w)[0]  # d log w / dw
        tensor(0.5000)
    """
    stopped = x.detach()
    z, pushed = along(forward, x, probes[0])
    # Where x has a gradient the penalty needs an f(x) that does not pass it on.
    again = forward(stopped) if x.requires_grad else z
    if not again.requires_grad:
        again = again.detach().requires_grad_()
    back = inverse(again)
    log_det = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    cycle = torch.zeros_like(log_det)
    for position, probe in enumerate(probes):
        if position:
            pushed = along(forward, x, probe)[1]
        (pulled,) = torch.autograd.grad(back, again, probe, retain_graph=True)
        log_det = log_det + sum_event(pulled * pushed) / len(probes)
        if with_jacobian:
            there_and_back = along(lambda v: inverse(forward(v)), stopped, probe)[1]
            cycle = cycle + sum_event((there_and_back - probe).square()) / len(probes)
    reconstruction = sum_event((back - stopped).square())
    if noise is not None:
        beside = stopped + noise
        reconstruction = (reconstruction + sum_event((inverse(forward(beside)) - beside).square())) / 2
    return Surrogate(z, log_det, reconstruction, cycle)
