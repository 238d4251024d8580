"""What a training step, a validation and the picture of each of the library's recipes cost, with one thread.

python benchmarks/recipe_costs.py                # measures the recipes that are missing in results/recipe_costs
python benchmarks/recipe_costs.py --write        # and writes the first line of each recipe's file
python benchmarks/recipe_costs.py toy_maf …      # measures these again

Seconds are those of the processor, so that other work on the machine changes them little. Data that would need files
are random numbers of the same shape; flows have their initial weights, moved by a few steps. A part that takes more
than a minute is stopped. Each recipe runs in a process of its own, whose peak memory is reported.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from measurement import commit
from snflow.cli.main import keep_freed_memory
from snflow.data.dataset import Dataset
from snflow.train.evaluation import estimated_nll
from snflow.train.optimizer import adam
from snflow.train.pictures import draw_samples
from snflow.train.recipe import Recipe, available_recipes, load_recipe

OUT = Path(__file__).parents[1] / "results" / "recipe_costs"
LIMIT = 60.0
"""Seconds after which a part is stopped."""
STEPS, ENOUGH = 20, 1.0
"""Number of steps that are averaged, or the seconds after which fewer are enough."""
COLUMNS, ROWS = 8, 2000
"""Shape of the table."""
VALIDATED = {"mnist": 10_000, "table": ROWS}
"""Rows that a run validates on; fewer are made, and their time is multiplied."""
LINE = re.compile(r"# One thread: .*\n")


class TooLongError(Exception):
    """A part took more than its limit."""


def dataset_of(recipe: Recipe) -> Dataset:
    """The recipe's data, or random numbers of their shape if they are in files."""
    if recipe.data["name"] == "mnist":
        images = torch.randint(256, (1500, 1, 28, 28), dtype=torch.uint8)
        return Dataset("mnist", images[:500], images[500:1000], images[1000:], num_values=256)
    if recipe.data["name"] == "table":
        table = torch.randn(3 * ROWS, COLUMNS, dtype=torch.float64)
        return Dataset("table", *table.chunk(3))
    return recipe.load_dataset()


def limited(act: Callable[[], float]) -> float | None:
    """Seconds that a part reports; ``None`` if it was stopped."""
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        return act()
    except TooLongError:
        return None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def measured(name: str) -> dict[str, Any]:
    """The row of one recipe: seconds of each part, ``None`` above the limit, and the peak of the memory in MiB."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLongError

    signal.signal(signal.SIGPROF, stop)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    recipe = load_recipe(name)
    dataset, training = dataset_of(recipe), recipe.training
    flow = recipe.build_flow(dataset).to(torch.float32)
    optimizer = adam([p for p in flow.parameters() if p.requires_grad], recipe.optimizer, torch.device("cpu"))
    batch = dataset.train[: training.batch_size]
    batch = batch.float() if batch.is_floating_point() else batch
    for group in optimizer.param_groups:
        group["lr"] = 1e-5

    def step() -> None:
        (-flow(batch).mean()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def steps() -> float:
        step()  # the first one initializes layers
        began, number = time.process_time(), 0
        while number < STEPS and time.process_time() - began < ENOUGH:
            step()
            number += 1
        return (time.process_time() - began) / number

    def validation() -> float:
        flow.eval()
        rows = dataset.validation[: training.eval_batch_size]
        began = time.process_time()
        estimated_nll(flow, rows, training.eval_batch_size, training.seed)
        return (time.process_time() - began) * VALIDATED.get(recipe.data["name"], len(dataset.validation)) / len(rows)

    def picture() -> float:
        flow.eval()
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            draw_samples(Path(folder) / "samples.png", flow, dataset.test, training.seed, 10.0)
            return time.process_time() - began

    flow.train()
    row: dict[str, Any] = {"recipe": name, "step": limited(steps)}
    row |= {"validation": limited(validation), "picture": limited(picture)}
    status = Path("/proc/self/status")
    peaks = [int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return {**row, "log_det": flow.bijection.log_det_kind, "mebibytes": peaks[0] / 1024, "commit": commit()}


def in_process_of_its_own(name: str) -> dict[str, Any]:
    """:func:`measured` in a copy of this process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "row.json"
        child = os.fork()
        if not child:
            try:
                path.write_text(json.dumps(measured(name)))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        row: dict[str, Any] = json.loads(path.read_text())
        return row


def in_words(seconds: float | None) -> str:
    """Two digits and a unit."""
    if seconds is None:
        return f"> {LIMIT:.0f} s"
    value, unit = (1000 * seconds, "ms") if seconds < 0.1 else (seconds, "s")
    digits = max(0, 1 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{round(value, 1 - math.floor(math.log10(value))):.{digits}f} {unit}" if value > 0 else f"0 {unit}"


def first_line(row: dict[str, Any]) -> str:
    """The comment at the top of a recipe's file."""
    step, validation, picture = (in_words(row[part]) for part in ("step", "validation", "picture"))
    estimated = " by estimates" if row["log_det"] == "estimate" else ""
    text = f"# One thread: {step} a step, {validation} a validation{estimated}, {picture} a picture"
    return f"{text} (results/recipe_costs).\n"


def page(rows: dict[str, dict[str, Any]]) -> str:
    """The Markdown page."""
    table = [
        f"| {name} | {' | '.join(in_words(row[part]) for part in ('step', 'validation', 'picture'))} "
        f"| {row['log_det']} | {row['mebibytes']:.0f} |"
        for name, row in sorted(rows.items())
    ]
    return f"""# What a recipe costs

Seconds of the processor with one thread: a training step on the recipe's batch, a validation on the recipe's whole
validation set, and the picture of samples at the end of a run, whose sampling stops after ten seconds. A step is the
mean of up to {STEPS}. A validation is one batch of `eval_batch_size` rows (at most 500 images of MNIST), times the
number of batches. Digits and toys are the recipe's data; MNIST is random images, validated on 10,000; a table is
{COLUMNS} columns of random numbers, validated on {ROWS} rows. The weights are nearly the initial ones: adaptive solvers
and searches for roots take longer after training. A part that takes over {LIMIT:.0f} s is stopped. Memory is the peak
of the whole process, in MiB. Written by `python benchmarks/recipe_costs.py`, torch {torch.__version__},
{platform.machine()}; the commits are in [costs.json](costs.json).

| recipe | step | validation | picture | log-determinants in evaluation | memory |
|---|---|---|---|---|---|
{chr(10).join(table)}
"""


def main() -> None:
    """Measure what is missing, and write page and recipes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", help="recipes to measure again; by default those without a row")
    parser.add_argument("--write", action="store_true", help="write the first line of each measured recipe's file")
    arguments = parser.parse_args()
    path = OUT / "costs.json"
    OUT.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    keep_freed_memory()
    for name in arguments.recipes or [name for name in available_recipes() if name not in rows]:
        rows[name] = in_process_of_its_own(name)
        print(name, first_line(rows[name]), end="", flush=True)
        path.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")
        (OUT / "README.md").write_text(page(rows))
    if arguments.write:
        for name, row in rows.items():
            file = available_recipes()[name]
            file.write_text(first_line(row) + LINE.sub("", file.read_text(), count=1))


if __name__ == "__main__":
    main()
