"""Monotone functions of one variable: polynomials, quadrature and sums of sigmoids."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SOFTPLUS_ONE = 0.5413248546129181
"""log(e − 1), whose softplus is one."""


def sum_of_squares(x: Tensor, coefficients: Tensor, least_slope: float) -> tuple[Tensor, Tensor]:
    """z = ∫₀ˣ (ε + Σₖ pₖ(t)²) dt and dz/dx, pₖ(t) = Σᵢ aₖᵢ tⁱ: an increasing polynomial.

    Args:
        x: with shape ``(batch, *event)``.
        coefficients: a, with shape ``(K, R + 1, batch, *event)`` or broadcastable to it, lowest power first.
        least_slope: ε > 0.

    Returns:
        z and the slope, both with the shape of x.

    References:
        Jaini et al. (2019), Sum-of-squares polynomial flow, eq. 9.

    Example:
        >>> import torch
        >>> z, slope = sum_of_squares(torch.tensor([2.0]), torch.tensor([[[0.0], [1.0]]]), 0.5)  # ½ + t²
        >>> round(z.item(), 4), slope.item()
        (3.6667, 4.5)
    """
    terms = coefficients.shape[1]
    value, slope = least_slope * x, torch.full_like(x, least_slope)
    square = [torch.zeros_like(x) for _ in range(2 * terms - 1)]
    for i in range(terms):
        for j in range(terms):
            square[i + j] = square[i + j] + (coefficients[:, i] * coefficients[:, j]).sum(0)
    power = torch.ones_like(x)
    for degree, coefficient in enumerate(square):
        slope = slope + coefficient * power
        power = power * x
        value = value + coefficient * power / (degree + 1)
    return value, slope


def legendre(nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes tᵢ in (0, 1) and weights wᵢ with ∫₀¹ g(t) dt ≈ Σ wᵢ g(tᵢ), exact for polynomials up to degree 2n − 1.

    Returns:
        Nodes and weights in float64, with shape ``(nodes,)`` each.

    Example:
        >>> t, w = legendre(3)
        >>> round(float((w * t**5).sum()), 12)
        0.166666666667
    """
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return torch.from_numpy((points + 1) / 2), torch.from_numpy(weights / 2)


def integral(integrand: Callable[[Tensor], Tensor], x: Tensor, rule: tuple[Tensor, Tensor]) -> Tensor:
    """∫₀ˣ g(t) dt ≈ x Σ wᵢ g(x tᵢ), elementwise.

    Args:
        integrand: g, from ``(nodes, *shape)`` to the same shape.
        x: with shape ``shape``.
        rule: nodes and weights of :func:`legendre`.

    Returns:
        The integrals, with the shape of x.
    """
    nodes, weights = (t.to(x).reshape(-1, *[1] * x.dim()) for t in rule)
    return x * (weights * integrand(nodes * x)).sum(0)


def sigmoidal(x: Tensor, log_weights: Tensor, log_slopes: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor]:
    """z = logit(Σₖ wₖ σ(aₖ x + bₖ)) and log dz/dx, Σ w = 1, a > 0: increasing, with both tails in log space.

    Far out the map is a line with the smallest slope; |aₖ x + bₖ| is capped at a quarter of the dtype's largest number.

    Args:
        x: with shape ``(batch, *event)``.
        log_weights: log w, with shape ``(K, batch, *event)`` or broadcastable to it.
        log_slopes: log a, likewise.
        shifts: b, likewise.

    Returns:
        z and the log-slope in nats, both with the shape of x.

    References:
        Huang et al. (2018), Neural autoregressive flows, eq. 8; Ho et al. (2019), Flow++, eq. 13-15.

    Example:
        >>> import torch
        >>> one = torch.zeros(1, 1)
        >>> z, log_slope = sigmoidal(torch.tensor([30.0]), one, one, one)
        >>> z.tolist(), log_slope.tolist()
        ([30.0], [0.0])
    """
    u = log_slopes.exp() * x + shifts
    # an overflow of u would make every term of a tail −inf, and their differences NaN
    most = torch.finfo(u.dtype).max / 4
    u = u.clamp(-most, most)
    log_below, log_above = F.logsigmoid(u), F.logsigmoid(-u)
    below, above = log_weights + log_below, log_weights + log_above
    log_cdf, log_rest = torch.logsumexp(below, 0), torch.logsumexp(above, 0)
    # (log F)' − (log (1 − F))', two averages of slopes: the difference log F' − log F − log(1 − F) cancels in the tails
    rise, fall = below - log_cdf + log_above, above - log_rest + log_below
    return log_cdf - log_rest, torch.logsumexp(log_slopes + torch.logaddexp(rise, fall), 0)
