"""Splines of lower degree, and the cubic one."""

from __future__ import annotations

from functools import partial
from typing import final

from torch import Tensor

from snflow.bijections.transformers.base import Transformer
from snflow.bijections.transformers.rational_quadratic import check_bins
from snflow.numerics.root_finding import implicit_inverse
from snflow.numerics.splines.cubic import cubic_spline
from snflow.numerics.splines.piecewise_linear import piecewise_linear
from snflow.numerics.splines.piecewise_quadratic import piecewise_quadratic


@final
class LinearSplineTransformer(Transformer):
    """z = s(x) with K straight pieces of equal width on [−B, B], the identity outside (Müller et al. 2019, §4.1).

    hᵢ are K log-heights; zeros are the identity. The slope jumps at the knots. Both directions are in closed form.

    Args:
        bins: K.
        tail_bound: B, in the units of x.

    Raises:
        ConfigError: fewer than one bin or so many that none has room, or a box without a size.

    Example:
        >>> import torch
        >>> LinearSplineTransformer(4)(torch.tensor([[0.5]]), torch.zeros(4, 1, 1))[0]
        tensor([[0.5000]])
    """

    def __init__(self, bins: int = 8, tail_bound: float = 5.0) -> None:
        super().__init__()
        check_bins("LinearSplineTransformer", bins, tail_bound)
        self.bins, self.tail_bound = bins, tail_bound
        self.parameters_per_element = bins

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = s(x)."""
        return piecewise_linear(x, per_row(h, x), bound=self.tail_bound)

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x = s⁻¹(z)."""
        return piecewise_linear(z, per_row(h, z), bound=self.tail_bound, backwards=True)


@final
class QuadraticSplineTransformer(Transformer):
    """z = s(x) with K quadratic pieces on [−B, B], the slope continuous in between (Müller et al. 2019, §4.2).

    hᵢ are K log-widths and K + 1 log-slopes; zeros are the identity. Both directions are in closed form.

    Args:
        bins: K.
        tail_bound: B, in the units of x.

    Raises:
        ConfigError: fewer than one bin or so many that none has room, or a box without a size.

    Example:
        >>> import torch
        >>> QuadraticSplineTransformer(4)(torch.tensor([[0.5]]), torch.zeros(9, 1, 1))[0]
        tensor([[0.5000]])
    """

    def __init__(self, bins: int = 8, tail_bound: float = 5.0) -> None:
        super().__init__()
        check_bins("QuadraticSplineTransformer", bins, tail_bound)
        self.bins, self.tail_bound = bins, tail_bound
        self.parameters_per_element = 2 * bins + 1

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = s(x)."""
        widths, slopes = per_row(h, x).split([self.bins, self.bins + 1])
        return piecewise_quadratic(x, widths, slopes, bound=self.tail_bound)

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x = s⁻¹(z)."""
        widths, slopes = per_row(h, z).split([self.bins, self.bins + 1])
        return piecewise_quadratic(z, widths, slopes, bound=self.tail_bound, backwards=True)


@final
class CubicSplineTransformer(Transformer):
    """z = s(x) with K cubic pieces on [−B, B], the slope continuous in between (Durkan et al. 2019).

    hᵢ are K log-widths, K log-heights and the slopes at both ends; zeros are the identity. The inverse is a root search
    with implicit gradients: the closed formula for roots of cubics loses its digits to cancellation.

    Args:
        bins: K.
        tail_bound: B, in the units of x.

    Raises:
        ConfigError: fewer than one bin or so many that none has room, or a box without a size.
        ConvergenceError: in the inverse, elements found no root.

    Example:
        >>> import torch
        >>> CubicSplineTransformer(4)(torch.tensor([[0.5]]), torch.zeros(10, 1, 1))[0]
        tensor([[0.5000]])
    """

    def __init__(self, bins: int = 8, tail_bound: float = 5.0) -> None:
        super().__init__()
        check_bins("CubicSplineTransformer", bins, tail_bound)
        self.bins, self.tail_bound = bins, tail_bound
        self.parameters_per_element = 2 * bins + 2

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = s(x)."""
        widths, heights, ends = per_row(h, x).split([self.bins, self.bins, 2])
        return cubic_spline(x, widths, heights, ends, bound=self.tail_bound)

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x = s⁻¹(z)."""
        lower, upper = z.clamp_max(-self.tail_bound), z.clamp_min(self.tail_bound)
        return implicit_inverse(partial(self.forward, h=h), z, lower, upper, where="CubicSplineTransformer inverse")


def per_row(h: Tensor, points: Tensor) -> Tensor:
    """h without its batch dimension where the batch shares it: ``(P, batch, *event)`` or ``(P, *event)``."""
    return h[:, 0] if h.shape[1] == 1 != points.shape[0] else h
