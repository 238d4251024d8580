"""The standard logistic density."""

from __future__ import annotations

from typing import final

from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from snflow.distributions.base import BaseDensity
from snflow.numerics.events import sum_event


@final
class Logistic(BaseDensity):
    """log p(z) = Σᵢ log σ(zᵢ) + log σ(−zᵢ), σ the sigmoid: independent logistics of mean 0 and scale 1.

    Its deviation is π/√3 and its tails are heavier than the normal's, so an outlier costs |z| nats instead of z²/2.
    The base density of NICE (Dinh, Krueger, Bengio 2015, section 3.4).

    Args:
        event_shape: the shape of one latent.

    Raises:
        ConfigError: the event shape is no tuple of positive integers.

    Example:
        >>> import torch
        >>> round(Logistic((1,)).log_prob(torch.zeros(1, 1)).exp().item(), 6)
        0.25
    """

    def _log_prob(self, z: Tensor) -> Tensor:
        # The two terms, rather than −z − 2 softplus(−z): no ∞ − ∞ in a tail, and smooth at 0.
        return sum_event(logsigmoid(z) + logsigmoid(-z))

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        # log(E₁/E₂) of two exponentials, which torch draws from (0, ∞): no logit of a uniform draw that is exactly 0.
        first = self._noise(n).exponential_(generator=generator)
        second = self._noise(n).exponential_(generator=generator)
        return temperature * (first.log() - second.log())
