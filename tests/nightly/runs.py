"""Runs of every recipe, made short, in processes that can be killed."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from cli.test_cli import FILES
from nightly.check import require
from run_files import Canvas
from snflow.errors import SnflowError
from snflow.train import pictures
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
    if flow["name"] == "ffjord":
        flow |= {"solver": "rk4", "steps": 2}
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


@contextmanager
def replaced(place: Any, name: str, value: Any) -> Iterator[None]:
    """Give an attribute another value within a block."""
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def train(recipe: Recipe, out: Path, *, canvas: type = Canvas, **options: Any) -> FitResult:
    """Run or continue a recipe in this process, without a word, and without real pictures unless asked for."""
    with replaced(pictures, "FigureCanvasAgg", canvas):
        return fit(recipe, out, **{"console": quiet()} | options)


class Child:
    """A run in a process of its own: a copy of this one, which must not have trained with several threads.

    Args:
        task: called in the process; its exit code is that of the command line.
        arguments: the arguments of the task.
    """

    def __init__(self, task: Callable[..., int | None], *arguments: Any) -> None:
        self.process: BaseProcess = multiprocessing.get_context("fork").Process(target=_finish, args=(task, *arguments))
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


def fit_task(recipe: Recipe, out: str, canvas: type = Canvas) -> int:
    """Train or continue a recipe; the exit code is that of ``snflow fit``."""
    try:
        result = train(recipe, Path(out), canvas=canvas, resume=(Path(out) / "config.yaml").exists())
    except SnflowError as error:
        return error.exit_code
    return 0 if result.signal is None else 128 + result.signal


def whole(name: str, folder: Path, changes: Mapping[str, Any] | None = None) -> tuple[Recipe, Path]:
    """The short recipe and its uninterrupted run, which the cases of a chunk share."""
    recipe = short(name, folder, changes)
    out = folder / f"whole-{name}"
    if not (out / "summary.json").exists():
        code = Child(fit_task, recipe, str(out)).wait()
        require(code == 0, f"{name}: the uninterrupted run ends with {code}")
    return recipe, out
