"""Spline transformers: linear, quadratic, cubic and rational-quadratic, on an interval or on a circle."""

from __future__ import annotations

import math
from functools import partial
from typing import final

import torch
from torch import Tensor
from torch.distributions import constraints

from snflow.bijections.transformers.transformer import Transformer
from snflow.errors import ConfigError
from snflow.numerics.compilation import ROOT_SEARCH
from snflow.numerics.root_finding import implicit_inverse
from snflow.numerics.splines import (
    SplineKnots,
    cubic_spline,
    inverse_spline,
    inverse_spline_value,
    piecewise_linear,
    piecewise_quadratic,
    spline,
    spline_knots,
)

_MIN = 1e-3
"""The smallest width and height of a bin, as a fraction of the box, and the smallest slope at a knot."""


class _Spline(Transformer):
    """A spline with K bins on [−B, B], each of which takes up at least a fraction of 1e-3 of the box."""

    def __init__(self, bins: int, tail_bound: float, parameters: int) -> None:
        super().__init__()
        _check_bins(type(self).__name__, bins, tail_bound)
        self.bins, self.tail_bound, self.parameters_per_element = bins, tail_bound, parameters

    def extra_repr(self) -> str:
        """Show the size of the spline."""
        return f"bins={self.bins}, tail_bound={self.tail_bound}"


@final
class LinearSplineTransformer(_Spline):
    """z = s(x) with K linear pieces of equal width on [−B, B], the identity outside (Müller et al. 2019, §4.1).

    hᵢ consists of K log-heights; h = 0 gives the identity. The slope is discontinuous at the knots. Both directions
    have a closed form.

    Args:
        bins: K.
        tail_bound: B, in the units of x.

    Raises:
        ConfigError: fewer than one bin, too many bins for the box, or an empty box.

    Example:
        >>> import torch
        >>> LinearSplineTransformer(4)(torch.tensor([[0.5]]), torch.zeros(4, 1, 1))[0]
        tensor([[0.5000]])
    """

    def __init__(self, bins: int = 8, *, tail_bound: float = 5.0) -> None:
        super().__init__(bins, tail_bound, bins)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = s(x)."""
        return piecewise_linear(x, _shared(h, x), bound=self.tail_bound)

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x = s⁻¹(z)."""
        return piecewise_linear(z, _shared(h, z), bound=self.tail_bound, backwards=True)


@final
class QuadraticSplineTransformer(_Spline):
    """z = s(x) with K quadratic pieces on [−B, B] and a continuous slope (Müller et al. 2019, §4.2).

    hᵢ consists of K log-widths and K + 1 log-slopes; h = 0 gives the identity. Both directions have a closed form.

    Args:
        bins: K.
        tail_bound: B, in the units of x.

    Raises:
        ConfigError: fewer than one bin, too many bins for the box, or an empty box.

    Example:
        >>> import torch
        >>> QuadraticSplineTransformer(4)(torch.tensor([[0.5]]), torch.zeros(9, 1, 1))[0]
        tensor([[0.5000]])
    """

    def __init__(self, bins: int = 8, *, tail_bound: float = 5.0) -> None:
        super().__init__(bins, tail_bound, 2 * bins + 1)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = s(x)."""
        widths, slopes = _shared(h, x).split([self.bins, self.bins + 1])
        return piecewise_quadratic(x, widths, slopes, bound=self.tail_bound)

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x = s⁻¹(z)."""
        widths, slopes = _shared(h, z).split([self.bins, self.bins + 1])
        return piecewise_quadratic(z, widths, slopes, bound=self.tail_bound, backwards=True)


