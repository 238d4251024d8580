"""Piecewise-linear maps of a box: the density of the slope is a histogram."""

from __future__ import annotations

import torch
from torch import Tensor

from snflow.numerics.splines.knots import bin_of, rising, take


def piecewise_linear(
    points: Tensor, heights: Tensor, *, bound: float, backwards: bool = False
) -> tuple[Tensor, Tensor]:
    """z = yₖ + (x − xₖ) Δyₖ/Δx and log(Δyₖ/Δx), or the way back: K equal bins of [−bound, bound], each a straight line.

    Args:
        points: x, or z on the way back, with shape ``(batch, *event)``.
        heights: unconstrained log-heights of the bins, with shape ``(K, batch, *event)`` or ``(K, *event)``.
        bound: half the side of the box; outside it the map is the identity.
        backwards: whether to go from z to x.

    Returns:
        The image and the log-slope of the direction taken, in nats, both with the shape of the points.

    References:
        Müller et al. (2019), Neural importance sampling, section 4.1.

    Example:
        >>> import torch
        >>> z, log_slope = piecewise_linear(torch.tensor([-1.0, 7.0]), torch.zeros(2), bound=2.0)
        >>> z.tolist(), log_slope.tolist()
        ([-1.0, 7.0], [0.0, 0.0])
    """
    y = rising(heights, bound, 1e-3)
    x = torch.linspace(-bound, bound, len(y), dtype=y.dtype, device=y.device)
    x = x.reshape(-1, *[1] * (y.dim() - 1)).expand_as(y)
    outside = points.abs() > bound
    inner = points.clamp(-bound, bound)
    start, end = (y, x) if backwards else (x, y)
    index = bin_of(inner, start)
    slope = take(end.diff(dim=0), index) / take(start.diff(dim=0), index)
    image = torch.addcmul(take(end[:-1], index), inner - take(start[:-1], index), slope)
    return torch.where(outside, points, image), torch.where(outside, 0.0, slope.log())
