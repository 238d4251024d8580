"""The densities of the rows of a new table by a trained run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from snflow.data.tables import Source, dequantized_rows, read_source
from snflow.errors import ConfigError
from snflow.train.evaluation import log_densities
from snflow.train.run_folder import TrainedRun

COLUMNS = ("log_prob", "outlier")
"""The names of the columns that scores add to a table."""


@dataclass(frozen=True)
class Scores:
    """log p(x | c) of each row, and which are below a quantile of those of the validation data."""

    source: Source
    """The table."""
    log_prob: NDArray[np.float64]
    """The log-density of each row, in nats, with shape ``(N,)``."""
    threshold: float
    """The log-density below which a row is an outlier."""

    @classmethod
    def of(cls, run: TrainedRun, table: Path, quantile: float, batch_size: int | None = None) -> Scores:
        """Compute the densities of the rows of a file.

        Args:
            run: the trained run.
            table: the file, with the columns of the run's table by name, or by number if that had no header.
            quantile: share of the validation data below the threshold.
            batch_size: rows evaluated at a time; the recipe's if ``None``.

        Raises:
            ConfigError: the run was not trained on a table, or the file lacks a column.
            DataError: the file is missing or damaged, or the data of the run are missing or have changed.
        """
        columns, recipe = run.columns, run.recipe
        if columns is None:
            got = f"{recipe.data['name']!r} data"
            raise ConfigError(str(run.folder), expected="a run on a table", got=got, fix="use flow.log_prob in Python")
        source = read_source(table.expanduser(), key=recipe.data["key"], decimal=recipe.data["decimal"])
        if source.names and not {*COLUMNS}.isdisjoint(source.names):
            raise ConfigError(str(table), expected="a table without scores", got="one with them", fix="drop them")
        names = [column.name for column in columns.columns]
        values = source.finite([source.position_of(name) for name in [*names, *run.context_columns]])
        rows = dequantized_rows(str(table), columns, values[:, : len(names)], recipe.training.seed)
        context = torch.from_numpy(values[:, len(names) :]) if run.context_columns else None
        size, seed = batch_size or recipe.training.eval_batch_size, recipe.training.seed
        log_prob = log_densities(run.flow, torch.from_numpy(rows), size, seed, context)
        known, conditions = run.load_dataset().split("validation")
        usual = log_densities(run.flow, known, size, seed, conditions)
        return cls(source, log_prob.numpy(), float(np.quantile(usual.numpy(), quantile)))

    @property
    def outliers(self) -> NDArray[np.bool_]:
        """Whether each row is below the threshold, with shape ``(N,)``."""
        return self.log_prob < self.threshold

    def lines(self) -> Iterator[str]:
        """The lines of the table, with the columns ``log_prob`` and ``outlier``."""
        numbers = ([f"{value:.9g}", str(int(out))] for value, out in zip(self.log_prob, self.outliers, strict=True))
        return self.source.with_columns(COLUMNS, numbers)
