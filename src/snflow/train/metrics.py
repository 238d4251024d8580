"""Metrics of a run, in CSV files."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Protocol

from snflow.errors import DataError
from snflow.train.files import replace_file


@dataclass(frozen=True)
class EpochRow:
    """Metrics of one epoch; ``None``, an empty cell in the file, if not measured."""

    epoch: int
    """Finished epochs; 0 is before training."""
    step: int
    """Optimizer steps taken."""
    learning_rate: float | None
    """Learning rate of the last step."""
    objective: float | None
    """Mean of the minimized surrogate, in nats; not a likelihood."""
    validation_nll: float | None
    """Negative log-likelihood of the validation data, in nats; exact unless it has a standard error."""
    validation_bits_per_dim: float | None
    """``validation_nll`` in bits per dimension; for integer data only."""
    validation_nll_error: float | None
    """Standard error of ``validation_nll`` in nats, if its log-determinants are estimates."""
    reconstruction_error: float | None
    """Mean of ‖g(f(x)) − x‖² over the last batch, in the worst layer."""
    inverse_residual: float | None
    """Estimate of ‖I − RW‖_F / √D, in the worst layer."""
    penalty_weight: float | None
    """Largest λ over the layers, as updated by the multipliers."""
    repairs: int | None
    """Number of repairs by the guards so far, over all layers."""
    gradient_norm: float | None
    """Mean norm of the gradient before clipping."""
    skipped: int
    """Steps skipped because of a non-finite value."""
    train_seconds: float
    """Wall-clock time of the epoch's steps."""
    slowest_step_seconds: float
    """Wall-clock time of the slowest step."""
    evaluation_seconds: float
    """Wall-clock time of the validation after the epoch."""


@dataclass(frozen=True)
class LayerRow:
    """Metrics of one self-normalizing layer after an epoch; ``None`` if not measured."""

    epoch: int
    """Finished epochs; 0 is before training."""
    layer: str
    """The layer's name in the flow."""
    reconstruction_error: float
    """Mean of ‖g(f(x)) − x‖² over the last batch."""
    inverse_residual: float | None
    """Estimate of ‖I − RW‖_F / √D; ``None`` for pairs of networks."""
    penalty_weight: float
    """λ."""
    repairs: int
    """Number of repairs by the guard so far."""
    tracking_steps: int
    """Number of tracking steps so far."""
    angle: float | None
    """Angle between the training gradient of the weight and the exact one on a fixed batch, in degrees."""
    likelihood_angle: float | None
    """The same angle without the penalty, for the likelihood gradient, which the learned inverse approximates."""


class Metrics(Protocol):
    """Receives one row per epoch, or several."""

    def start(self, finished_epochs: int | None) -> None:
        """Start; when a run is resumed, drop the rows after the checkpoint."""

    def append(self, *rows: EpochRow | LayerRow) -> None:
        """Add rows."""


class History:
    """Rows in memory.

    Example:
        >>> history = History()
        >>> history.rows
        []
    """

    def __init__(self) -> None:
        self.rows: list[EpochRow | LayerRow] = []

    def start(self, finished_epochs: int | None) -> None:
        """Start."""
        self.rows = [row for row in self.rows if finished_epochs is not None and row.epoch <= finished_epochs]

    def append(self, *rows: EpochRow | LayerRow) -> None:
        """Add rows."""
        self.rows += rows


class MetricsFile:
    """Rows in a CSV file; floats are written with full precision.

    Args:
        path: the file.
        kind: the dataclass of a row, whose first field is the epoch.
    """

    def __init__(self, path: Path, kind: type[EpochRow] | type[LayerRow] = EpochRow) -> None:
        self.path = path
        self._names = tuple(field.name for field in fields(kind))

    def start(self, finished_epochs: int | None) -> None:
        """Start the file; when a run is resumed, drop the rows after the checkpoint.

        Args:
            finished_epochs: number of epochs finished at the checkpoint; ``None`` for a new run.
        """
        rows = [] if finished_epochs is None else [r for r in self._complete_rows() if int(r[0]) <= finished_epochs]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self._names, *rows])
        replace_file(self.path, text.getvalue().encode())

    def append(self, *rows: EpochRow | LayerRow) -> None:
        """Append rows and sync them to disk."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(map(_cells, rows))
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[dict[str, float | None]]:
        """Return the rows as numbers by column; only for files without text."""
        return [{name: float(cell) if cell else None for name, cell in row.items()} for row in self.texts()]

    def texts(self) -> list[dict[str, str]]:
        """Return the rows as text by column."""
        return [dict(zip(self._names, row, strict=True)) for row in self._complete_rows()]

    def _complete_rows(self) -> list[list[str]]:
        """Return the rows, without the heading and without a row that a killed process left incomplete.

        Columns that the heading lacks are empty.

        Raises:
            DataError: the file is not text.
        """
        if not self.path.exists():
            return []
        try:
            text = self.path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise DataError(str(self.path), expected="text in UTF-8", got="other bytes", fix="delete it") from None
        heading, *lines = text.splitlines(keepends=True) or [""]
        names = next(csv.reader([heading]), [])
        whole = [row for row in csv.reader(line for line in lines if line.endswith("\n")) if len(row) == len(names)]
        rows = [dict(zip(names, row, strict=True)) for row in whole]
        return [[row.get(name, "") for name in self._names] for row in rows if row.get("epoch", "").isdecimal()]


def _cells(row: EpochRow | LayerRow) -> list[str]:
    return ["" if value is None else value if isinstance(value, str) else repr(value) for value in asdict(row).values()]
