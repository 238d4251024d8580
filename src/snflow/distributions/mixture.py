"""A mixture of normals."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Generator, Tensor, nn

from snflow.arguments import check_count
from snflow.bijections.base import Shape
from snflow.distributions.base import BaseDensity
from snflow.numerics.events import sum_event

_LARGEST = 7.0


@final
class NormalMixture(BaseDensity):
    """log p(z) = log Σₖ πₖ Πᵢ N(zᵢ; μₖᵢ, σₖᵢ²): K normals with learned weights, means and scales, for data in clusters.

    A flow is a deformation: from one normal it can only draw thin bridges between clusters. The means begin as a sample
    of a standard normal. A sample is differentiable in means and scales, not in the weights. log σ is bounded by ±7.

    Args:
        event_shape: the shape of one latent.
        components: K.

    Raises:
        ConfigError: the event shape is no tuple of positive integers, or K is below one.

    Example:
        >>> import torch
        >>> base = NormalMixture((2,), 3)
        >>> base.log_prob(base.sample(5)).shape
        torch.Size([5])
    """

    def __init__(self, event_shape: Shape, components: int = 8) -> None:
        super().__init__(event_shape)
        check_count("NormalMixture", "components", components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, *self.event_shape))
        self.raw_log_scales = nn.Parameter(torch.zeros(components, *self.event_shape))

    @property
    def log_scales(self) -> Tensor:
        """log σ, with shape ``(K, *event)``."""
        return _LARGEST * torch.tanh(self.raw_log_scales / _LARGEST)

    def _log_prob(self, z: Tensor) -> Tensor:
        log_scales = self.log_scales
        standard = (z.unsqueeze(1) - self.means) * torch.exp(-log_scales)
        each = -0.5 * sum_event((standard.square() + math.log(2 * math.pi)).flatten(0, 1)).unflatten(
            0, standard.shape[:2]
        )
        return torch.logsumexp(torch.log_softmax(self.logits, 0) + each - sum_event(log_scales), 1)

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        weights = torch.softmax(self.logits.detach(), 0)
        chosen = (
            torch.multinomial(weights, n, replacement=True, generator=generator)
            if n
            else self.means.new_zeros(0).long()
        )
        noise = self._noise(n).normal_(generator=generator)
        return self.means[chosen] + temperature * self.log_scales.exp()[chosen] * noise
