"""Batches, their order, and augmentation of images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from snflow.errors import ConfigError, ShapeError


@final
class Batches:
    """Batches by index from rows in memory; the order of an epoch is a permutation seeded by (seed, epoch).

    The state of the sampler is two whole numbers, the epoch and the batch in it: nothing else has to be saved for the
    batches after a resume to be those of the uninterrupted run. The last short batch of an epoch is dropped; as the
    order changes, so do the rows in it.

    Args:
        data: with shape ``(N, *event)``, on any device.
        batch_size: rows in a batch.
        seed: of all the epochs.
        augmentation: what changes the images of a batch, by draws that are a function of seed, epoch and batch.

    Raises:
        ConfigError: the batch size is not between 1 and N.

    Example:
        >>> import torch
        >>> batches = Batches(torch.arange(10), batch_size=3, seed=0)
        >>> batches.steps_per_epoch
        3
        >>> whole, tail = list(batches.epoch(5)), list(batches.epoch(5, start=2))
        >>> torch.equal(whole[2], tail[0])
        True
    """

    def __init__(self, data: Tensor, batch_size: int, seed: int, augmentation: Augmentation | None = None) -> None:
        if not 1 <= batch_size <= data.shape[0]:
            raise ConfigError(
                "Batches",
                expected=f"a batch size from 1 to {data.shape[0]}, the number of rows",
                got=str(batch_size),
                fix="lower the batch size",
            )
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.augmentation = augmentation or Augmentation()

    @property
    def steps_per_epoch(self) -> int:
        """The number of full batches."""
        return self.data.shape[0] // self.batch_size

    def order(self, epoch: int) -> Tensor:
        """Return the row numbers of an epoch in their order, with shape ``(N,)`` and dtype int64."""
        generator = torch.Generator().manual_seed(_stable_seed(self.seed, epoch))
        return torch.randperm(self.data.shape[0], generator=generator)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """Iterate over the batches of an epoch.

        Args:
            epoch: its number.
            start: the batch to begin with, to continue an epoch.

        Returns:
            An iterator over ``steps_per_epoch - start`` batches, each with shape ``(batch_size, *event)``.

        Raises:
            ConfigError: the epoch has no such batch.
        """
        if not 0 <= start <= self.steps_per_epoch:
            raise ConfigError("Batches.epoch", expected=f"a start from 0 to {self.steps_per_epoch}", got=str(start))
        return self._epoch(epoch, start)

    def _epoch(self, epoch: int, start: int) -> Iterator[Tensor]:
        rows = self.order(epoch).to(self.data.device)
        for batch in range(start, self.steps_per_epoch):
            first = batch * self.batch_size
            drawn_by = torch.Generator().manual_seed(_stable_seed(self.seed, epoch, batch))
            yield self.augmentation(self.data[rows[first : first + self.batch_size]], drawn_by)


def in_order(data: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Iterate over all rows as they come, the last short batch included: for evaluation.

    Args:
        data: with shape ``(N, *event)``.
        batch_size: rows in a batch.

    Returns:
        An iterator over batches with shape ``(batch_size, *event)``, the last one shorter if need be.

    Raises:
        ConfigError: the batch size is below 1.

    Example:
        >>> import torch
        >>> [len(batch) for batch in in_order(torch.arange(5), 2)]
        [2, 2, 1]
    """
    if batch_size < 1:
        raise ConfigError("in_order", expected="a batch size of 1 or more", got=str(batch_size))
    return iter(data.split(batch_size)) if data.shape[0] else iter(())


def _stable_seed(seed: int, epoch: int, *batch: int) -> int:
    """63 bits of a hash that is the same in every process, unlike Python's own.

    A sum of the two would give epoch 1 of seed 0 the order of epoch 0 of seed 1.
    """
    name = " ".join(map(str, ("snflow batches", seed, epoch, *batch)))
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


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
