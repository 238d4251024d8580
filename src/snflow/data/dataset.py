"""The dataset: train, validation and test rows in memory."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from snflow.data.columns import Columns
from snflow.errors import DataError, NumericalWarning

_SPLITS = ("train", "validation", "test")

_RESOLUTION = 1e-3
"""Largest rounding error of a column, in units of its standard deviation, that is accepted without a warning."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train, validation and test rows of one event shape: integers from 0 to L − 1, or real numbers.

    Args:
        name: The name used in errors and summaries.
        train: The training rows, with shape ``(N, *event)``.
        validation: The rows used to select the best epoch, with shape ``(N', *event)``.
        test: The rows used for the reported likelihood, with shape ``(N'', *event)``.
        num_values: L, the number of values of integer data; ``None`` for continuous data.
        train_context: The contexts of the training rows, with shape ``(N, *context_shape)``, for a conditional density.
        validation_context: The contexts of the validation rows, with shape ``(N', *context_shape)``.
        test_context: The contexts of the test rows, with shape ``(N'', *context_shape)``.
        columns: The columns of a table.
        context_columns: The names of the columns of a table on which the density of the others is conditioned.

    Raises:
        DataError: a split is empty or has the wrong event shape, its dtype does not fit ``num_values``, a value is
            NaN, infinite or outside 0 … L − 1, or the contexts do not fit the rows.

    Example:
        >>> import torch
        >>> rows = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> Dataset("blank", rows, rows, rows, num_values=17).event_shape
        (1, 8, 8)
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    num_values: int | None = None
    train_context: Tensor | None = None
    validation_context: Tensor | None = None
    test_context: Tensor | None = None
    columns: Columns | None = None
    context_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split in _SPLITS:
            rows, context = self.split(split)
            where = f"{self.name}, {split} split"
            if rows.dim() == 0 or rows.shape[0] == 0:
                raise DataError(
                    where, expected="at least one row", got="none", fix="provide more rows or change the split"
                )
            if rows.shape[1:] != self.train.shape[1:]:
                raise DataError(
                    where,
                    expected=f"rows of shape {self.event_shape}, as in the train split",
                    got=f"{tuple(rows.shape[1:])}",
                )
            if rows.is_floating_point() != (self.num_values is None):
                continuous = self.num_values is None
                raise DataError(
                    where,
                    expected="a floating dtype for continuous data" if continuous else "an integer dtype",
                    got=f"{rows.dtype}",
                    fix="convert the rows, or set num_values" if continuous else "convert the rows",
                )
            check_values(where, rows, self.num_values)
            self._check_context(where, rows, context)

    def _check_context(self, where: str, rows: Tensor, context: Tensor | None) -> None:
        wanted = None if self.context_shape is None else (len(rows), *self.context_shape)
        if (None if context is None else tuple(context.shape)) != wanted:
            raise DataError(
                f"{where}, context",
                expected="no contexts, as in the train split" if wanted is None else f"contexts of shape {wanted}",
                got="none" if context is None else f"shape {tuple(context.shape)}",
                fix="give one context for each row of every split, or none",
            )
        if context is not None:
            if not context.is_floating_point():
                raise DataError(f"{where}, context", expected="a floating dtype", got=f"{context.dtype}")
            check_values(f"{where}, context", context)

    def split(self, name: str) -> tuple[Tensor, Tensor | None]:
        """The rows of a split, ``"train"``, ``"validation"`` or ``"test"``, and their contexts."""
        return getattr(self, name), getattr(self, f"{name}_context")

    @property
    def context_shape(self) -> tuple[int, ...] | None:
        """The shape of one context; ``None`` without contexts."""
        return None if self.train_context is None else tuple(self.train_context.shape[1:])

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        return tuple(self.train.shape[1:])

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256, in hexadecimal, of all rows and contexts: equal data have equal ones, wherever they lie."""
        digest = hashlib.sha256()
        for values in (part for split in _SPLITS for part in self.split(split) if part is not None):
            digest.update(f"{values.dtype} {tuple(values.shape)}".encode())
            digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def check_precision(self, dtype: torch.dtype) -> None:
        """Say whether a dtype can hold the rows and contexts, which are wider.

        Raises:
            DataError: a number is finite, but not in this dtype.

        Warns:
            NumericalWarning: the differences within a column are lost in rounding.
        """
        events = None if self.columns is None else [column.name for column in self.columns.columns]
        fix = "train in float64 (training.precision: 64-true, or flow.double()), or rescale it"
        for split in _SPLITS:
            rows, context = self.split(split)
            for part, values, known in (("", rows, events), (", context", context, self.context_columns)):
                if values is None or not values.is_floating_point() or values.dtype.itemsize <= dtype.itemsize:
                    continue
                stored = values.to(dtype)
                check_values(f"{self.name}, {split} split{part}, in {str(dtype)[6:]}", stored, columns=known, fix=fix)
                if split == "train":
                    self._check_resolution(values, stored, known, fix)

    def _check_resolution(self, values: Tensor, stored: Tensor, names: Sequence[str] | None, fix: str) -> None:
        error = (stored.to(values.dtype) - values).abs().amax(0)
        varies = values.amax(0) > values.amin(0)
        lost = (varies & (error > _RESOLUTION * values.std(0, correction=0))).nonzero().tolist()
        if lost:
            place = tuple(lost[0])
            column = names[place[0]] if names and len(place) == 1 else place[0] if len(place) == 1 else place
            warnings.warn(
                f"{self.name}: {str(stored.dtype)[6:]} rounds column {column!r} by up to {error[place].item():.3g}, "
                f"which is not small against its standard deviation: {fix}, or subtract a constant from it",
                NumericalWarning,
                3,
            )


def check_values(
    where: str,
    rows: Tensor,
    num_values: int | None = None,
    columns: Sequence[str] | None = None,
    fix: str | None = None,
) -> None:
    """Reject NaN, infinite and out-of-range values, and report the first.

    Args:
        where: The name of the data in the error.
        rows: The data, with shape ``(N, *event)``.
        num_values: L for integers from 0 to L − 1; ``None`` for continuous data.
        columns: The names of the columns, for rows with shape ``(N, columns)``.
        fix: How to fix the error; the usual remedies if ``None``.

    Raises:
        DataError: a value is not allowed; the message gives its row and column, both counted from 0.

    Example:
        >>> import torch
        >>> check_values("table", torch.ones(3, 2))
    """
    if rows.numel() == 0:
        return
    if num_values is None:
        wrong, expected, usual = ~torch.isfinite(rows), "finite numbers", "remove or impute such rows"
    elif int(rows.min()) >= 0 and int(rows.max()) < num_values:
        return
    else:
        wide = rows.to(torch.int64)  # in a comparison with uint8, 256 would wrap to 0
        wrong, expected = (wide < 0) | (wide >= num_values), f"values from 0 to {num_values - 1}"
        usual = "rescale the data or raise num_values"
    if not bool(wrong.any()):
        return
    row, *place = wrong.nonzero()[0].tolist()
    value = rows[(row, *place)].item()
    if len(place) == 1:
        position = f"column {columns[place[0]]!r}" if columns else f"column {place[0]}"
    else:
        position = f"position {tuple(place)}"
    raise DataError(where, expected=expected, got=f"{value} in row {row}, {position}", fix=fix or usual)


def split_rows(rows: Tensor, sizes: tuple[int, int, int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split rows at random into train, validation and test.

    Args:
        rows: The data, with shape ``(N, *event)``.
        sizes: The number of rows in each split; together at most N.
        seed: Seed of the permutation.

    Returns:
        The three splits, each with shape ``(size, *event)``.

    Example:
        >>> import torch
        >>> train, validation, test = split_rows(torch.arange(10), (6, 2, 2), seed=0)
        >>> torch.cat([train, validation, test]).sort().values
        tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    order = torch.randperm(rows.shape[0], generator=torch.Generator().manual_seed(seed))
    train, validation, test = order[: sum(sizes)].split(list(sizes))
    return rows[train], rows[validation], rows[test]


def datasets() -> dict[str, Callable[..., Dataset]]:
    """The datasets by name: the public functions of ``snflow.data`` that return a :class:`Dataset`.

    Their signatures and docstrings are the options of the ``data`` section of a recipe.

    Returns:
        A new dictionary from the name of a function to the function.

    Example:
        >>> list(datasets())
        ['cifar10', 'digits', 'image_files', 'imagenet32', 'mnist', 'table', 'toy']
    """
    from snflow import data

    public = {name: getattr(data, name) for name in sorted(dir(data))}
    return {name: f for name, f in public.items() if getattr(f, "__annotations__", {}).get("return") == "Dataset"}
