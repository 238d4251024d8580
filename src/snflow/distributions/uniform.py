"""The uniform density on a box."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Generator, Tensor

from snflow.bijections.base import Shape
from snflow.distributions.base import BaseDensity
from snflow.errors import ConfigError
from snflow.numerics.events import sum_event


@final
class Uniform(BaseDensity):
    """log p(z) = −D log(high − low) inside [low, high]ᴰ, exactly −∞ outside.

    A NaN stays a NaN: it is neither inside nor outside.

    Args:
        event_shape: the shape of one latent.
        low: the lower edge of every element.
        high: the upper edge of every element.

    Raises:
        ConfigError: the event shape is no tuple of positive integers, or ``low`` is not below ``high``.

    Example:
        >>> import torch
        >>> base = Uniform((1,), low=-1.0, high=1.0)
        >>> base.log_prob(torch.tensor([[0.5], [1.5]])).exp()
        tensor([0.5000, 0.0000])
    """

    def __init__(self, event_shape: Shape, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__(event_shape)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigError(self.label, expected="finite edges with low < high", got=f"low={low}, high={high}")
        self.low, self.high = low, high

    def _log_prob(self, z: Tensor) -> Tensor:
        density = torch.where(z.isnan(), z, -math.log(self.high - self.low))
        return sum_event(torch.where((z < self.low) | (z > self.high), -math.inf, density))

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        centre, width = (self.low + self.high) / 2, self.high - self.low
        return centre + temperature * width * (self._noise(n).uniform_(generator=generator) - 0.5)

    def extra_repr(self) -> str:
        """Show the shape and the box in ``print(flow)``."""
        return f"{super().extra_repr()}, low={self.low}, high={self.high}"
