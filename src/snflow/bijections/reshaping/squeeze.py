"""Space to depth."""

from __future__ import annotations

from typing import final

from torch import Tensor

from snflow.bijections.base import Bijection, Shape
from snflow.errors import ConfigError, ShapeError


@final
class Squeeze(Bijection):
    """z[c·f² + i·f + j, h, w] = x[c, h·f + i, w·f + j], log|det| = 0: f×f blocks to channels (Dinh et al. 2017).

    Channel by channel of x, the pixels of a block follow each other row by row, which is the order of
    :func:`torch.nn.functional.pixel_unshuffle`. Data ``(batch, C, H, W)``, latents ``(batch, C f², H/f, W/f)``.

    Args:
        factor: the side f of a block.

    Raises:
        ConfigError: the factor is not a positive whole number.

    Example:
        >>> import torch
        >>> from snflow.bijections import Squeeze
        >>> z, log_det = Squeeze()(torch.arange(4.0).reshape(1, 1, 2, 2))
        >>> z.shape, z.flatten().tolist()
        (torch.Size([1, 4, 1, 1]), [0.0, 1.0, 2.0, 3.0])
    """

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        if factor < 1 or factor % 1:
            raise ConfigError(
                self.label, expected="a whole factor of at least 1", got=f"{factor}", fix="2 quarters the image"
            )
        self.factor = int(factor)
        self.event_shape = (None, None, None)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        f, (batch, channels, height, width) = self.factor, x.shape
        # Not pixel_unshuffle, which leaves an empty batch as it is.
        blocks = x.reshape(batch, channels, height // f, f, width // f, f)
        z = blocks.permute(0, 1, 3, 5, 2, 4).reshape(batch, channels * f * f, height // f, width // f)
        return z, x.new_zeros(batch)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        f, (batch, channels, height, width) = self.factor, z.shape
        blocks = z.reshape(batch, channels // (f * f), f, f, height, width)
        x = blocks.permute(0, 1, 4, 2, 5, 3).reshape(batch, channels // (f * f), height * f, width * f)
        return x, z.new_zeros(batch)

    def _latent_shape(self, event_shape: Shape) -> Shape:
        channels, height, width = event_shape
        if height % self.factor or width % self.factor:
            raise ShapeError(
                self.label,
                expected=f"a height and a width that {self.factor} divides",
                got=f"{height} x {width}",
                fix="pad or crop the images, or leave this squeeze out",
            )
        return channels * self.factor**2, height // self.factor, width // self.factor

    def _data_shape(self, latent_shape: Shape) -> Shape:
        if len(latent_shape) != 3 or latent_shape[0] % self.factor**2:
            raise ShapeError(
                self.label,
                expected=f"latents (channels, height, width) with channels that {self.factor**2} divides",
                got=f"{latent_shape}",
                fix="pass latents as the forward direction returns them",
            )
        channels, height, width = latent_shape
        return channels // self.factor**2, height * self.factor, width * self.factor

    def extra_repr(self) -> str:
        """Show the factor."""
        return f"factor={self.factor}"
