"""Monotone rational-quadratic splines (Gregory & Delbourgo 1982; Durkan et al. 2019), the identity outside a box.

Knots are built once per set of parameters with :func:`spline_knots` and hold the bins in their **first** dimension: a
set that the batch shares, ``(bins + 1, *event)``, then indexes by ``gather`` without being expanded to the batch, which
was the fastest of gather, embedding, one-hot products and chains of ``where`` on a processor.

Three habits keep values and gradients finite. Points outside the box are replaced by points on its border *before* the
mathematics and their results discarded after it. The bin is the number of knots at or below a point, so that every
point has one, NaN included. The quadratic is solved by whichever of its two formulas does not cancel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from snflow.numerics.splines.knots import bin_of, rising, take_ends


class SplineKnots(NamedTuple):
    """(xₖ, yₖ, δₖ): the points that a spline passes through and its slopes there, k = 0 … bins.

    Attributes:
        x: knots on the data side, rising from −bound to bound, with shape ``(bins + 1, *shape)``.
        y: knots on the latent side, likewise.
        slopes: dy/dx at the knots, positive, one at both ends, likewise.
        bound: half the side of the box; outside it the spline is the identity.
    """

    x: Tensor
    y: Tensor
    slopes: Tensor
    bound: float


class _Bin(NamedTuple):
    """The bin that each point lies in, every field with the shape of the points."""

    x: Tensor
    width: Tensor
    y: Tensor
    height: Tensor
    left_slope: Tensor
    right_slope: Tensor


def spline_knots(
    widths: Tensor,
    heights: Tensor,
    slopes: Tensor,
    *,
    bound: float,
    min_width: float = 1e-3,
    min_height: float = 1e-3,
    min_slope: float = 1e-3,
) -> SplineKnots:
    """Knots from unconstrained numbers: softmax widths and heights, softplus slopes; all zero gives the identity.

    A width is its share of the box, ``min_width + (1 − bins · min_width) softmax(widths)``, so minimal widths and
    heights are shares too. Slopes at both ends are one, where the spline meets the identity.

    Args:
        widths: with shape ``(*shape, bins)``: ``shape`` is the event for parameters that the batch shares, or
            ``(batch, *event)`` for parameters of each sample.
        heights: with shape ``(*shape, bins)``.
        slopes: at the inner knots, with shape ``(*shape, bins - 1)``.
        bound: half the side of the box.
        min_width: the smallest share of a bin on the data side.
        min_height: the smallest share of a bin on the latent side.
        min_slope: the smallest slope at a knot.

    Example:
        >>> import torch
        >>> spline_knots(torch.zeros(4), torch.zeros(4), torch.zeros(3), bound=2.0).x.tolist()
        [-2.0, -1.0, 0.0, 1.0, 2.0]
    """
    # softplus(0 + offset) + min_slope = 1: parameters of zero mean a slope of one
    offset = math.log(math.expm1(1 - min_slope))
    inner = min_slope + F.softplus(slopes.movedim(-1, 0) + offset)
    x = rising(widths.movedim(-1, 0), bound, min_width)
    y = rising(heights.movedim(-1, 0), bound, min_height)
    end = torch.ones_like(x[:1])
    return SplineKnots(x, y, torch.cat([end, inner, end]), bound)


def spline(x: Tensor, knots: SplineKnots) -> tuple[Tensor, Tensor]:
    """z = s(x) and log ds/dx, elementwise (Durkan et al. 2019, eq. 4-5).

    Args:
        x: with shape ``(batch, *event)``.
        knots: for each element of the event, ``(bins + 1, *event)``, or of each sample, ``(bins + 1, batch, *event)``.

    Returns:
        z and the log-derivative in nats, both with the shape of x. Outside the box they are x and 0; NaN stays NaN.

    Example:
        >>> import torch
        >>> knots = spline_knots(torch.tensor([0.0, 1.0]), torch.zeros(2), torch.zeros(1), bound=1.0)
        >>> z, log_derivative = spline(torch.tensor([-5.0, 5.0]), knots)
        >>> z.tolist(), log_derivative.tolist()
        ([-5.0, 5.0], [0.0, 0.0])
    """
    outside = x.abs() > knots.bound
    inner = x.clamp(-knots.bound, knots.bound)
    bin_ = _bin(inner, knots.x, knots)
    share = (inner - bin_.x) / bin_.width
    height_share, log_derivative = _interpolate(share, bin_)
    z = torch.addcmul(bin_.y, bin_.height, height_share)
    return torch.where(outside, x, z), torch.where(outside, 0.0, log_derivative)


def inverse_spline(z: Tensor, knots: SplineKnots) -> tuple[Tensor, Tensor]:
    """x = s⁻¹(z) and log dx/dz, elementwise, in closed form (Durkan et al. 2019, eq. 6-8).

    Args:
        z: with shape ``(batch, *event)``.
        knots: as in :func:`spline`.

    Returns:
        x and the log-derivative in nats, both with the shape of z. Outside the box they are z and 0; NaN stays NaN.

    Example:
        >>> import torch
        >>> knots = spline_knots(torch.tensor([0.0, 1.0]), torch.zeros(2), torch.zeros(1), bound=1.0)
        >>> x = torch.tensor([-0.5, 0.0, 0.5])
        >>> torch.allclose(inverse_spline(spline(x, knots)[0], knots)[0], x)
        True
    """
    outside = z.abs() > knots.bound
    x, share, bin_ = _solved(z, knots)
    return torch.where(outside, z, x), torch.where(outside, 0.0, -_interpolate(share, bin_)[1])


def inverse_spline_value(z: Tensor, knots: SplineKnots) -> Tensor:
    """x = s⁻¹(z) alone, elementwise: what sampling needs.

    Args:
        z: with shape ``(batch, *event)``.
        knots: as in :func:`spline`.

    Returns:
        x, with the shape of z.

    Example:
        >>> import torch
        >>> knots = spline_knots(torch.zeros(4), torch.zeros(4), torch.zeros(3), bound=2.0)
        >>> inverse_spline_value(torch.tensor([1.5, 3.0]), knots)
        tensor([1.5000, 3.0000])
    """
    return torch.where(z.abs() > knots.bound, z, _solved(z, knots)[0])


def _solved(z: Tensor, knots: SplineKnots) -> tuple[Tensor, Tensor, _Bin]:
    """x, its share ξ of the width of its bin, and the bin, for z clamped to the box."""
    inner = z.clamp(-knots.bound, knots.bound)
    bin_ = _bin(inner, knots.y, knots)
    theta = (inner - bin_.y) / bin_.height
    mean_slope = bin_.height / bin_.width
    bend = theta * (bin_.left_slope + bin_.right_slope - 2 * mean_slope)
    # a ξ² + b ξ − c = 0 for ξ in [0, 1], with a + b = mean_slope and c ≥ 0
    a, b, c = mean_slope - bin_.left_slope + bend, bin_.left_slope - bend, mean_slope * theta
    # zero would do for the value, but the square root has an infinite gradient there
    discriminant = (b * b + 4 * a * c).clamp(min=torch.finfo(z.dtype).tiny)
    sum_ = b.abs() + discriminant.sqrt()
    rising = b >= 0
    share = torch.where(rising, 2 * c, sum_) / torch.where(rising, sum_, 2 * a)
    share = share.clamp(0, 1)
    return torch.addcmul(bin_.x, bin_.width, share), share, bin_


def _bin(points: Tensor, knots: Tensor, spline_: SplineKnots) -> _Bin:
    """Look up the bin of each point, found among ``knots``, the x or the y of the spline."""
    index = bin_of(points, knots)
    left, right = take_ends(spline_.x, index)
    lower, upper = take_ends(spline_.y, index)
    return _Bin(left, right - left, lower, upper - lower, *take_ends(spline_.slopes, index))


def _interpolate(share: Tensor, bin_: _Bin) -> tuple[Tensor, Tensor]:
    """Map the share ξ of the width to that of the height, with the log-derivative dy/dx of the spline."""
    rest = 1 - share
    both = share * rest
    mean_slope = bin_.height / bin_.width
    left, right = bin_.left_slope, bin_.right_slope
    denominator = torch.addcmul(mean_slope, left + right - 2 * mean_slope, both)
    height_share = share * torch.addcmul(left * rest, mean_slope, share) / denominator
    scale = mean_slope / denominator
    slope = torch.addcmul(right * share * share, left * rest, rest) + 2 * mean_slope * both
    return height_share, torch.log(scale * (scale * slope))  # in this order: scale² alone can underflow
