"""Runs of rows: trained, resumed where they were cut off, read where they are finished."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snflow.errors import DivergenceError
from snflow.training.config.parser import overridden
from snflow.training.config.recipe import Recipe, load_recipe
from snflow.training.report.metrics import LayerRow, MetricsFile
from snflow.training.reproduce.records import Record
from snflow.training.reproduce.targets import Row
from snflow.training.runs import RunFolder

if TYPE_CHECKING:
    from rich.console import Console

DIVERGED = "diverged.txt"
KEPT_EPOCHS = 200
"""A record keeps so many epochs of a run, evenly spread, so that a page of 6000 epochs stays a page."""


class Stopped(Exception):
    """A signal ended a run, after it wrote a checkpoint."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


def recipe_of(row: Row, changes: Mapping[str, Any]) -> Recipe:
    """The row's recipe with the row's changes and then those of the command line.

    Raises:
        ConfigError: a change does not fit the recipe.
    """
    return overridden(load_recipe(row.recipe), {**row.changes, **changes})


def settings_of(recipe: Recipe) -> str:
    """Twelve hexadecimal digits of the recipe's hash, without its seed."""
    return overridden(recipe, {"training.seed": 0}).digest()[:12]


def carry_out(row: Row, seed: int, changes: Mapping[str, Any], runs: Path, console: Console) -> Record:
    """Train one row with one seed in its own folder under ``runs``, or go on there, or read what came of it.

    The folder's name has the hash of the resolved recipe: other settings have another folder, and rows of different
    tables with the same settings share one.

    Args:
        row: what to train.
        seed: of weights, batches and noise.
        changes: values by ``section.option``, over those of the row.
        runs: where the run folders lie.
        console: for the progress.

    Returns:
        The record; a run that diverged is one too.

    Raises:
        Stopped: a signal ended the run; the same call goes on with it.
        ConfigError, DataError, CheckpointError: as :func:`~snflow.training.fit`.
    """
    from snflow.training.fitting import fit

    asked, changes = changes, {**changes, "training.seed": seed}
    recipe = recipe_of(row, changes)
    folder = runs / f"{row.recipe}-{recipe.digest()[:12]}"
    command = shlex.join(["snflow", "fit", row.recipe, "--out", str(folder), *_words({**row.changes, **changes})])
    marker = folder / DIVERGED
    summary = None
    if not marker.exists():
        try:
            result = fit(recipe, folder, command=command, console=console)
        except DivergenceError as error:
            marker.write_text(" ".join(str(error).split()) + "\n", encoding="utf-8")
        else:
            if result.signal is not None:
                raise Stopped(result.signal)
            summary = result.summary
    files = RunFolder(folder)
    return Record(
        row=row.name,
        seed=seed,
        settings=settings_of(recipe),
        epochs=recipe.training.epochs,
        full_epochs=load_recipe(row.recipe).training.epochs,
        folder=str(folder),
        command=command,
        commit=commit(),
        machine=machine(summary),
        summary=summary,
        diverged=marker.read_text(encoding="utf-8").strip() if marker.exists() else None,
        metrics=_thinned(MetricsFile(files.metrics).texts()),
        layers=_thinned(MetricsFile(files.layers, LayerRow).texts()),
        changes=dict(asked),
    )


def machine(summary: Mapping[str, Any] | None = None) -> str:
    """Processor, cores and system; in front of them the accelerator where a run's summary says that it was on one."""
    computer = f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()})"
    if summary is None or not str(summary["device"]).startswith("cuda"):
        return computer
    import torch

    return f"{torch.cuda.get_device_name(summary['device'])}, {computer}"


def commit() -> str | None:
    """The commit that the package is checked out at; ``None`` where it is installed without one."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=10
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def _words(changes: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in changes.items():
        written = str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
        words += [f"--{name}", written]
    return words


def _thinned(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The rows of at most ``KEPT_EPOCHS`` epochs and the last, as numbers but for the layers' names."""
    last = max((int(row["epoch"]) for row in rows), default=0)
    every = max(1, -(-last // KEPT_EPOCHS))
    kept = [row for row in rows if int(row["epoch"]) % every == 0 or int(row["epoch"]) == last]
    return [
        {name: cell if name == "layer" else float(cell) if cell else None for name, cell in r.items()} for r in kept
    ]
