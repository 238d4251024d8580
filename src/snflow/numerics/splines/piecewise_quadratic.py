"""Piecewise-quadratic maps of a box: the slope is continuous and piecewise linear."""

from __future__ import annotations

import torch
from torch import Tensor

from snflow.numerics.splines.knots import bin_of, rising, take

_MIN = 1e-3


def piecewise_quadratic(
    points: Tensor, widths: Tensor, slopes: Tensor, *, bound: float, backwards: bool = False
) -> tuple[Tensor, Tensor]:
    """z = yₖ + sₖ ξ + (sₖ₊₁ − sₖ) ξ²/(2 Δxₖ), ξ = x − xₖ, and its log-slope, or the way back, in closed form.

    The slopes s at the knots are positive and scaled so that the map takes [−bound, bound] to itself.

    Args:
        points: x, or z on the way back, with shape ``(batch, *event)``.
        widths: unconstrained log-widths of K bins, with shape ``(K, batch, *event)`` or ``(K, *event)``.
        slopes: unconstrained log-slopes at K + 1 knots, likewise.
        bound: half the side of the box; outside it the map is the identity.
        backwards: whether to go from z to x.

    Returns:
        The image and the log-slope of the direction taken, in nats, both with the shape of the points.

    References:
        Müller et al. (2019), Neural importance sampling, section 4.2.

    Example:
        >>> import torch
        >>> z, log_slope = piecewise_quadratic(torch.tensor([-1.0]), torch.zeros(2), torch.zeros(3), bound=2.0)
        >>> z.tolist(), log_slope.tolist()
        ([-1.0], [0.0])
    """
    x = rising(widths, bound, _MIN)
    size = x.diff(dim=0)
    free = _MIN + torch.nn.functional.softplus(slopes)
    area = 0.5 * (free[1:] + free[:-1]) * size
    scale = 2 * bound / area.sum(0, keepdim=True)
    s, area = free * scale, area * scale
    end = torch.full_like(x[:1], bound)
    y = torch.cat([-end, area[:-1].cumsum(0) - bound, end])
    outside = points.abs() > bound
    inner = points.clamp(-bound, bound)
    index = bin_of(inner, y if backwards else x)
    left, right, width = take(s[:-1], index), take(s[1:], index), take(size, index)
    low_x, low_y = take(x[:-1], index), take(y[:-1], index)
    bend = (right - left) / width
    if backwards:
        rise = inner - low_y
        # ½ bend ξ² + left ξ − rise = 0 by the formula that does not cancel; both slopes are positive.
        root = (left * left + 2 * bend * rise).clamp_min(torch.finfo(rise.dtype).tiny).sqrt()
        step = 2 * rise / (left + root)
        image = low_x + step
    else:
        step = inner - low_x
        image = low_y + step * (left + 0.5 * bend * step)
    log_slope = (left + bend * step).log()
    return torch.where(outside, points, image), torch.where(outside, 0.0, -log_slope if backwards else log_slope)
