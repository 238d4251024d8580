"""Batches of training data, their order, and augmentation of images."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from snflow.errors import MAX_INT, ConfigError, DataError, ShapeError, check_count

Batch = tuple[Tensor, Tensor | None]
"""Rows ``(batch, *event)``, and the contexts ``(batch, *context_shape)`` on which they are conditioned, if any."""


@final
class Batches:
    """Random batches of rows in memory; the order of an epoch is a permutation seeded by (seed, epoch).

    The state is two integers, the epoch and the batch within it: a resumed run needs nothing else to continue with the
    same batches. An incomplete last batch is dropped; its rows differ from epoch to epoch.

    Args:
        data: the rows, with shape ``(N, *event)``, on any device.
        batch_size: the number of rows per batch.
        context: the contexts of the rows, with shape ``(N, *context_shape)``; ``None`` for no context.
        seed: the seed of all epochs.
        augmentation: random changes of the images, seeded by (seed, epoch, batch); none by default.

    Raises:
        ConfigError: the batch size is not between 1 and N.

    Example:
        >>> import torch
        >>> batches = Batches(torch.arange(10), batch_size=3, seed=0)
        >>> batches.steps_per_epoch
        3
        >>> whole, tail = list(batches.epoch(5)), list(batches.epoch(5, start=2))
        >>> torch.equal(whole[2][0], tail[0][0])
        True
    """

    def __init__(
        self,
        data: Tensor,
        batch_size: int,
        *,
        context: Tensor | None = None,
        seed: int = 0,
        augmentation: Augmentation | None = None,
    ) -> None:
        check_count("Batches", "batch_size", batch_size, most=MAX_INT)
        if batch_size > data.shape[0]:
            raise ConfigError(
                "Batches",
                expected=f"batch_size ≤ {data.shape[0]}, the number of rows",
                got=str(batch_size),
                fix="use smaller batches",
            )
        self.data, self.context, self.batch_size, self.seed = data, context, batch_size, seed
        self.augmentation = augmentation or Augmentation()

    @property
    def steps_per_epoch(self) -> int:
        """The number of complete batches."""
        return self.data.shape[0] // self.batch_size

    def order(self, epoch: int) -> Tensor:
        """The rows of an epoch in order: a permutation of 0 … N − 1, with shape ``(N,)``, int64."""
        generator = torch.Generator().manual_seed(_stable_seed(self.seed, epoch))
        return torch.randperm(self.data.shape[0], generator=generator)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Iterate over the batches of an epoch.

        Args:
            epoch: the number of the epoch.
            start: the first batch, to continue an interrupted epoch.

        Returns:
            An iterator over ``steps_per_epoch - start`` pairs of rows ``(batch_size, *event)`` and their contexts.

        Raises:
            ConfigError: ``start`` is out of range.
        """
        if not 0 <= start <= self.steps_per_epoch:
            raise ConfigError("Batches.epoch", expected=f"0 ≤ start ≤ {self.steps_per_epoch}", got=str(start))
        return self._epoch(epoch, start)

    def _epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        rows = self.order(epoch).to(self.data.device)
        for batch in range(start, self.steps_per_epoch):
            first = batch * self.batch_size
            generator = torch.Generator().manual_seed(_stable_seed(self.seed, epoch, batch))
            chosen = rows[first : first + self.batch_size]
            context = None if self.context is None else self.context[chosen]
            yield self.augmentation(self.data[chosen], generator), context


