"""``snflow reproduce TARGET``: a table or a figure of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snflow.errors import ConfigError
from snflow.training.config.parser import Arguments
from snflow.training.config.recipe import load_recipe
from snflow.training.config.strict_yaml import read_yaml
from snflow.training.config.typed import field_types
from snflow.training.reproduce.page import said
from snflow.training.reproduce.targets import TARGETS, Row, Target, find_target

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
        from snflow.training.reproduce.overview import write_overview

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
    from rich.console import Console

    from snflow.training.reproduce.carrying_out import Stopped, carry_out
    from snflow.training.reproduce.page import write_page
    from snflow.training.reproduce.pictures import DRAWINGS
    from snflow.training.reproduce.records import merged, read_records, write_records

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

    from snflow.training.reproduce.pictures import draw_times
    from snflow.training.reproduce.time_page import write_dimensions, write_times
    from snflow.training.reproduce.timing import time_dimensions, time_rows

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
