"""Sums of squares of polynomials, integrated."""

from __future__ import annotations

import torch
from torch import Tensor


def sum_of_squares(x: Tensor, coefficients: Tensor, least_slope: float) -> tuple[Tensor, Tensor]:
    """z = ∫₀ˣ (ε + Σₖ pₖ(t)²) dt and dz/dx, pₖ(t) = Σᵢ aₖᵢ tⁱ: a polynomial that cannot fall.

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
