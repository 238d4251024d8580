"""Rows in memory from what users have: tensors, arrays, data frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from snflow.data.dataset import check_values
from snflow.errors import DataError


def as_rows(where: str, values: Any, num_values: int | None = None) -> Tensor:
    """Rows ``(N, *event)`` from a tensor, a NumPy array, or a pandas or polars data frame or series.

    A one-dimensional array has one element per row. Continuous data are float64, whatever their dtype was.

    Args:
        where: the name of the data in errors.
        values: the data.
        num_values: L, if the data are integers from 0 to L − 1; ``None`` for continuous data.

    Returns:
        The rows: float64 for continuous data, integers otherwise.

    Raises:
        DataError: the data are of another kind, not numbers, empty, or not finite; the message names row and column.

    Example:
        >>> as_rows("x", np.ones((3, 2), dtype=np.float32)).dtype
        torch.float64
    """
    columns = None
    if hasattr(values, "columns") and hasattr(values, "to_numpy"):
        columns = [str(name) for name in values.columns]
        kinds = dict(zip(columns, map(str, _dtypes(values)), strict=True))
        wrong = [name for name, kind in kinds.items() if not _is_number(kind)]
        if wrong:
            raise DataError(
                where,
                expected="columns of numbers",
                got=", ".join(f"{name!r} of {kinds[name]}" for name in wrong[:5]),
                fix="drop these columns, or encode them as numbers",
            )
    if hasattr(values, "to_numpy"):
        values = values.to_numpy()
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "fiub":
            raise DataError(where, expected="an array of numbers", got=f"an array of {values.dtype}")
        values = torch.from_numpy(np.ascontiguousarray(values))
    if not isinstance(values, Tensor):
        raise DataError(
            where,
            expected="a tensor, a NumPy array or a data frame",
            got=type(values).__name__,
            fix="convert it with numpy.asarray",
        )
    rows = values.detach()
    if rows.dim() == 0 or len(rows) == 0:
        raise DataError(where, expected="at least one row", got=f"shape {tuple(rows.shape)}")
    if rows.is_complex():
        raise DataError(where, expected="real numbers", got=str(rows.dtype), fix="pass real and imaginary parts")
    if rows.dim() == 1:
        rows = rows[:, None]
    if num_values is not None and rows.is_floating_point():
        whole = rows.to(torch.int64)
        if not torch.equal(whole.to(rows.dtype), rows):
            raise DataError(where, expected="integers, since num_values is given", got=f"fractions in {rows.dtype}")
        rows = whole
    rows = rows if num_values is not None else rows.double()
    check_values(where, rows, num_values, columns)
    return rows


def _dtypes(frame: Any) -> list[Any]:
    """The dtypes of the columns of a pandas or polars data frame."""
    return list(frame.dtypes)


def _is_number(kind: str) -> bool:
    return kind.lower().startswith(("int", "uint", "float", "bool"))
