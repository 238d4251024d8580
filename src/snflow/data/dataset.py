"""Datasets in memory, their options, and loading them by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from snflow.errors import DataError, check_option

ToyShape = Literal["two_moons", "rings", "pinwheel", "checkerboard", "eight_gaussians", "two_spirals"]


_require = partial(check_option, "data")


def _require_counts(options: Any, *fields: str) -> None:
    for field in fields:
        value = getattr(options, field)
        _require(options, field, value is None or (type(value) is int and value > 0), "a whole number above 0")


@dataclass(frozen=True)
class DigitsOptions:
    """The 1,797 scanned digits that scikit-learn ships: 8×8 pixels, 17 grey levels (Alpaydin & Kaynak 1998)."""

    train: int = 1197
    """Images to train on."""
    validation: int = 300
    """Images to choose the best epoch by."""
    test: int = 300
    """Images for the reported likelihood."""
    seed: int = 0
    """Seed of the split."""

    def __post_init__(self) -> None:
        _require_counts(self, "train", "validation", "test")


@dataclass(frozen=True)
class _ImageFiles:
    path: str | None = None
    """Folder with the published files; null: the one with the dataset's name in $SNFLOW_DATA."""
    limit_train: int | None = None
    """Train on the first so many images only; null takes all."""
    limit_eval: int | None = None
    """Validate and test on the first so many images only; null takes all."""

    def __post_init__(self) -> None:
        _require_counts(self, "limit_train", "limit_eval")


@dataclass(frozen=True)
class MnistOptions(_ImageFiles):
    """MNIST from its idx files: 28×28 pixels, 256 levels, split 50,000 / 10,000 / 10,000 (LeCun et al. 1998)."""


@dataclass(frozen=True)
class Cifar10Options(_ImageFiles):
    """CIFAR-10 from its Python batches or an .npz file: 3×32×32, 256 levels, 40,000 / 10,000 / 10,000."""


@dataclass(frozen=True)
class Imagenet32Options(_ImageFiles):
    """ImageNet at 32×32 from its .npz batches: 3×32×32, 256 levels, 1,261,167 / 20,000 / 50,000."""

    memory_map: bool = False
    """Unpack the train images once into a file beside the batches, and read them from there as they are asked for."""


@dataclass(frozen=True)
class TableOptions:
    """A table of numbers in a file: .npy, .npz, or text (.csv, .data, .txt, .tsv) with a row a line."""

    path: str
    """The file; a relative path that is not found here is looked up in $SNFLOW_DATA."""
    key: str | None = None
    """Array inside a .npz file; null takes the only one."""
    columns: list[int | str] | None = None
    """Columns to keep, in this order, by number from 0 or by the name in the header; null keeps all."""
    drop_columns: list[int | str] | None = None
    """Columns to leave out, a class label for one, by number from 0 or by name."""
    validation_fraction: float = 0.1
    """Part of the rows to choose the best epoch by."""
    test_fraction: float = 0.1
    """Part of the rows for the reported likelihood."""
    seed: int = 0
    """Seed of the split."""

    def __post_init__(self) -> None:
        _require(self, "validation_fraction", 0 < self.validation_fraction < 1, "a fraction between 0 and 1")
        _require(self, "test_fraction", 0 < self.test_fraction < 1, "a fraction between 0 and 1")
        rest = 1 - self.validation_fraction - self.test_fraction
        _require(self, "test_fraction", rest > 0, "fractions that leave rows to train on")
        both = self.columns is not None and self.drop_columns is not None
        _require(self, "drop_columns", not both, "either columns or drop_columns, not both")


@dataclass(frozen=True)
class ToyOptions:
    """Points in the plane whose density is known by sight."""

    shape: ToyShape = "two_moons"
    """Which picture the points draw."""
    train: int = 10_000
    """Points to train on."""
    validation: int = 2_000
    """Points to choose the best epoch by."""
    test: int = 2_000
    """Points for the reported likelihood."""
    seed: int = 0
    """Seed of the points."""

    def __post_init__(self) -> None:
        _require_counts(self, "train", "validation", "test")


DatasetOptions = DigitsOptions | MnistOptions | Cifar10Options | Imagenet32Options | TableOptions | ToyOptions

