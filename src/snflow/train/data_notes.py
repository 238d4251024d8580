"""What a checkpoint notes of its data: their fingerprint, shapes, and the columns of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from snflow.data.columns import Column, Columns
from snflow.data.dataset import Dataset
from snflow.errors import DataError


def data_notes(dataset: Dataset) -> dict[str, Any]:
    """Plain values, from which :func:`noted_columns` and :func:`check_same_data` read.

    Example:
        >>> notes = data_notes(Dataset("zeros", *torch.zeros(3, 5, 2)))
        >>> notes["event_shape"], notes["context_shape"], notes["columns"]
        ([2], None, None)
    """
    columns, context = dataset.columns, dataset.context_shape
    described = None
    if columns is not None:
        ends = zip(columns.columns, columns.low.tolist(), columns.high.tolist(), strict=True)
        described = [{"name": column.name, "kind": column.kind, "range": [low, high]} for column, low, high in ends]
    return {
        "event_shape": list(dataset.event_shape),
        "num_values": dataset.num_values,
        "context_shape": None if context is None else list(context),
        "columns": described,
        "context_columns": list(dataset.context_columns),
        "data_sha256": dataset.fingerprint,
    }


def noted_columns(notes: Mapping[str, Any]) -> Columns | None:
    """The columns of the table on which a run was trained; ``None`` if its data were no table."""
    described = notes.get("columns")
    if described is None:
        return None
    made = tuple(Column(column["name"], column["kind"]) for column in described)
    low, high = np.array([column["range"] for column in described], dtype=np.float64).T
    return Columns(made, None, (np.dtype(np.float64),) * len(made), low, high)


def placeholder(name: str, notes: Mapping[str, Any], dtype: torch.dtype) -> Dataset:
    """Rows of zeros and ones with the shapes of the data, from which the flow of a run is built without them."""
    shape, num_values, context_shape = notes["event_shape"], notes["num_values"], notes["context_shape"]
    rows = torch.zeros(2, *shape, dtype=dtype if num_values is None else torch.int64)
    context = None if context_shape is None else torch.zeros(2, *context_shape, dtype=dtype)
    for values in (rows if num_values is None else None, context):
        if values is not None:
            values[1] = 1.0
    return Dataset(name, rows, rows, rows, num_values, context, context, context)


def check_same_data(where: str, notes: Mapping[str, Any], dataset: Dataset) -> None:
    """Raise an error if the data are no longer those of a checkpoint.

    Raises:
        DataError: their fingerprint is another one.
    """
    if notes.get("data_sha256") != dataset.fingerprint:
        raise DataError(
            where,
            expected=f"the data on which the run was trained, {dataset.name}",
            got="changed rows: the splits would be others, and test rows may have been trained on",
            fix="restore the file, or train a new run with another --out",
        )
