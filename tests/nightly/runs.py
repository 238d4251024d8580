"""Runs of every recipe, made short, in processes that can be killed, and the comparison of two runs."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from cli.test_cli import FILES
from nightly.check import require
from snflow.errors import SnflowError
from snflow.train.checkpoints import Checkpoint, CheckpointStore, read_checkpoint
from snflow.train.fit import FitResult, fit
from snflow.train.recipe import Recipe, available_recipes, load_recipe

RECIPES = [name for name in available_recipes() if not name.startswith("mnist_")]
"""Those of MNIST are the flows of the digits, larger."""

_SMALLER = {
    "width": 4,
    "layers": 2,
    "depth": 1,
    "first_layers": 1,
    "channel_layers": 1,
    "last_layers": 1,
    "components": 2,
}
_TIMES = ("seconds", "train_seconds", "evaluation_seconds", "slowest_step_seconds", "seconds_by_epoch", "slowest_step")


def short(name: str, folder: Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe of the library with few rows and a small flow: some tens of steps, with many checkpoints."""
    recipe = load_recipe(name)
    content = recipe.to_dict()
    kind = content["data"]["name"]
    if kind == "table":
        path = folder / "table.csv"
        if not path.exists():
            np.savetxt(path, np.random.default_rng(0).normal(size=(140, 3)), delimiter=",")
        content["data"]["path"] = str(path)
    elif kind in FILES:
        FILES[kind](folder)
        content["data"]["path"] = str(folder)
    else:
        content["data"] |= {"train": 100, "validation": 20, "test": 20}
    size = 20
    flow = content["flow"]
    for option, value in _SMALLER.items():
        if option in flow and isinstance(flow[option], int):
            flow[option] = min(flow[option], value)
    if flow["name"] == "realnvp":
        flow["layers"] = max(flow["layers"], 4)
    if flow["name"] in ("ffjord",):
        flow |= {"solver": "rk4", "steps": 4}
    content["training"] |= {
        "epochs": 3,
        "batch_size": size,
        "checkpoint_every_steps": 3,
        "threads": 1,
        "patience": None,
    }
    content["device"] = {"accelerator": "cpu"}
    for key, value in (changes or {}).items():
        section, option = key.split(".")
        content[section][option] = value
    return Recipe.from_dict(content)


def quiet() -> Console:
    """A console that prints into memory."""
    return Console(file=io.StringIO())


def train(recipe: Recipe, out: Path, **options: Any) -> FitResult:
    """Run or continue a recipe in this process, without a word."""
    return fit(recipe, out, console=quiet(), **options)


class Child:
    """A run in a process of its own, started from a server that has imported everything but run nothing.

    Args:
        task: called in the process; its exit code is that of the command line.
        arguments: the arguments of the task.
    """

    _context = None

    def __init__(self, task: Callable[..., int | None], *arguments: Any) -> None:
        if Child._context is None:
            Child._context = multiprocessing.get_context("forkserver")
            Child._context.set_forkserver_preload(["nightly.runs", "snflow.cli.commands", "snflow.train.fit"])
        self.process: BaseProcess = Child._context.Process(target=_finish, args=(task, *arguments))
        self.process.start()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, if the process has not ended."""
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)

    def wait(self, seconds: float = 300) -> int:
        """Wait for the end and return the exit code; negative for a signal."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise AssertionError(f"the process did not end within {seconds:.0f} s")
        assert self.process.exitcode is not None
        return self.process.exitcode


def _finish(task: Callable[..., int | None], *arguments: Any) -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # until the process ends
    torch.set_num_threads(1)
    os._exit(task(*arguments) or 0)


def fit_task(recipe: Recipe, out: str) -> int:
    """Train or continue a recipe; the exit code is that of ``snflow fit``."""
    try:
        result = train(recipe, Path(out), resume=(Path(out) / "config.yaml").exists())
    except SnflowError as error:
        return error.exit_code
    return 0 if result.signal is None else 128 + result.signal


def checkpoint(run: Path) -> Checkpoint:
    """The last checkpoint of a run."""
    store = CheckpointStore(run / "checkpoints")
    return read_checkpoint(store.path(store.steps()[-1]))


def same_run(one: Path, other: Path) -> None:
    """Raise a fault unless two runs have equal files, except for times: weights, state, metrics, summary."""
    a, b = checkpoint(one), checkpoint(other)
    require(a.step == b.step, f"steps {a.step} and {b.step}")
    for part in ("model", "state", "notes"):
        difference = _difference(getattr(a, part), getattr(b, part), part)
        require(difference is None, f"the last checkpoints differ at {difference}")
    for name in ("metrics.csv", "layers.csv"):
        rows = [_rows(run / name) for run in (one, other)]
        require(rows[0] == rows[1], f"{name} differs: {len(rows[0])} and {len(rows[1])} rows")
    kept = ("test_nll_nats", "validation_nll_nats", "best_step", "steps", "epochs", "recipe_sha256")
    written = [json.loads((run / "summary.json").read_text()) for run in (one, other)]
    require(all(written[0][key] == written[1][key] for key in kept), "summary.json differs")
    names = [{path.name for path in run.iterdir()} for run in (one, other)]
    require(names[0] == names[1], f"files differ: {names[0] ^ names[1]}")
    hidden = list(other.rglob(".tmp*"))
    require(not hidden, f"unfinished files are left: {hidden}")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k not in _TIMES} for row in csv.DictReader(file)]


def _difference(a: Any, b: Any, place: str) -> str | None:
    """Where two nested values differ, times aside; ``None`` if they are equal to the bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        equal = a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
        return None if equal else place
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return place
        found = (_difference(a[key], b[key], f"{place}.{key}") for key in a if key not in _TIMES)
        return next((f for f in found if f is not None), None)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return place
        found = (_difference(x, y, f"{place}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True)))
        return next((f for f in found if f is not None), None)
    return None if a == b else place


def whole(name: str, folder: Path, changes: Mapping[str, Any] | None = None) -> tuple[Recipe, Path]:
    """The short recipe and its uninterrupted run, which the cases of a chunk share."""
    recipe = short(name, folder, changes)
    out = folder / f"whole-{name}"
    if not (out / "summary.json").exists():
        code = Child(fit_task, recipe, str(out)).wait()
        require(code == 0, f"{name}: the uninterrupted run ends with {code}")
    return recipe, out
