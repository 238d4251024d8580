"""Leaky ReLU."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from snflow.bijections.base import Bijection
from snflow.errors import ConfigError
from snflow.numerics.events import sum_event


@final
class LeakyReLU(Bijection):
    """z = x where x ≥ 0, αx where x < 0, with log|det| = (number of negative elements) · log α.

    Takes events of any shape; z has the shape of x.

    Args:
        alpha: the slope α of the negative side, positive.

    Raises:
        ConfigError: the slope is not a positive number.

    Example:
        >>> import torch
        >>> from snflow.bijections import LeakyReLU
        >>> z, log_det = LeakyReLU(0.5)(torch.tensor([[-2.0, 3.0]]))
        >>> z, log_det
        (tensor([[-1., 3.]]), tensor([-0.6931]))
    """

    def __init__(self, alpha: float = 0.3) -> None:
        super().__init__()
        if not 0 < alpha < math.inf:
            raise ConfigError(self.label, expected="alpha > 0", got=f"{alpha}", fix="a slope of zero has no inverse")
        self.alpha = alpha

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._scale(x, self.alpha)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._scale(z, 1 / self.alpha)

    @staticmethod
    def _scale(x: Tensor, slope: float) -> tuple[Tensor, Tensor]:
        negative = x < 0
        logs = torch.where(negative, math.log(slope), 0.0).to(x.dtype)
        return torch.where(negative, slope * x, x), sum_event(logs)

    def extra_repr(self) -> str:
        """Show the slope."""
        return f"alpha={self.alpha}"
