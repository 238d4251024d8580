"""log|det(I + J_g)| of a contraction g, estimated from products with Jᵀ: no matrix, no factorisation."""

from __future__ import annotations

import torch
from torch import Tensor

from snflow.numerics.events import sum_event
from snflow.numerics.jacobian import Map


def roulette_weights(certain: int, stop: float = 0.5) -> list[float]:
    """1 / P(N ≥ k) for k = 1 … N, with N = certain + a geometric number: how much each drawn term of a series counts.

    A sum of N terms so weighed has the mean of the whole series.

    Args:
        certain: terms that are always there.
        stop: probability of ending after each further one.

    Returns:
        N weights, N drawn from torch's global generator.

    References:
        Chen et al. (2019), Residual flows for invertible generative modeling, eq. 6; Kahn (1955).

    Example:
        >>> roulette_weights(3)[:3]
        [1.0, 1.0, 1.0]
    """
    further = int(torch.empty(()).geometric_(stop).item()) - 1
    return [1.0] * certain + [(1 - stop) ** -k for k in range(1, further + 1)]


def series_log_det(function: Map, x: Tensor, probes: Tensor, weights: list[float]) -> tuple[Tensor, Tensor]:
    """g(x) and Σₖ wₖ (−1)ᵏ⁺¹/k · νᵀJᵏν, mean over ν, with the gradient Σₖ wₖ (−1)ᵏ⁺¹ νᵀJᵏ⁻¹ ∂J ν.

    With all wₖ = 1 it is the series of log|det(I + J)| cut off, biased by the rest, and with weights of
    :func:`roulette_weights` it is unbiased; so is the gradient, the Neumann series of tr((I + J)⁻¹ ∂J). The vectors
    νᵀJᵏ are made without a graph: memory does not grow with the number of terms.

    Args:
        function: g, row by row, ‖J_g‖ < 1.
        x: where, with shape ``(batch, *event)``.
        probes: ν, with shape ``(probes, batch, *event)`` and E ννᵀ = I.
        weights: wₖ, one or more.

    Returns:
        g(x) with the shape of x, and estimates in nats with shape ``(batch,)``, both differentiable where gradients
        are on.

    References:
        Behrmann et al. (2019), Invertible residual networks, eq. 4; Chen et al. (2019), Residual flows, eq. 6 and 8.

    Example:
        >>> x, ones = torch.zeros(1, 2), torch.ones(1, 1, 2)
        >>> value = series_log_det(lambda x: 0.5 * x, x, ones, [1.0] * 30)[1]
        >>> torch.allclose(value, 2 * torch.tensor([1.5]).log())
        True
    """
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        at = x if x.requires_grad else x.detach().requires_grad_()
        image = function(at)
        value = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        carried = torch.zeros_like(value)
        for probe in probes:
            power = probe
            left = torch.zeros_like(probe)
            for k, weight in enumerate(weights, 1):
                sign = weight if k % 2 else -weight
                left = left + sign * power
                (power,) = torch.autograd.grad(image, at, power, retain_graph=True)
                value = value + sign / k * sum_event(power * probe)
            if differentiable:
                (pulled,) = torch.autograd.grad(image, at, left, create_graph=True)
                carried = carried + sum_event(pulled * probe)
    value = value.detach() / len(probes)
    if not differentiable:
        return image.detach(), value
    carried = carried / len(probes)
    return image, value + (carried - carried.detach())
