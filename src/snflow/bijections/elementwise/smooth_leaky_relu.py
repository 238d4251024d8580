"""Smooth leaky ReLU."""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from snflow.bijections.base import Bijection
from snflow.errors import ConfigError
from snflow.numerics.events import sum_event
from snflow.numerics.root_finding import invert_increasing


@final
class SmoothLeakyReLU(Bijection):
    """z = αx + (1 − α) softplus(x), with log|det| = Σ log(α + (1 − α) sigmoid(x)) (Gresele et al. 2020, §5).

    Takes events of any shape; z has the shape of x. The slope rises from α to one. The inverse is Newton's method from
    the right, where it falls monotonically on the root because the map is convex; it has the gradient 1/f'(x).

    Args:
        alpha: the slope α far on the negative side, in (0, 1].

    Raises:
        ConfigError: the slope is not in (0, 1].

    Example:
        >>> import torch
        >>> from snflow.bijections import SmoothLeakyReLU
        >>> layer, x = SmoothLeakyReLU(), torch.tensor([[-2.0, 0.0, 3.0]])
        >>> z, log_det = layer(x)
        >>> torch.allclose(layer.decode(z), x, atol=1e-6)
        True
    """

    def __init__(self, alpha: float = 0.3) -> None:
        super().__init__()
        if not 0 < alpha <= 1:
            raise ConfigError(self.label, expected="0 < alpha <= 1", got=f"{alpha}", fix="the paper takes 0.3")
        self.alpha = alpha

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, slope = self._value_and_slope(x)
        return z, sum_event(slope.log())

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        # max(x, αx) ≤ f(x) ≤ max(x, αx) + (1 − α) log 2, the leaky ReLU, brackets the root
        lowest = z - (1 - self.alpha) * math.log(2)
        lower, upper = (torch.where(bound < 0, bound / self.alpha, bound).detach() for bound in (lowest, z))
        root = invert_increasing(self._value_and_slope, z, lower, upper, start=upper, where=f"{self.label} inverse")
        # one more Newton step, for the gradient; an infinity is its own root and gets none
        value, slope = self._value_and_slope(root)
        x = root - torch.where(root.isinf(), 0.0, (value - z) / slope)
        return x, -sum_event(self._value_and_slope(x)[1].log())

    def _value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # beyond 40 softplus(x) rounds to x in float64; torch's default of 20 is off by 2e-9
        value = torch.add(self.alpha * x, F.softplus(x, threshold=40.0), alpha=1 - self.alpha)
        return value, torch.add(x.new_full((), self.alpha), torch.sigmoid(x), alpha=1 - self.alpha)

    def extra_repr(self) -> str:
        """Show the slope."""
        return f"alpha={self.alpha}"
