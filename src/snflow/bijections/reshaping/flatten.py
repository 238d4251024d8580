"""Events of any shape as vectors."""

from __future__ import annotations

import math
from typing import final

from torch import Tensor

from snflow.bijections.base import Bijection, Shape
from snflow.errors import ConfigError, ShapeError


@final
class Flatten(Bijection):
    """z = vec(x), log|det| = 0: the event as one vector, the last dimension running fastest.

    Args:
        event_shape: the shape of x without the batch; z has the event ``(product of event_shape,)``.

    Raises:
        ConfigError: a size is not positive.

    Example:
        >>> import torch
        >>> from snflow.bijections import Flatten
        >>> layer = Flatten((1, 28, 28))
        >>> z, log_det = layer(torch.zeros(5, 1, 28, 28))
        >>> z.shape, layer.decode(z).shape
        (torch.Size([5, 784]), torch.Size([5, 1, 28, 28]))
    """

    event_shape: Shape

    def __init__(self, event_shape: Shape) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        if any(n < 1 for n in self.event_shape):
            raise ConfigError(
                self.label,
                expected="positive sizes",
                got=f"{self.event_shape}",
                fix="pass the shape of one event, without the batch",
            )

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        # the size is written out: −1 cannot be worked out for an empty batch
        return x.reshape(x.shape[0], math.prod(self.event_shape)), x.new_zeros(x.shape[0])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z.reshape(z.shape[0], *self.event_shape), z.new_zeros(z.shape[0])

    def _latent_shape(self, event_shape: Shape) -> Shape:
        return (math.prod(event_shape),)

    def _data_shape(self, latent_shape: Shape) -> Shape:
        size = math.prod(self.event_shape)
        if latent_shape != (size,):
            raise ShapeError(
                self.label,
                expected=f"latent shape ({size},)",
                got=f"{latent_shape}",
                fix=f"latents are vectors; the data have the event shape {self.event_shape}",
            )
        return self.event_shape

    def extra_repr(self) -> str:
        """Show the event shape."""
        return f"{self.event_shape}"