class BatchSource(Protocol):
    """Batches of training data, epoch by epoch: from rows in memory or from a stream."""

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in an epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Iterate over the batches of an epoch, from the batch ``start`` on."""
        ...


@final
class StreamedBatches:
    """Batches of a dataset of torch, or of any iterable, that need not fit into memory.

    A map-style dataset is shuffled, by (seed, epoch); other streams keep their order. Incomplete batches of a dataset
    are dropped. A stream that ends within an epoch starts again.

    Args:
        source: a ``torch.utils.data.Dataset`` of rows, or an iterable of batches, such as a ``DataLoader``; rows and
            batches are tensors, or pairs of a tensor and its context.
        batch_size: the number of rows per batch of a dataset; an iterable of batches has its own.
        dtype: the floating dtype of the batches; integers stay as they are.
        seed: the seed of all epochs.
        steps_per_epoch: the number of batches in an epoch, for a stream without a length.

    Raises:
        ConfigError: the length of the stream is unknown, or it has less than a batch.
        DataError: a batch is neither a tensor nor a pair, is not finite, or the stream is empty.

    Example:
        >>> import torch
        >>> source = [torch.zeros(4, 2), torch.ones(4, 2)]
        >>> batches = StreamedBatches(source, 4, dtype=torch.float64)
        >>> [float(rows.mean()) for rows, _ in batches.epoch(0)]
        [0.0, 1.0]
    """

    def __init__(
        self,
        source: Any,
        batch_size: int,
        *,
        dtype: torch.dtype,
        seed: int = 0,
        steps_per_epoch: int | None = None,
    ) -> None:
        check_count("StreamedBatches", "batch_size", batch_size, most=MAX_INT)
        self.dtype, self.seed = dtype, seed
        if isinstance(source, Iterator):
            raise ConfigError(
                "StreamedBatches",
                expected="a stream that can be read again in each epoch",
                got=f"a {type(source).__name__}, which can be read once",
                fix="pass an object whose __iter__ starts again, such as a DataLoader",
            )
        self._order = torch.Generator()
        self._batches: Iterable[Any] = source
        if isinstance(source, IterableDataset):
            self._batches = DataLoader(source, batch_size, drop_last=True)
        elif isinstance(source, torch.utils.data.Dataset):
            self._batches = DataLoader(source, batch_size, shuffle=True, drop_last=True, generator=self._order)
        if steps_per_epoch is None:
            try:
                steps_per_epoch = len(self._batches)
            except TypeError:
                raise ConfigError(
                    "StreamedBatches",
                    expected="a stream with a length",
                    got=f"a {type(source).__name__} without one",
                    fix="pass steps_per_epoch",
                ) from None
        check_count("StreamedBatches", "steps_per_epoch", steps_per_epoch, most=MAX_INT)
        self.steps_per_epoch = steps_per_epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Iterate over the batches of an epoch, from the batch ``start`` on."""
        self._order.manual_seed(_stable_seed(self.seed, epoch))
        return itertools.islice(self._endless(), start, self.steps_per_epoch)

    def first(self, rows: int) -> Batch:
        """About the first ``rows`` rows of the first epoch, as one batch."""
        taken: list[Batch] = []
        for batch in self.epoch(0):
            taken.append(batch)
            if sum(len(x) for x, _ in taken) >= rows:
                break
        contexts = [context for _, context in taken if context is not None]
        return torch.cat([x for x, _ in taken]), torch.cat(contexts) if contexts else None

    def _endless(self) -> Iterator[Batch]:
        while True:
            count = 0
            for count, batch in enumerate(self._batches, 1):
                yield self._checked(batch, count)
            if not count:
                raise DataError("StreamedBatches", expected="at least one batch", got="none")

    def _checked(self, batch: Any, number: int) -> Batch:
        parts = list(batch) if isinstance(batch, list | tuple) else [batch]
        if not 1 <= len(parts) <= 2 or not all(isinstance(part, Tensor) for part in parts):
            raise DataError(
                f"batch {number} of the stream",
                expected="a tensor of rows, or a pair of rows and contexts",
                got=", ".join(type(part).__name__ for part in parts) or "nothing",
            )
        rows, context = (
            part.to(self.dtype) if part is not None and part.is_floating_point() else part
            for part in (*parts, None)[:2]
        )
        for part in (rows, context):
            if part is not None and part.is_floating_point() and not bool(part.isfinite().all()):
                raise DataError(f"batch {number} of the stream", expected="finite numbers", got="NaN or infinity")
        return rows, context


def in_order(data: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Iterate over all rows in order, for evaluation; the last batch may be smaller.

    Args:
        data: the rows, with shape ``(N, *event)``.
        batch_size: the number of rows per batch.

    Returns:
        An iterator over batches with shape ``(batch_size, *event)``.

    Raises:
        ConfigError: the batch size is below 1.

    Example:
        >>> import torch
        >>> [len(batch) for batch in in_order(torch.arange(5), 2)]
        [2, 2, 1]
    """
    check_count("in_order", "batch_size", batch_size, most=MAX_INT)
    return iter(data.split(batch_size)) if data.shape[0] else iter(())


def _stable_seed(seed: int, epoch: int, *batch: int) -> int:
    """63 bits of a hash that, unlike Python's built-in one, is the same in every process.

    With seed + epoch instead, epoch 1 of seed 0 would have the same order as epoch 0 of seed 1.
    """
    name = " ".join(map(str, ("snflow batches", seed, epoch, *batch)))
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True)
class Augmentation:
    """x → x flipped left to right with probability ½, and shifted by up to ``jitter`` pixels along each axis.

    Shifts replicate the edge. The data are augmented, not the density: the likelihood is that of the augmented image.

    Attributes:
        flip: whether to flip images at random.
        jitter: the maximum shift, in pixels; 0 for none.

    Raises:
        ConfigError: the jitter is not a non-negative integer.

    References:
        Keller et al. (2021), Self Normalizing Flows, A.3: flips and one-pixel jitter for CIFAR-10.

    Example:
        >>> rows = torch.arange(4).view(1, 1, 2, 2)
        >>> Augmentation(flip=False, jitter=0)(rows, torch.Generator()) is rows
        True
    """

    flip: bool = False
    jitter: int = 0

    def __post_init__(self) -> None:
        if type(self.jitter) is not int or self.jitter < 0:
            raise ConfigError("Augmentation", expected="jitter ≥ 0", got=repr(self.jitter), fix="give an integer")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Flip and shift each image independently.

        Args:
            images: the images, with shape ``(batch, channels, height, width)``, of any dtype, on any device.
            generator: the random number generator, on the CPU.

        Returns:
            The augmented images, with the same shape.

        Raises:
            ShapeError: the rows are not images.
        """
        if not (self.flip or self.jitter):
            return images
        if images.dim() != 4:
            raise ShapeError(
                "Augmentation",
                expected="images with shape (batch, channels, height, width)",
                got=f"{tuple(images.shape)}",
                fix="leave flip and jitter out",
            )
        batch, _, height, width = images.shape
        rows, columns = (torch.arange(size).expand(batch, size) for size in (height, width))
        if self.jitter:
            shifts = torch.randint(-self.jitter, self.jitter + 1, (2, batch, 1), generator=generator)
            rows, columns = (rows + shifts[0]).clamp(0, height - 1), (columns + shifts[1]).clamp(0, width - 1)
        if self.flip:
            flipped = torch.rand(batch, 1, generator=generator) < 0.5
            columns = torch.where(flipped, columns.flip(1), columns)
        image = torch.arange(batch)[:, None, None]
        index = tuple(part.to(images.device) for part in (image, rows[:, :, None], columns[:, None, :]))
        return images.movedim(1, -1)[index].movedim(-1, 1)
