"""Rational-quadratic spline activation."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection, Shape
from snflow.errors import ConfigError
from snflow.numerics.events import sum_event
from snflow.numerics.splines.rational_quadratic import (
    SplineKnots,
    inverse_spline,
    inverse_spline_value,
    spline,
    spline_knots,
)
from snflow.numerics.transforms import under_transform


@final
class RationalQuadraticSpline(Bijection):
    """z = s(x), log|det| = Σ log s'(x): a learned monotone spline for each element of the event (Durkan et al. 2019).

    Inside [−tail_bound, tail_bound] each element has its own ``bins`` rational-quadratic pieces, outside all are the
    identity. Parameters start as N(0, 0.01²), which is close to the identity; zeros are the identity.

    Args:
        event_shape: the shape of x and z without the batch.
        bins: the number of pieces.
        tail_bound: half the side of the box, in the units of x.
        min_bin_width: the smallest share of the box's width that a bin takes.
        min_bin_height: the smallest share of the box's height that a bin takes.
        min_derivative: the smallest slope at a knot.

    Attributes:
        widths: unnormalised log-widths, with shape ``(*event, bins)``.
        heights: unnormalised log-heights, with shape ``(*event, bins)``.
        slopes: unconstrained slopes at the inner knots, with shape ``(*event, bins - 1)``.

    Raises:
        ConfigError: fewer than one bin, a box without a size, or minimal sizes that leave the bins no room.

    Example:
        >>> import torch
        >>> from snflow.bijections import RationalQuadraticSpline
        >>> layer = RationalQuadraticSpline((1, 8, 8))
        >>> z, log_det = layer(torch.full((4, 1, 8, 8), 12.0))  # outside the box: the identity
        >>> z.unique().tolist(), log_det.tolist()
        ([12.0], [0.0, 0.0, 0.0, 0.0])
    """

    event_shape: Shape

    def __init__(
        self,
        event_shape: Shape,
        bins: int = 5,
        tail_bound: float = 10.0,
        min_bin_width: float = 1e-3,
        min_bin_height: float = 1e-3,
        min_derivative: float = 1e-3,
    ) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.bins, self.tail_bound = bins, tail_bound
        self.min_bin_width, self.min_bin_height, self.min_derivative = min_bin_width, min_bin_height, min_derivative
        self._check_options()
        self._kept: tuple[tuple[Tensor, ...], SplineKnots] | None = None
        self.widths = nn.Parameter(0.01 * torch.randn(*self.event_shape, bins))
        self.heights = nn.Parameter(0.01 * torch.randn(*self.event_shape, bins))
        self.slopes = nn.Parameter(0.01 * torch.randn(*self.event_shape, bins - 1))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_derivative = spline(x, self._knots())
        return z, sum_event(log_derivative)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_derivative = inverse_spline(z, self._knots())
        return x, sum_event(log_derivative)

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        return inverse_spline_value(z, self._knots())

    def _knots(self) -> SplineKnots:
        """The knots; without gradients those of the last time, while the parameters are what they were then."""
        if torch.is_grad_enabled() or self.training or torch.compiler.is_compiling() or under_transform():
            return self._knots_of(self.widths, self.heights, self.slopes)
        now = (self.widths.detach(), self.heights.detach(), self.slopes.detach())
        if self._kept is not None:
            seen, knots = self._kept
            comparable = all(a.dtype == b.dtype and a.device == b.device for a, b in zip(seen, now, strict=True))
            # values, not version counters: an edit of `.data` and a fused optimizer's step leave those alone
            if comparable and all(torch.equal(a, b) for a, b in zip(seen, now, strict=True)):
                return knots
        knots = self._knots_of(*now)
        self._kept = tuple(tensor.clone() for tensor in now), knots
        return knots

    def _knots_of(self, widths: Tensor, heights: Tensor, slopes: Tensor) -> SplineKnots:
        return spline_knots(
            widths,
            heights,
            slopes,
            bound=self.tail_bound,
            min_width=self.min_bin_width,
            min_height=self.min_bin_height,
            min_slope=self.min_derivative,
        )

    def __getstate__(self) -> dict[str, object]:
        """Leave the knots out of copies and pickles: they are made anew on demand."""
        return {**self.__dict__, "_kept": None}

    def _check_options(self) -> None:
        smallest = max(self.min_bin_width, self.min_bin_height)
        rules = [
            (self.bins >= 1, "bins >= 1", f"{self.bins}", "the paper takes 5"),
            (0 < self.tail_bound < float("inf"), "tail_bound > 0", f"{self.tail_bound}", "the paper takes 10"),
            (
                min(self.min_bin_width, self.min_bin_height) > 0 and smallest * self.bins < 1,
                f"min_bin_width and min_bin_height between 0 and 1/bins = {1 / max(self.bins, 1):.3g}",
                f"{self.min_bin_width} and {self.min_bin_height}",
                "they are shares of the box",
            ),
            (0 < self.min_derivative < 1, "0 < min_derivative < 1", f"{self.min_derivative}", "the paper takes 1e-3"),
        ]
        for holds, expected, got, fix in rules:
            if not holds:
                raise ConfigError(self.label, expected=expected, got=got, fix=fix)

    def extra_repr(self) -> str:
        """Show the size of the spline."""
        return f"{self.event_shape}, bins={self.bins}, tail_bound={self.tail_bound}"
