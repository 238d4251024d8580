"""Reproduce a table or a figure of the paper."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pages import said
from records import Record
from snflow.cli.arguments import Arguments, overridden
from snflow.errors import ConfigError, DivergenceError
from snflow.train.metrics import LayerRow, MetricsFile
from snflow.train.recipe import Recipe, load_recipe
from snflow.train.run_folder import RunFolder
from snflow.train.strict_yaml import read_yaml
from snflow.train.typed import field_types
from targets import TARGETS, Row, Target, find_target

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
        ConfigError, DataError, CheckpointError: as :func:`~snflow.train.fit`.
    """
    from snflow.train.fit import fit

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


_EPILOG = "targets: " + "; ".join(f"{name}: {target.title}" for name, target in TARGETS.items())


def reproduce(argv: Sequence[str]) -> int:
    """Run what a table or a figure of the paper needs, resume what was cut off, and write its page."""
    arguments = Arguments(
        "snflow reproduce TARGET [--key value …]",
        "Run the rows of a table or a figure of the paper and write it beside the paper's numbers.",
        _EPILOG,
    )
    arguments.positional("target", f"one of {', '.join(TARGETS)}; overview writes a page of what there is")
    arguments.option("rows", str | None, None, "names of rows, or patterns like dense_*, apart by commas; null is all")
    arguments.option("epochs", int | None, None, "instead of the recipe's; fewer are called a short run")
    arguments.option("set", str | None, None, "further changes of every recipe: flow.width=64,training.batch_size=50")
    arguments.option("seeds", int, 3, "runs of each row, with seeds 0, 1, …")
    arguments.option("seconds", float, 2.0, "times only: how long each number is measured")
    arguments.option("largest", int, 1568, "figure4 only: the largest dimension")
    arguments.option("data", str | None, None, "the folder that holds mnist, cifar10, …; null looks in SNFLOW_DATA")
    arguments.option("device", str, "auto", "where it computes: auto, cpu, cuda, mps")
    arguments.option("runs", str, "runs/reproduce", "where the run folders lie")
    arguments.option("out", str, "results", "where the page goes, into a folder of the target's name")
    arguments.option("page", str, "docs/paper.md", "overview only: the page, written from the results in --out")
    values = arguments.parse(argv)
    if values["target"] == "overview":
        from pages import write_overview

        write_overview(Path(values["page"]), Path(values["out"]))
        print(f"{values['page']} is written")
        return 0
    target = find_target(values["target"])
    for option in ("epochs", "seeds", "seconds", "largest"):
        if values[option] is not None and values[option] <= 0:
            raise ConfigError(f"--{option}", expected="a number above 0", got=str(values[option]))
    rows, changes = target.chosen(values["rows"]), _changes(values["set"])
    out = Path(values["out"]) / values["target"]
    if target.kind in ("time", "dimension"):
        return _measure(values, target, rows, changes, out, said(argv))
    return _train(values, target, rows, changes, out)


def _changes(words: str | None) -> dict[str, Any]:
    """``section.option=value`` pairs, apart by commas → the values by name, read as in a recipe."""
    pairs = [part.partition("=") for part in (words or "").split(",") if part.strip()]
    for name, equals, _ in pairs:
        if not equals or "." not in name:
            raise ConfigError("--set", expected="section.option=value, apart by commas", got=repr(name.strip()))
    return {name.strip(): read_yaml(f"value: {value}", "--set")["value"] for name, _, value in pairs}


def _train(
    values: Mapping[str, Any], target: Target, rows: Sequence[Row], changes: Mapping[str, Any], out: Path
) -> int:
    """Rows that are trained flows: one seed of every row first, so that a page is whole early."""
    # MERGED
    from rich.console import Console

    from pages import write_page
    from pictures import DRAWINGS
    from records import merged, read_records, write_records

    console = Console(highlight=False)
    changes = {**changes, "device.accelerator": values["device"]}
    if values["epochs"] is not None:
        changes["training.epochs"] = values["epochs"]
    for seed in range(values["seeds"]):
        for row in rows:
            try:
                record = carry_out(row, seed, {**changes, **_place(row, values["data"])}, Path(values["runs"]), console)
            except Stopped as stop:
                console.print("stopped by a signal; the same command goes on", highlight=False)
                return 128 + stop.number
            records = merged(read_records(out / "runs.jsonl"), [record])
            write_records(out / "runs.jsonl", records)
            drawn = target.kind in DRAWINGS and DRAWINGS[target.kind](out / "picture.png", records)
            write_page(out / "README.md", values["target"], target, records, "picture.png" if drawn else None)
    console.print(f"{out / 'README.md'} is written", highlight=False, markup=False, soft_wrap=True)
    return 0


def _place(row: Row, data: str | None) -> dict[str, str]:
    """Where the data lie, for the recipes that read them from files: a folder of the dataset's name, or the folder."""
    recipe = load_recipe(row.recipe)
    if data is None or "path" not in field_types(type(recipe.data)):
        return {}
    own = Path(data) / recipe.data_name
    return {"data.path": str(own if own.is_dir() else data)}


def _measure(
    values: Mapping[str, Any],
    target: Target,
    rows: Sequence[Row],
    changes: Mapping[str, Any],
    out: Path,
    command: str,
) -> int:
    """Rows that are times."""
    import torch

    from pages import write_dimensions, write_times
    from pictures import draw_times
    from timing import time_dimensions, time_rows

    device = values["device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    how = {"command": command, "threads": torch.get_num_threads(), "device": device}
    if target.kind == "time":
        write_times(out, values["target"], target, time_rows(rows, changes, values["seconds"], device), how)
    else:
        times = time_dimensions(rows, changes, values["largest"], values["seconds"], device)
        draw_times(out / "picture.png", times)
        write_dimensions(out, values["target"], target, times, how)
    print(f"{out / 'README.md'} is written")
    return 0
