"""Processes that die: at any moment, in the middle of a write, on a signal; and disks that are full."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from nightly.check import Found, check, require
from nightly.runs import RECIPES, Child, fit_task, replaced, short, whole
from run_files import Canvas, last_checkpoint, same_run
from snflow.cli.main import main
from snflow.errors import SnflowError
from snflow.train import pictures
from snflow.train.checkpoints import CheckpointStore
from snflow.train.recipe import Recipe

PER_RECIPE = 8
"""Number of cases in a row with the same recipe, whose uninterrupted run they share."""


def _recipe_of(seed: int) -> str:
    return RECIPES[seed // PER_RECIPE % len(RECIPES)]


def _finished_by_resuming(recipe: Recipe, run: Path, original: Path, *, older: bool = True) -> None:
    code = Child(fit_task, recipe, str(run)).wait()
    require(code == 0, f"the resumed run ends with {code}")
    same_run(original, run, older=older)


@check(
    "kill −9 at a random moment, as often as it takes, over all recipes: the resumed run ends with the same files"
    " to the bit, and the last checkpoint is readable at every moment",
    nightly=504,
    chunk=PER_RECIPE,
    minutes=30,
)
def kills(seed: int, folder: Path) -> Found:
    """One run, killed up to three times."""
    name = _recipe_of(seed)
    recipe, original = whole(name, folder)
    run, count = folder / f"run-{seed}", 0
    seconds = _duration(original)
    for _ in range(random.randint(1, 3)):
        child = Child(fit_task, recipe, str(run))
        time.sleep(random.uniform(0, 1.2 * seconds))
        child.kill()
        count += child.wait() == -signal.SIGKILL
        store = CheckpointStore(run / "checkpoints")
        if (run / "checkpoints").is_dir() and store.steps():
            last_checkpoint(run)
    _finished_by_resuming(recipe, run, original)
    shutil.rmtree(run)
    return Found(counted={"kills": count})


def _duration(run: Path) -> float:
    """Seconds from the first to the last file of a run."""
    return (run / "summary.json").stat().st_mtime - (run / "config.yaml").stat().st_mtime


WRITES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.replace", "shutil.rmtree", "os.truncate"}


def dying_task(recipe: Recipe, out: str, fatal: int, half: bool) -> int:
    """Train; die at the ``fatal``-th call that changes the run folder, before it or just after it opened a file."""
    calls = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        if event not in WRITES or not arguments or not str(arguments[0]).startswith(out):
            return
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        calls += 1
        if calls == fatal:
            if event == "open" and half:
                calls = fatal + 1
                os.close(os.open(arguments[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return fit_task(recipe, out)


@check(
    "a kill at every call that changes the disk, from the first file of a run to its last: nothing unreadable, no"
    " unfinished file after the next start, and the resumed run ends with the same files to the bit",
    nightly=400,
    chunk=20,
    minutes=30,
)
def kills_while_saving(seed: int, folder: Path) -> Found:
    """The calls one after the other, each in two ways: before it, and just after a file was opened."""
    name = ("toy_maf", "digits_conv", "toy_dense", "digits_glow_newton")[seed // 100 % 4]
    changes = {"training.epochs": 2, "training.checkpoint_every_steps": 4}
    recipe, original = whole(name, folder, changes)
    run = folder / f"run-{seed}"
    code = Child(dying_task, recipe, str(run), 1 + seed % 100 // 2, bool(seed % 2)).wait()
    require(code in (0, -signal.SIGKILL), f"the run ends with {code}")
    _finished_by_resuming(recipe, run, original)
    shutil.rmtree(run)
    return Found(counted={"kills": int(code != 0)})


def limited_task(recipe: Recipe, out: str, size: int) -> int:
    """Train while no file may grow beyond ``size`` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        return fit_task(recipe, out)
    except OSError:
        return SnflowError.exit_code


@check(
    "a disk that refuses files above a random size: the run ends with exit code 0, 2 or 4, the checkpoint before "
    "is intact, and with space the run goes on to the same files",
    nightly=160,
    chunk=PER_RECIPE,
    minutes=30,
)
def full_disk(seed: int, folder: Path) -> Found:
    """One run under a limit, then without."""
    name = _recipe_of(seed)
    recipe, original = whole(name, folder)
    run = folder / f"run-{seed}"
    largest = max(path.stat().st_size for path in original.rglob("*") if path.is_file())
    code = Child(limited_task, recipe, str(run), random.randint(0, largest)).wait()
    require(code in (0, 2, 4), f"{name}: the run on a full disk ends with {code}")
    if CheckpointStore(run / "checkpoints").steps():
        last_checkpoint(run)
    if code != 0:
        _finished_by_resuming(recipe, run, original)
    return Found(counted={f"exit code {code}": 1})


def command_task(words: list[str]) -> int:
    """Run a command, without real pictures."""
    with replaced(pictures, "FigureCanvasAgg", Canvas):
        return main(words)


@check(
    "SIGTERM and SIGINT at a random moment of a run: exit code 143 or 130 within 5 s and a checkpoint; resumed to"
    " the same files to the bit; a second Ctrl-C ends at once",
    nightly=200,
    chunk=PER_RECIPE,
    minutes=30,
)
def signals(seed: int, folder: Path) -> Found:
    """One signal, or two, to one run by the command line."""
    name = _recipe_of(seed)
    recipe, original = whole(name, folder)
    run, config = folder / f"run-{seed}", folder / f"{name}.yaml"
    config.write_text(recipe.to_yaml())
    number, twice = random.choice([signal.SIGTERM, signal.SIGINT]), random.random() < 0.25
    child = Child(command_task, ["fit", str(config), "--out", str(run)])
    begins = time.monotonic()
    while not (run / "checkpoints").is_dir() and time.monotonic() - begins < 60:
        time.sleep(0.005)
    time.sleep(random.uniform(0, _duration(original)))
    child.kill(number)
    if twice:
        child.kill(signal.SIGINT)
    begins = time.monotonic()
    code, seconds = child.wait(60), time.monotonic() - begins
    require(code in (0, 128 + number, 130, -number), f"{name}: exit code {code} after signal {number}, twice={twice}")
    require(code != -number or twice, f"{name}: killed by signal {number}")
    require(seconds <= 5, f"{name}: {seconds:.1f} s until the end")
    _finished_by_resuming(recipe, run, original, older=False)
    shutil.rmtree(run)
    return Found(seconds, {f"exit code {code}": 1})


@check(
    "two `snflow fit` into one folder at once: one trains, the other is refused; the files are those of one run",
    nightly=40,
    chunk=4,
)
def one_folder(seed: int, folder: Path) -> Found:
    """Two runs with two seeds, started within a second."""
    recipes = [short("toy_maf", folder, {"training.seed": number}) for number in (0, 5)]
    alone = []
    for number, recipe in enumerate(recipes):
        out = folder / f"alone-{number}"
        if not (out / "summary.json").exists():
            Child(fit_task, recipe, str(out)).wait()
        alone.append(out)
    run = folder / f"run-{seed}"
    children = []
    for recipe in recipes:
        children.append(Child(fit_task, recipe, str(run)))
        time.sleep(random.uniform(0, 0.5))
    codes = [child.wait() for child in children]
    require(sorted(codes)[0] == 0, f"no run succeeds: {codes}")
    winners = [number for number, code in enumerate(codes) if code == 0]
    require(len(winners) == 1, f"both end with {codes}")
    same_run(alone[winners[0]], run)
    return Found(counted={f"seed {winners[0]} wins": 1})
