"""Reproduce a table or a figure of Keller et al. (2021), Self Normalizing Flows, from a checkout.

python papers/self_normalizing_flows/reproduce.py table1 --rows 'dense_*' --epochs 10
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from jsonargparse.typing import PositiveFloat, PositiveInt
from rich.console import Console

from pages import COMMAND, write_overview, write_page
from pictures import DRAWINGS, draw_times
from records import Record, commit, machine, merged, read_records, write_records, write_times
from snflow.cli.main import keep_freed_memory
from snflow.errors import ConfigError, DivergenceError, SnflowError
from snflow.train.metrics import LayerRow, MetricsFile
from snflow.train.recipe import Recipe, read_yaml
from snflow.train.run_folder import RunFolder
from targets import Row, Target, find_target, named_recipe, recipe_of, reference_of

DIVERGED = "diverged.txt"
KEPT_EPOCHS = 200
"""A record keeps at most this many epochs of a run, evenly spaced, so that 6000 epochs still make a readable page."""


class Stopped(Exception):
    """A signal ended a run after it wrote a checkpoint."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


def reproduce(
    target: str,
    *,
    rows: str | None = None,
    epochs: PositiveInt | None = None,
    set: str | None = None,
    seeds: PositiveInt = 3,
    seconds: PositiveFloat = 2.0,
    largest: PositiveInt = 1568,
    data: str | None = None,
    device: str = "auto",
    runs: str = "runs/reproduce",
    out: str = "results",
    page: str = "docs/paper.md",
) -> int:
    """Run the rows of a table or a figure of the paper, and write them next to the paper's numbers.

    After an interruption the same command continues where it stopped; finished runs are not repeated.

    Args:
        target: table1 … table5 or figure2 … figure5; overview rewrites every page from the results.
        rows: names of rows or patterns such as dense_*, separated by commas; all rows if null.
        epochs: number of epochs instead of the recipe's; fewer make a run that is marked as short.
        set: further changes of every recipe, separated by commas: flow.width=64,training.batch_size=50.
        seeds: number of runs of each row, with seeds 0, 1, ….
        seconds: for times, how long each number is measured.
        largest: for figure4, the largest dimension.
        data: folder that holds mnist, cifar10, …; if null, $SNFLOW_DATA.
        device: auto, cpu, cuda or mps.
        runs: folder of the run folders.
        out: folder of the pages; each target has a folder of its name.
        page: for overview, the file to write.

    Returns:
        The exit code: 0, or 128 + the number of the signal that stopped a run.
    """
    if target == "overview":
        write_overview(Path(page), Path(out))
        print(f"wrote {page}")
        return 0
    found = find_target(target)
    chosen, changes, folder = found.chosen(rows), _changes(set), Path(out) / target
    if found.kind in ("time", "dimension"):
        _measure(found, chosen, changes, folder, seconds, largest, device)
    else:
        changes |= {"device.accelerator": device} | ({} if epochs is None else {"training.epochs": int(epochs)})
        try:
            _train(target, found, chosen, changes, folder, seeds, Path(runs), data)
        except Stopped as stop:
            print("stopped by a signal; run the same command to continue")
            return 128 + stop.number
    write_page(folder, target, found)
    print(f"wrote {folder / 'README.md'}")
    return 0


def train_row(row: Row, seed: int, changes: Mapping[str, Any], runs: Path, console: Console) -> Record:
    """Train one row with one seed in its own folder, continue that run, or read it if it is finished.

    The folder's name contains the hash of the resolved recipe: different settings have different folders, and rows of
    different tables with equal settings share one.

    Args:
        row: the row to train.
        seed: seed of weights, batches and noise.
        changes: values by dotted name, over those of the row.
        runs: folder of the run folders.
        console: for the progress.

    Returns:
        The record; a run that diverged has one too.

    Raises:
        Stopped: a signal ended the run; the same call continues it.
        ConfigError, DataError, CheckpointError: as :func:`snflow.train.fit`.
    """
    from snflow.train.fit import fit

    seeded = {**changes, "training.seed": seed}
    recipe = recipe_of(row, seeded)
    folder = runs / f"{row.recipe}-{recipe.digest()[:12]}"
    command = shlex.join(
        ["snflow", "fit", reference_of(row.recipe), "--out", str(folder), *_words({**row.changes, **seeded})]
    )
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
        full_epochs=named_recipe(row.recipe).training.epochs,
        folder=str(folder),
        command=command,
        commit=commit(),
        machine=machine(summary),
        summary=summary,
        diverged=marker.read_text(encoding="utf-8").strip() if marker.exists() else None,
        metrics=_thinned(MetricsFile(files.metrics).texts()),
        layers=_thinned(MetricsFile(files.layers, LayerRow).texts()),
        changes=dict(changes),
    )