DATASETS: dict[str, type[DatasetOptions]] = {
    "digits": DigitsOptions,
    "mnist": MnistOptions,
    "cifar10": Cifar10Options,
    "imagenet32": Imagenet32Options,
    "table": TableOptions,
    "toy": ToyOptions,
}
"""The name by which a recipe asks for a dataset, and its options."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train, validation and test rows of one event shape: levels as uint8, continuous numbers as float32.

    Args:
        name: what errors and summaries call it.
        train: rows to train on, with shape ``(N, *event)``.
        validation: rows to choose the best epoch by, with shape ``(N', *event)``.
        test: rows for the reported likelihood, with shape ``(N'', *event)``.
        levels: L for data of 0 … L − 1, ``None`` for continuous data.

    Raises:
        DataError: a split has no rows or another shape, a value is NaN, infinite or outside the levels.

    Example:
        >>> import torch
        >>> rows = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> Dataset("blank", rows, rows, rows, levels=17).event_shape
        (1, 8, 8)
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    levels: int | None = None

    def __post_init__(self) -> None:
        for split in ("train", "validation", "test"):
            rows: Tensor = getattr(self, split)
            where = f"{self.name}, {split} split"
            if rows.dim() == 0 or rows.shape[0] == 0:
                raise DataError(
                    where, expected="one row or more", got="none", fix="give it more rows, or another split"
                )
            if rows.shape[1:] != self.train.shape[1:]:
                raise DataError(
                    where,
                    expected=f"rows of shape {self.event_shape}, as in the train split",
                    got=f"{tuple(rows.shape[1:])}",
                )
            if rows.is_floating_point() != (self.levels is None):
                expected = (
                    "a floating dtype for continuous data" if self.levels is None else "an integer dtype for levels"
                )
                raise DataError(where, expected=expected, got=f"{rows.dtype}", fix="convert the rows, or set levels")
            check_values(where, rows, self.levels)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        return tuple(self.train.shape[1:])


def check_values(where: str, rows: Tensor, levels: int | None = None, columns: list[str] | None = None) -> None:
    """Refuse a value that is NaN, infinite or outside the levels, naming the first.

    Args:
        where: who asks.
        rows: with shape ``(N, *event)``.
        levels: L for data of 0 … L − 1, ``None`` for continuous data.
        columns: their names, for rows of shape ``(N, columns)``.

    Raises:
        DataError: with the row and the column of the first wrong value, both counted from 0.

    Example:
        >>> import torch
        >>> check_values("table", torch.ones(3, 2))
    """
    if rows.numel() == 0:
        return
    if levels is None:
        wrong, expected, fix = ~torch.isfinite(rows), "finite numbers", "remove such rows, or fill them in"
    elif int(rows.min()) >= 0 and int(rows.max()) < levels:
        return
    else:
        wide = rows.to(torch.int64)  # a uint8 tensor compares with 256 as if it were 0
        wrong, expected = (wide < 0) | (wide >= levels), f"values from 0 to {levels - 1}"
        fix = f"bring the data to {levels} levels"
    if not bool(wrong.any()):
        return
    row, *place = wrong.nonzero()[0].tolist()
    value = rows[(row, *place)].item()
    if len(place) == 1:
        position = f"column {columns[place[0]]!r}" if columns else f"column {place[0]}"
    else:
        position = f"position {tuple(place)}"
    raise DataError(where, expected=expected, got=f"{value} in row {row}, {position}", fix=fix)


def split_rows(rows: Tensor, sizes: tuple[int, int, int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Deal rows at random into train, validation and test.

    Args:
        rows: with shape ``(N, *event)``.
        sizes: how many rows each of the three gets; together at most N.
        seed: of the permutation.

    Returns:
        The three, each with shape ``(size, *event)``.

    Example:
        >>> import torch
        >>> train, validation, test = split_rows(torch.arange(10), (6, 2, 2), seed=0)
        >>> torch.cat([train, validation, test]).sort().values
        tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    order = torch.randperm(rows.shape[0], generator=torch.Generator().manual_seed(seed))
    train, validation, test = order[: sum(sizes)].split(list(sizes))
    return rows[train], rows[validation], rows[test]
