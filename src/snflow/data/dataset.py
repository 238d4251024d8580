"""A dataset in memory: three splits of one shape, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snflow.errors import DataError


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
