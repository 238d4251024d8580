"""A learned scale of each element."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection, Shape


@final
class Scaling(Bijection):
    """z = x ⊙ exp(s), log|det| = Σ s, with a learned s for each element (Dinh et al. 2015, NICE, section 3.3).

    Args:
        event_shape: the shape of x and z without the batch.

    Example:
        >>> import torch, snflow
        >>> snflow.Scaling((2,))(torch.ones(1, 2))[0].tolist()
        [[1.0, 1.0]]
    """

    def __init__(self, event_shape: Shape) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.log_scale = nn.Parameter(torch.zeros(event_shape))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x * self.log_scale.exp(), self.log_scale.sum().expand(x.shape[0])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z * (-self.log_scale).exp(), -self.log_scale.sum().expand(z.shape[0])
