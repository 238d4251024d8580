"""A transformer with parameters of its own."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.transformers import Transformer
from snflow.numerics.events import sum_event


@final
class Elementwise(Bijection):
    """zᵢ = τ(xᵢ; hᵢ), log|det| = Σ log dzᵢ/dxᵢ, with learned hᵢ: any transformer as a layer of its own.

    Args:
        transformer: τ.
        event_shape: the shape of x and z without the batch.

    Attributes:
        parameters_of_elements: h, with shape ``(P, *event)``; zeros at first.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.Elementwise(snflow.AffineTransformer(), (2,))
        >>> layer(torch.ones(1, 2))[0]
        tensor([[1., 1.]], grad_fn=<AddcmulBackward0>)
    """

    def __init__(self, transformer: Transformer, event_shape: Shape) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.transformer = transformer
        self.parameters_of_elements = nn.Parameter(torch.zeros(transformer.parameters_per_element, *event_shape))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_slope = self.transformer(x, self.parameters_of_elements.unsqueeze(1))
        return z, sum_event(log_slope)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_slope = self.transformer.inverse(z, self.parameters_of_elements.unsqueeze(1))
        return x, sum_event(log_slope)

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        return self.transformer.decode(z, self.parameters_of_elements.unsqueeze(1))

    def extra_repr(self) -> str:
        """Show the size."""
        return f"{tuple(self.event_shape or ())}, {math.prod(self.parameters_of_elements.shape)} parameters"
