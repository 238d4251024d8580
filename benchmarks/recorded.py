"""The gain from compiling and recording a training step: milliseconds of a step of 100 rows, by recipe.

python benchmarks/recorded.py --device cuda --recipes mnist_dense_snf,mnist_dense_newton --out results/recorded

`plain` is the step of `snflow fit`, `compiled` that of `--device.compile inductor`, `graph` that of
`--device.cuda_graph true`, `compiled graph` both; `tf32` adds `--device.matmul high`. All recipes and modes take turns;
a turn lasts about `--seconds` and is timed as a whole. Graphs need a GPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from measurement import EVENTS, build, commit, named_recipe
from snflow.cli.main import keep_freed_memory
from snflow.train.options import DeviceOptions
from snflow.train.recipe import Recipe
from snflow.train.recorded_steps import matmul_precision, set_up
from snflow.train.steps import DivergenceCheck, StepRequest

MODES = {
    "plain": DeviceOptions(),
    "plain tf32": DeviceOptions(matmul="high"),
    "compiled": DeviceOptions(compile="inductor"),
    "graph": DeviceOptions(cuda_graph=True),
    "compiled graph": DeviceOptions(cuda_graph=True, compile="inductor"),
    "compiled graph tf32": DeviceOptions(cuda_graph=True, compile="inductor", matmul="high"),
}
TURNS = 5


@dataclass
class Stepper:
    """One recipe's step in one mode."""

    take: Callable[[], object]
    matmul: str
    first_seconds: float

    def turn(self, seconds: float, finish: Callable[[], None]) -> float:
        """Milliseconds per step, the mean over about this many seconds."""
        with matmul_precision(self.matmul):
            finish()
            began = time.perf_counter()
            count = 0
            while count == 0 or time.perf_counter() - began < seconds:
                for _ in range(10):
                    self.take()
                count += 10
                finish()
            return 1000 * (time.perf_counter() - began) / count


def stepper(recipe: Recipe, options: DeviceOptions, device: str) -> Stepper:
    """Build the flow and take the first steps, which compile and record."""
    recipe = replace(recipe, device=replace(options, accelerator=device))
    torch.manual_seed(0)
    flow, batch = build(recipe, *EVENTS[recipe.data["name"]], device)
    flow.eval()
    with torch.no_grad():
        flow(batch)  # computes the first log-determinants
    flow.train()
    fabric = Fabric(accelerator=device, devices=1)
    check = DivergenceCheck(flow, recipe.training, recipe.optimizer)
    _, _, steps = set_up(fabric, flow, recipe, None, check, lambda values: values.tolist(), lambda: "")
    number = 0

    def take() -> None:
        nonlocal number
        number += 1
        steps.take((batch, None), StepRequest(1e-6, number, stop=lambda: False, due=lambda: False))

    began = time.perf_counter()
    with matmul_precision(options.matmul):
        for _ in range(8):
            take()
    return Stepper(take, options.matmul, time.perf_counter() - began)


def measured(names: list[str], modes: list[str], device: str, seconds: float) -> list[dict[str, Any]]:
    """Median milliseconds per step of each recipe in each mode, measured in turns."""
    finish = torch.cuda.synchronize if device == "cuda" else lambda: None
    recipes = {name: named_recipe(name) for name in names}
    steppers = {(name, mode): stepper(recipes[name], MODES[mode], device) for name in names for mode in modes}
    turns: dict[tuple[str, str], list[float]] = {key: [] for key in steppers}
    for _ in range(TURNS):
        for key, one in steppers.items():
            turns[key].append(one.turn(seconds, finish))
    return [
        {
            "recipe": name,
            "median_ms": {mode: statistics.median(turns[name, mode]) for mode in modes},
            "turns_ms": {mode: turns[name, mode] for mode in modes},
            "first_steps_seconds": {mode: steppers[name, mode].first_seconds for mode in modes},
        }
        for name in names
    ]


def main() -> None:
    """Measure the recipes, and write runs.jsonl and README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", default="mnist_dense_snf,mnist_dense_newton,mnist_conv_snf")
    parser.add_argument("--modes", default=None, help="some of the modes above; by default all supported ones")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seconds", type=float, default=0.5, help="length of each of the five turns")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/recorded"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    warnings.simplefilter("ignore")
    chosen = arguments.modes.split(",") if arguments.modes else list(MODES)
    modes = [mode for mode in chosen if arguments.device == "cuda" or ("graph" not in mode and "tf32" not in mode)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "runs.jsonl"
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{platform.machine()} processor"
    found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    names = arguments.recipes.split(",")
    for record in measured(names, modes, arguments.device, arguments.seconds):
        record |= {"device": device, "threads": arguments.threads, "torch": torch.__version__, "commit": commit()}
        record |= {"command": f"python benchmarks/recorded.py {' '.join(sys.argv[1:])}"}
        found = [one for one in found if (one["recipe"], one["device"]) != (record["recipe"], device)] + [record]
        print(record["recipe"], {mode: round(ms, 3) for mode, ms in record["median_ms"].items()}, flush=True)
    file.write_text("".join(json.dumps(one) + "\n" for one in found))
    (arguments.out / "README.md").write_text(page(found))


def page(records: list[dict[str, Any]]) -> str:
    """The Markdown table."""
    modes = [mode for mode in MODES if any(mode in record["median_ms"] for record in records)]
    text = "# Training steps: plain, compiled and recorded\n\nMilliseconds of a step of 100 rows, optimizer and "
    text += "preprocessing included; medians of five turns. `runs.jsonl` has the commands, commits and turns.\n\n"
    text += f"| recipe | device | {' | '.join(modes)} |\n|---|---|{'---|' * len(modes)}\n"
    for record in records:
        cells = [f"{record['median_ms'][mode]:.3g}" if mode in record["median_ms"] else "" for mode in modes]
        text += f"| {record['recipe']} | {record['device']}, torch {record['torch']} | {' | '.join(cells)} |\n"
    return text


if __name__ == "__main__":
    main()
