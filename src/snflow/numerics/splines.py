"""Monotone splines: linear, quadratic, cubic and rational-quadratic."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def rising(unnormalized: Tensor, bound: float, min_share: float) -> Tensor:
    """Knots from −bound to bound, whose bins have relative sizes ``min_share + (1 − K · min_share) softmax``.

    Args:
        unnormalized: unconstrained parameters, with shape ``(K, *shape)``.
        bound: half the side length of the box.
        min_share: the smallest size of a bin, as a fraction of the box.

    Returns:
        The knots, with shape ``(K + 1, *shape)``; both ends are free of rounding errors.

    Example:
        >>> import torch
        >>> rising(torch.zeros(4), 2.0, 1e-3).tolist()
        [-2.0, -1.0, 0.0, 1.0, 2.0]
    """
    bins = unnormalized.shape[0]
    shares = min_share + (1 - bins * min_share) * torch.softmax(unnormalized, 0)
    inner = 2 * bound * shares[:-1].cumsum(0) - bound
    end = torch.full_like(shares[:1], bound)
    return torch.cat([-end, inner, end])


def bin_of(points: Tensor, knots: Tensor) -> Tensor:
    """The index of each point's bin: the number of inner knots that do not exceed it, which is also defined for NaN.

    Args:
        points: with shape ``(batch, *event)``.
        knots: ``(K + 1, *event)`` if the batch shares them, otherwise ``(K + 1, batch, *event)``.

    Returns:
        Indices from 0 to K − 1, with the shape of the points.
    """
    inner = knots[1:-1].detach()
    return (points >= (inner.unsqueeze(1) if knots.dim() == points.dim() else inner)).sum(0)


def take(table: Tensor, index: Tensor) -> Tensor:
    """The entry of each point's bin.

    Args:
        table: one entry per bin, with shape ``(K, *event)`` if the batch shares it, or ``(K, batch, *event)``.
        index: with shape ``(batch, *event)``.

    Returns:
        The entries, with the shape of the index.
    """
    if table.dim() == index.dim():
        return table.gather(0, index)
    return table.gather(0, index.unsqueeze(0)).squeeze(0)


def take_ends(table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The entries of the knots to the left and to the right of each point, with a single gather.

    Args:
        table: one entry per knot, ``(K + 1, *event)`` if the batch shares it, or ``(K + 1, batch, *event)``.
        index: the bin, from 0 to K − 1, with shape ``(batch, *event)``.

    Returns:
        Both with the shape of the index.

    Example:
        >>> import torch
        >>> left, right = take_ends(torch.tensor([[-1.0], [0.0], [1.0]]), torch.tensor([[1]]))
        >>> left.item(), right.item()
        (0.0, 1.0)
    """
    following = index + 1
    shared = table.dim() == index.dim()
    both = table.gather(0, torch.cat([index, following]) if shared else torch.stack([index, following]))
    left, right = both.view(2, *index.shape).unbind(0)
    return left, right


def piecewise_linear(
    points: Tensor, heights: Tensor, *, bound: float, backwards: bool = False
) -> tuple[Tensor, Tensor]:
    """z = yₖ + (x − xₖ) Δyₖ/Δx and log(Δyₖ/Δx), or the inverse: linear on each of K equal bins of [−bound, bound].

    Args:
        points: x, or z for the inverse, with shape ``(batch, *event)``.
        heights: unconstrained log-heights of the bins, with shape ``(K, batch, *event)`` or ``(K, *event)``.
        bound: half the side length of the box; outside it the map is the identity.
        backwards: whether to compute the inverse, from z to x.

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


_MIN = 1e-3


def piecewise_quadratic(
    points: Tensor, widths: Tensor, slopes: Tensor, *, bound: float, backwards: bool = False
) -> tuple[Tensor, Tensor]:
    """z = yₖ + sₖ ξ + (sₖ₊₁ − sₖ) ξ²/(2 Δxₖ), ξ = x − xₖ, and its log-slope, or the inverse, in closed form.

    The slopes s at the knots are positive and scaled such that [−bound, bound] is mapped to itself.

    Args:
        points: x, or z for the inverse, with shape ``(batch, *event)``.
        widths: unconstrained log-widths of K bins, with shape ``(K, batch, *event)`` or ``(K, *event)``.
        slopes: unconstrained slopes at K + 1 knots, likewise.
        bound: half the side length of the box; outside it the map is the identity.
        backwards: whether to compute the inverse, from z to x.

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
        # ½ bend ξ² + left ξ − rise = 0, with a formula that avoids cancellation, since both slopes are positive
        root = (left * left + 2 * bend * rise).clamp_min(torch.finfo(rise.dtype).tiny).sqrt()
        step = 2 * rise / (left + root)
        image = low_x + step
    else:
        step = inner - low_x
        image = low_y + step * (left + 0.5 * bend * step)
    log_slope = (left + bend * step).log()
    return torch.where(outside, points, image), torch.where(outside, 0.0, -log_slope if backwards else log_slope)


