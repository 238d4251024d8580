"""Monotone cubic splines (Steffen 1990; Durkan et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from snflow.numerics.splines.knots import bin_of, rising, take

_MIN = 1e-3


def cubic_spline(x: Tensor, widths: Tensor, heights: Tensor, ends: Tensor, *, bound: float) -> tuple[Tensor, Tensor]:
    """z = a ξ³ + b ξ² + c ξ + yₖ, ξ = (x − xₖ)/Δxₖ, and log dz/dx: cubic pieces with a continuous slope.

    The slopes at inner knots are Steffen's: the largest for which no piece can turn back. Those at the two ends are
    free, between zero and three times that of the chord.

    Args:
        x: with shape ``(batch, *event)``.
        widths: unconstrained log-widths of K bins, with shape ``(K, batch, *event)`` or ``(K, *event)``.
        heights: unconstrained log-heights, likewise.
        ends: unconstrained slopes at both ends, with 2 instead of K.
        bound: half the side of the box; outside it the map is the identity.

    Returns:
        z and the log-slope in nats, both with the shape of x.

    References:
        Durkan et al. (2019), Cubic-spline flows; Steffen (1990), A simple method for monotonic interpolation in one
        dimension, eq. 11.

    Example:
        >>> import torch
        >>> z, _ = cubic_spline(torch.tensor([-1.0]), torch.zeros(2), torch.zeros(2), torch.zeros(2), bound=2.0)
        >>> z.tolist()
        [-1.0]
    """
    knots, values = rising(widths, bound, _MIN), rising(heights, bound, _MIN)
    size, rise = knots.diff(dim=0), values.diff(dim=0)
    chord = rise / size
    mean = (chord[:-1] * size[1:] + chord[1:] * size[:-1]) / (size[:-1] + size[1:])
    inner_slope = 2 * torch.minimum(torch.minimum(chord[:-1], chord[1:]), 0.5 * mean)
    # sigmoid(−log 2) = 1/3: zeros are the slope of the chord
    share = 3 * torch.sigmoid(ends - 0.6931471805599453)
    slope = torch.cat([share[:1] * chord[:1], inner_slope, share[1:] * chord[-1:]])
    outside = x.abs() > bound
    inside = x.clamp(-bound, bound)
    index = bin_of(inside, knots)
    width, height = take(size, index), take(rise, index)
    left, right = take(slope[:-1], index) * width, take(slope[1:], index) * width
    xi = (inside - take(knots[:-1], index)) / width
    a, b = left + right - 2 * height, 3 * height - 2 * left - right
    z = take(values[:-1], index) + xi * (left + xi * (b + xi * a))
    derivative = (left + xi * (2 * b + 3 * a * xi)) / width
    tiny = torch.finfo(x.dtype).tiny
    return torch.where(outside, x, z), torch.where(outside, 0.0, derivative.clamp_min(tiny).log())
