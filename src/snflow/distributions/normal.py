"""Normal base densities: the standard one, and a diagonal one that learns its mean and scale."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Generator, Tensor, nn

from snflow.bijections.base import Shape
from snflow.distributions.base import BaseDensity
from snflow.errors import ConfigError
from snflow.numerics.events import sum_event

_LOG_2PI = math.log(2 * math.pi)


@final
class StandardNormal(BaseDensity):
    """log p(z) = −½ Σᵢ (zᵢ² + log 2π): independent normals of mean 0 and deviation 1.

    Args:
        event_shape: the shape of one latent.

    Raises:
        ConfigError: the event shape is no tuple of positive integers.

    Example:
        >>> import torch
        >>> base = StandardNormal((1, 28, 28))
        >>> base.log_prob(base.sample(3)).shape
        torch.Size([3])
        >>> round(StandardNormal((1,)).log_prob(torch.zeros(1, 1)).item(), 4)
        -0.9189
    """

    def _log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * sum_event(z.square() + _LOG_2PI)

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        return temperature * self._noise(n).normal_(generator=generator)


@final
class DiagonalNormal(BaseDensity):
    """log p(z) = −½ Σᵢ (((zᵢ − μᵢ)/σᵢ)² + 2 log σᵢ + log 2π): independent normals with learned mean and scale.

    log σ = b tanh(s / b) for the free parameter s: smooth, so that a gradient always comes through, and bounded, so
    that no scale explodes or vanishes. It starts as the standard normal.

    Args:
        event_shape: the shape of one latent.
        log_scale_bound: b, the largest |log σ|; 7 lets σ run from about 1/1100 to 1100.

    Raises:
        ConfigError: the event shape is no tuple of positive integers, or the bound is not positive.

    Example:
        >>> import torch
        >>> base = DiagonalNormal((2,))
        >>> z = torch.ones(5, 2)
        >>> torch.equal(base.log_prob(z), StandardNormal((2,)).log_prob(z))
        True
    """

    def __init__(self, event_shape: Shape, log_scale_bound: float = 7.0) -> None:
        super().__init__(event_shape)
        if not (math.isfinite(log_scale_bound) and log_scale_bound > 0):
            raise ConfigError(self.label, expected="a positive log_scale_bound", got=repr(log_scale_bound))
        self.log_scale_bound = log_scale_bound
        self.mean = nn.Parameter(torch.zeros(self.event_shape))
        self.raw_log_scale = nn.Parameter(torch.zeros(self.event_shape))

    @property
    def log_scale(self) -> Tensor:
        """log σ, with shape ``event_shape``."""
        return self.log_scale_bound * torch.tanh(self.raw_log_scale / self.log_scale_bound)

    def _log_prob(self, z: Tensor) -> Tensor:
        log_scale = self.log_scale
        standard = (z - self.mean) * torch.exp(-log_scale)
        return -0.5 * sum_event(standard.square() + _LOG_2PI) - log_scale.sum()

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        return self.mean + temperature * self.log_scale.exp() * self._noise(n).normal_(generator=generator)