@final
class CubicSplineTransformer(_Spline):
    """z = s(x) with K cubic pieces on [−B, B] and a continuous slope (Durkan et al. 2019).

    hᵢ consists of K log-widths, K log-heights and the slopes at both ends; h = 0 gives the identity. The inverse is a
    root search with implicit gradients, since the closed form for the roots of cubics suffers from cancellation.

    Args:
        bins: K.
        tail_bound: B, in the units of x.

    Raises:
        ConfigError: fewer than one bin, too many bins for the box, or an empty box.
        ConvergenceError: in the inverse, no root was found for some elements.

    Example:
        >>> import torch
        >>> CubicSplineTransformer(4)(torch.tensor([[0.5]]), torch.zeros(10, 1, 1))[0]
        tensor([[0.5000]])
    """

    uncompiled = ROOT_SEARCH

    def __init__(self, bins: int = 8, *, tail_bound: float = 5.0) -> None:
        super().__init__(bins, tail_bound, 2 * bins + 2)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = s(x)."""
        widths, heights, ends = _shared(h, x).split([self.bins, self.bins, 2])
        return cubic_spline(x, widths, heights, ends, bound=self.tail_bound)

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x = s⁻¹(z)."""
        lower, upper = z.clamp_max(-self.tail_bound), z.clamp_min(self.tail_bound)
        return implicit_inverse(partial(self.forward, h=h), z, lower, upper, where="CubicSplineTransformer inverse")


@final
class RationalQuadraticTransformer(Transformer):
    """z = s(x), log s'(x): a monotone rational-quadratic spline on [−B, B], the identity outside (Durkan et al. 2019).

    hᵢ consists of K log-widths, K log-heights and K − 1 slopes, all unconstrained; h = 0 gives the identity. Both
    directions have a closed form.

    Args:
        bins: K.
        tail_bound: B, in the units of x.
        min_bin_width: the smallest width of a bin, as a fraction of the box.
        min_bin_height: the smallest height of a bin, as a fraction of the box.
        min_derivative: the smallest slope at a knot.

    Raises:
        ConfigError: fewer than one bin, an empty box, or minimum bin sizes that do not fit into the box.

    Example:
        >>> import torch
        >>> transformer = RationalQuadraticTransformer(bins=4)
        >>> x, h = torch.randn(5, 2), torch.randn(11, 5, 2)
        >>> torch.allclose(transformer.inverse(transformer(x, h)[0], h)[0], x, atol=1e-4)
        True
    """

    def __init__(
        self,
        bins: int = 8,
        *,
        tail_bound: float = 5.0,
        min_bin_width: float = _MIN,
        min_bin_height: float = _MIN,
        min_derivative: float = _MIN,
    ) -> None:
        super().__init__()
        _check_box("RationalQuadraticTransformer", bins, tail_bound)
        smallest = min(min_bin_width, min_bin_height)
        if not (smallest > 0 and max(min_bin_width, min_bin_height) * bins < 1):
            raise ConfigError(
                "RationalQuadraticTransformer",
                expected=f"min_bin_width and min_bin_height between 0 and 1/bins = {1 / bins:.3g}",
                got=f"{min_bin_width} and {min_bin_height}",
                fix="give them as fractions of the box",
            )
        if not 0 < min_derivative < 1:
            raise ConfigError(
                "RationalQuadraticTransformer",
                expected="0 < min_derivative < 1",
                got=str(min_derivative),
                fix="use 1e-3, as in the paper",
            )
        self.bins, self.tail_bound = bins, tail_bound
        self.min_bin_width, self.min_bin_height, self.min_derivative = min_bin_width, min_bin_height, min_derivative
        self.parameters_per_element = 3 * bins - 1

    def forward(self, x: Tensor, h: Tensor | SplineKnots) -> tuple[Tensor, Tensor]:
        """z = s(x)."""
        return spline(x, self._knots(h, x))

    def inverse(self, z: Tensor, h: Tensor | SplineKnots) -> tuple[Tensor, Tensor]:
        """x = s⁻¹(z)."""
        return inverse_spline(z, self._knots(h, z))

    def decode(self, z: Tensor, h: Tensor | SplineKnots) -> Tensor:
        """x = s⁻¹(z), without the log-slope."""
        return inverse_spline_value(z, self._knots(h, z))

    def prepare(self, h: Tensor) -> SplineKnots:
        """The knots."""
        # contiguous per element, since rounding in the vectorized softplus depends on the memory layout
        return self._knots_of(h[:, 0].movedim(0, -1).contiguous().movedim(-1, 0))

    def _knots(self, h: Tensor | SplineKnots, points: Tensor) -> SplineKnots:
        return h if isinstance(h, SplineKnots) else self._knots_of(_shared(h, points))

    def _knots_of(self, h: Tensor) -> SplineKnots:
        widths, heights, slopes = h.movedim(0, -1).split([self.bins, self.bins, self.bins - 1], -1)
        return spline_knots(
            widths,
            heights,
            slopes,
            bound=self.tail_bound,
            min_width=self.min_bin_width,
            min_height=self.min_bin_height,
            min_slope=self.min_derivative,
        )

    def extra_repr(self) -> str:
        """Show the size of the spline."""
        return f"bins={self.bins}, tail_bound={self.tail_bound}"