def cubic_spline(x: Tensor, widths: Tensor, heights: Tensor, ends: Tensor, *, bound: float) -> tuple[Tensor, Tensor]:
    """z = a ξ³ + b ξ² + c ξ + yₖ, ξ = (x − xₖ)/Δxₖ, and log dz/dx: cubic pieces with a continuous slope.

    The slopes at inner knots are Steffen's, which make each piece monotone. The slopes at the two ends are free between
    zero and three times the slope of the chord.

    Args:
        x: with shape ``(batch, *event)``.
        widths: unconstrained log-widths of K bins, with shape ``(K, batch, *event)`` or ``(K, *event)``.
        heights: unconstrained log-heights, likewise.
        ends: unconstrained slopes at both ends, likewise with 2 in place of K.
        bound: half the side length of the box; outside it the map is the identity.

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
    # sigmoid(−log 2) = 1/3: a parameter of zero gives the slope of the chord
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


class SplineKnots(NamedTuple):
    """(xₖ, yₖ, δₖ), k = 0 … bins: the knots of a spline and the slopes at the knots.

    Attributes:
        x: knots on the data side, increasing from −bound to bound, with shape ``(bins + 1, *shape)``.
        y: knots on the latent side, likewise.
        slopes: dy/dx at the knots, positive, equal to one at both ends, likewise.
        bound: half the side length of the box; outside it the spline is the identity.
    """

    x: Tensor
    y: Tensor
    slopes: Tensor
    bound: float


class _Bin(NamedTuple):
    """The bin of each point; every field has the shape of the points."""

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
    """Knots from unconstrained parameters: softmax widths and heights, softplus slopes; zeros give the identity.

    Widths are ``min_width + (1 − bins · min_width) softmax(widths)``, as fractions of the box, and heights likewise.
    The slopes at both ends are one, to match the identity outside.

    Args:
        widths: with shape ``(*shape, bins)``: ``shape`` is the event for parameters that the batch shares, or
            ``(batch, *event)`` for parameters of each sample.
        heights: with shape ``(*shape, bins)``.
        slopes: at the inner knots, with shape ``(*shape, bins - 1)``.
        bound: half the side length of the box.
        min_width: the smallest width of a bin, as a fraction of the box.
        min_height: the smallest height of a bin, as a fraction of the box.
        min_slope: the smallest slope at a knot.

    Example:
        >>> import torch
        >>> spline_knots(torch.zeros(4), torch.zeros(4), torch.zeros(3), bound=2.0).x.tolist()
        [-2.0, -1.0, 0.0, 1.0, 2.0]
    """
    # softplus(0 + offset) + min_slope = 1: a parameter of zero gives a slope of one
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
        knots: of shape ``(bins + 1, *event)`` if the batch shares them, otherwise ``(bins + 1, batch, *event)``.

    Returns:
        z and the log-derivative in nats, both with the shape of x. Outside the box they are x and 0; NaN is preserved.

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
        x and the log-derivative in nats, both with the shape of z. Outside the box they are z and 0; NaN is preserved.

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
    """x = s⁻¹(z) without the log-derivative, elementwise, for sampling.

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
    """x, its relative position ξ in its bin, and the bin, for z clamped to the box."""
    inner = z.clamp(-knots.bound, knots.bound)
    bin_ = _bin(inner, knots.y, knots)
    theta = (inner - bin_.y) / bin_.height
    mean_slope = bin_.height / bin_.width
    bend = theta * (bin_.left_slope + bin_.right_slope - 2 * mean_slope)
    # a ξ² + b ξ − c = 0 for ξ in [0, 1], with a + b = mean_slope and c ≥ 0
    a, b, c = mean_slope - bin_.left_slope + bend, bin_.left_slope - bend, mean_slope * theta
    # a minimum of zero would suffice for the value, but the square root has an infinite gradient there
    discriminant = (b * b + 4 * a * c).clamp(min=torch.finfo(z.dtype).tiny)
    sum_ = b.abs() + discriminant.sqrt()
    rising = b >= 0
    share = torch.where(rising, 2 * c, sum_) / torch.where(rising, sum_, 2 * a)
    share = share.clamp(0, 1)
    return torch.addcmul(bin_.x, bin_.width, share), share, bin_


def _bin(points: Tensor, knots: Tensor, spline_: SplineKnots) -> _Bin:
    """Look up the bin of each point among ``knots``, the x or the y of the spline."""
    index = bin_of(points, knots)
    left, right = take_ends(spline_.x, index)
    lower, upper = take_ends(spline_.y, index)
    return _Bin(left, right - left, lower, upper - lower, *take_ends(spline_.slopes, index))


def _interpolate(share: Tensor, bin_: _Bin) -> tuple[Tensor, Tensor]:
    """Map the relative position ξ in a bin from the x-axis to the y-axis, with the log-derivative of the spline."""
    rest = 1 - share
    both = share * rest
    mean_slope = bin_.height / bin_.width
    left, right = bin_.left_slope, bin_.right_slope
    denominator = torch.addcmul(mean_slope, left + right - 2 * mean_slope, both)
    height_share = share * torch.addcmul(left * rest, mean_slope, share) / denominator
    scale = mean_slope / denominator
    slope = torch.addcmul(right * share * share, left * rest, rest) + 2 * mean_slope * both
    return height_share, torch.log(scale * (scale * slope))  # in this order, since scale² can underflow
