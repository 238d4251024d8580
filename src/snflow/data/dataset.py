"""The dataset: train, validation and test rows in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from snflow.errors import DataError


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

    def __post_init__(self) -> None:
        for split in ("train", "validation", "test"):
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


def check_values(where: str, rows: Tensor, num_values: int | None = None, columns: list[str] | None = None) -> None:
    """Reject NaN, infinite and out-of-range values, and report the first.

    Args:
        where: The name of the data in the error.
        rows: The data, with shape ``(N, *event)``.
        num_values: L for integers from 0 to L − 1; ``None`` for continuous data.
        columns: The names of the columns, for rows with shape ``(N, columns)``.

    Raises:
        DataError: a value is not allowed; the message gives its row and column, both counted from 0.

    Example:
        >>> import torch
        >>> check_values("table", torch.ones(3, 2))
    """
    if rows.numel() == 0:
        return
    if num_values is None:
        wrong, expected, fix = ~torch.isfinite(rows), "finite numbers", "remove or impute such rows"
    elif int(rows.min()) >= 0 and int(rows.max()) < num_values:
        return
    else:
        wide = rows.to(torch.int64)  # in a comparison with uint8, 256 would wrap to 0
        wrong, expected = (wide < 0) | (wide >= num_values), f"values from 0 to {num_values - 1}"
        fix = "rescale the data or raise num_values"
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
        ['cifar10', 'digits', 'imagenet32', 'mnist', 'table', 'toy']
    """
    from snflow import data

    public = {name: getattr(data, name) for name in sorted(dir(data))}
    return {name: f for name, f in public.items() if getattr(f, "__annotations__", {}).get("return") == "Dataset"}