@final
class CircularSplineTransformer(Transformer):
    """z = wrap(s(wrap(x + φ))), log s': a spline of angles in [−π, π), with equal slopes at both ends.

    hᵢ consists of K log-widths, K log-heights, K slopes and a rotation φ in radians. x is taken modulo 2π; z lies in
    [−π, π].

    Args:
        bins: K.

    Raises:
        ConfigError: fewer than one bin, or too many bins for the circle.

    References:
        Rezende et al. (2020), Normalizing flows on tori and spheres, section 2.1.2; Durkan et al. (2019).

    Example:
        >>> import torch
        >>> transformer = CircularSplineTransformer(bins=4)
        >>> x, h = torch.tensor([[3.0]]), torch.randn(13, 1, 1)
        >>> torch.allclose(transformer(x, h)[0], transformer(x + 2 * torch.pi, h)[0], atol=1e-4)
        True
    """

    domain = constraints.interval(-math.pi, math.pi)

    def __init__(self, bins: int = 8) -> None:
        super().__init__()
        _check_bins("CircularSplineTransformer", bins, math.pi)
        self.bins = bins
        self.parameters_per_element = 3 * bins + 1

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = s(wrap(x + φ))."""
        z, log_slope = spline(_wrapped(x + h[-1]), self._knots(h, x))
        # rounding must not move an angle beyond ±π, where the density of a uniform base distribution is zero
        return z.clamp(-math.pi, math.pi), log_slope

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x = wrap(s⁻¹(wrap(z)) − φ)."""
        x, log_slope = inverse_spline(_wrapped(z), self._knots(h, z))
        return _wrapped(x - h[-1]), log_slope

    def _knots(self, h: Tensor, points: Tensor) -> SplineKnots:
        widths, heights, slopes, _ = _shared(h, points).movedim(0, -1).split([self.bins, self.bins, self.bins, 1], -1)
        knots = spline_knots(widths, heights, slopes[..., 1:], bound=math.pi)
        offset = math.log(math.expm1(1 - _MIN))
        end = (_MIN + torch.nn.functional.softplus(slopes[..., 0] + offset)).unsqueeze(0)
        return knots._replace(slopes=torch.cat([end, knots.slopes[1:-1], end]))

    def extra_repr(self) -> str:
        """Show the size of the spline."""
        return f"bins={self.bins}"


def _check_bins(where: str, bins: int, tail_bound: float) -> None:
    """Raise an error for an empty box, or for too many bins of the smallest size."""
    _check_box(where, bins, tail_bound)
    if not bins < 1 / _MIN:
        raise ConfigError(where, expected=f"at most {1 / _MIN - 1:.0f} bins", got=str(bins), fix="use 8")


def _check_box(where: str, bins: int, tail_bound: float) -> None:
    if bins < 1:
        raise ConfigError(where, expected="bins ≥ 1", got=str(bins), fix="use 8")
    if not 0 < tail_bound < float("inf"):
        raise ConfigError(where, expected="tail_bound > 0", got=str(tail_bound), fix="use 5 for standardized data")


def _shared(h: Tensor, points: Tensor) -> Tensor:
    """Return h as ``(P, *event)`` if the batch shares it, otherwise unchanged, ``(P, batch, *event)``."""
    return h[:, 0] if h.shape[1] == 1 != points.shape[0] else h


def _wrapped(angle: Tensor) -> Tensor:
    """The same angle in [−π, π)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
