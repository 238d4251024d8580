"""What training changes in an image that stays the same picture: mirrored, moved by a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snflow.errors import ShapeError


@dataclass(frozen=True)
class Augmentation:
    """x → x mirrored left to right with probability ½, moved by up to ``jitter`` pixels along each side.

    The volume does not change: the log-determinant is zero, and the likelihood is that of the image seen. What a move
    uncovers repeats the edge.

    Attributes:
        flip: whether to mirror.
        jitter: the largest move, in pixels; 0 for none.

    References:
        Keller et al. (2021), Self Normalizing Flows, A.5: flips and one-pixel jitter for CIFAR-10.

    Example:
        >>> rows = torch.arange(4).view(1, 1, 2, 2)
        >>> Augmentation(flip=False, jitter=0)(rows, torch.Generator()) is rows
        True
    """

    flip: bool = False
    jitter: int = 0

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images → as many others.

        Args:
            images: with shape ``(batch, channels, height, width)``, of any dtype, on any device.
            generator: on the CPU; what it draws decides, each image for itself.

        Returns:
            The images, with the same shape.

        Raises:
            ShapeError: the rows are no images.
        """
        if not (self.flip or self.jitter):
            return images
        if images.dim() != 4:
            raise ShapeError(
                "Augmentation",
                expected="images with shape (batch, channels, height, width)",
                got=f"{tuple(images.shape)}",
                fix="leave training.flip and training.jitter out",
            )
        batch, _, height, width = images.shape
        rows, columns = (torch.arange(size).expand(batch, size) for size in (height, width))
        if self.jitter:
            moves = torch.randint(-self.jitter, self.jitter + 1, (2, batch, 1), generator=generator)
            rows, columns = (rows + moves[0]).clamp(0, height - 1), (columns + moves[1]).clamp(0, width - 1)
        if self.flip:
            mirrored = torch.rand(batch, 1, generator=generator) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        which = torch.arange(batch)[:, None, None]
        index = (part.to(images.device) for part in (which, rows[:, :, None], columns[:, None, :]))
        one, row, column = index
        return images.movedim(1, -1)[one, row, column].movedim(-1, 1)