def settings_of(recipe: Recipe) -> str:
    """Twelve hexadecimal digits of the recipe's hash, without its seed."""
    return recipe.replace({"training.seed": 0}).digest()[:12]


def _train(
    name: str,
    target: Target,
    rows: Sequence[Row],
    changes: Mapping[str, Any],
    folder: Path,
    seeds: int,
    runs: Path,
    data: str | None,
) -> None:
    """Train every row with every seed. The seeds are the outer loop, so that a page has all rows early."""
    console = Console(highlight=False)
    for seed in range(seeds):
        for row in rows:
            record = train_row(row, seed, {**changes, **_data_path(row, data)}, runs, console)
            records = merged(read_records(folder / "runs.jsonl"), [record])
            write_records(folder / "runs.jsonl", records)
            if target.kind in DRAWINGS:
                DRAWINGS[target.kind](folder / "picture.png", records)
            write_page(folder, name, target)


def _measure(
    target: Target,
    rows: Sequence[Row],
    changes: Mapping[str, Any],
    folder: Path,
    seconds: float,
    largest: int,
    device: str,
) -> None:
    import torch

    from timing import time_dimensions, time_rows

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    facts = {"command": f"{COMMAND} {shlex.join(sys.argv[1:])}", "threads": torch.get_num_threads(), "device": device}
    if target.kind == "time":
        write_times(folder / "times.jsonl", time_rows(rows, changes, seconds, device), facts)
    else:
        times = time_dimensions(rows, changes, largest, seconds, device)
        draw_times(folder / "picture.png", times)
        found = [{"row": row, "ms_by_dimension": points} for row, points in times.items()]
        write_times(folder / "times.jsonl", found, facts)


def _changes(words: str | None) -> dict[str, Any]:
    """Parse ``section.option=value`` pairs, separated by commas; the values are read as in a recipe."""
    pairs = [part.partition("=") for part in (words or "").split(",") if part.strip()]
    for name, equals, _ in pairs:
        if not equals or "." not in name:
            raise ConfigError("--set", expected="section.option=value, separated by commas", got=repr(name.strip()))
    return {name.strip(): read_yaml(f"value: {value}", "--set")["value"] for name, _, value in pairs}


def _data_path(row: Row, data: str | None) -> dict[str, str]:
    """The path of the data, for recipes that read files: the subfolder of the dataset's name, or the folder itself."""
    dataset = recipe_of(row).data
    if data is None or "path" not in dataset:
        return {}
    own = Path(data) / dataset["name"]
    return {"data.path": str(own if own.is_dir() else data)}


def _words(changes: Mapping[str, Any]) -> list[str]:
    """The options of ``snflow fit`` that make these changes."""
    words = []
    for name, value in changes.items():
        words += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    return words


def _thinned(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The rows of at most ``KEPT_EPOCHS`` epochs and the last one, with numbers in place of their texts."""
    last = max((int(row["epoch"]) for row in rows), default=0)
    every = max(1, -(-last // KEPT_EPOCHS))
    kept = [row for row in rows if int(row["epoch"]) % every == 0 or int(row["epoch"]) == last]
    return [
        {name: cell if name == "layer" else float(cell) if cell else None for name, cell in r.items()} for r in kept
    ]


def main(words: Sequence[str] | None = None) -> int:
    """Run the command with these words, by default those of the process, and return its exit code."""
    try:
        return int(auto_cli(reproduce, args=None if words is None else list(words)))
    except SnflowError as error:
        print(f"reproduce: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
