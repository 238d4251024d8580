"""Overhead of `snflow fit` per step over the bare forward, backward and optimizer step, on the digits recipe.

python benchmarks/loop_overhead.py --out results/loop

A run of 30 epochs minus one of 10 leaves 20 epochs with all the work per step and per epoch (batches, learning rate,
checks, gradient norm, rows of metrics, progress) and without the start and the end of a run; validation is postponed to
the end. Both take turns with the bare loop, at equal numbers of steps. The machine must be idle.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from measurement import commit
from snflow.cli.main import keep_freed_memory
from snflow.train.fit import fit
from snflow.train.optimizer import adam
from snflow.train.recipe import Recipe, load_recipe

LONG, SHORT = 30, 10
RATE = 1e-5
"""Learning rate of both, so small that both compute with nearly the initial weights."""
ALLOWED = 0.10


def run_seconds(recipe: Recipe, epochs: int) -> float:
    """Seconds of one whole run."""
    changed = recipe.replace({"training.epochs": epochs, "training.validate_every": 1000})
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        fit(changed, Path(folder) / "run")
        return time.perf_counter() - began


def bare_milliseconds(recipe: Recipe, epochs: int) -> float:
    """Milliseconds per step of the same flow on the same data, in a bare loop."""
    dataset = recipe.load_dataset()
    torch.manual_seed(0)
    flow = recipe.build_flow(dataset).train()
    optimizer = adam([p for p in flow.parameters() if p.requires_grad], recipe.optimizer, torch.device("cpu"))
    size = recipe.training.batch_size
    batches = [dataset.train[at : at + size] for at in range(0, len(dataset.train) - size + 1, size)]
    flow(batches[0])
    began = time.perf_counter()
    for _ in range(epochs):
        for batch in batches:
            (-flow(batch).mean()).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return 1000 * (time.perf_counter() - began) / (epochs * len(batches))


def main() -> None:
    """Measure in turns and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="digits_conv")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/loop"))
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe, {"optimizer.learning_rate": RATE})
    torch.set_num_threads(recipe.training.threads or torch.get_num_threads())
    keep_freed_memory()
    steps = len(recipe.load_dataset().train) // recipe.training.batch_size
    rows = []
    for turn in range(arguments.turns):
        seconds = run_seconds(recipe, LONG) - run_seconds(recipe, SHORT)
        fitted = 1000 * seconds / ((LONG - SHORT) * steps)
        bare = bare_milliseconds(recipe, LONG - SHORT)
        rows.append({"turn": turn, "fit_ms": fitted, "bare_ms": bare, "ratio": fitted / bare})
        print(rows[-1], flush=True)
    command = f"python benchmarks/loop_overhead.py {' '.join(sys.argv[1:])}".strip()
    facts = {"command": command, "commit": commit(), "torch": torch.__version__, "cores": os.cpu_count()}
    fitted, bare = (statistics.median(row[name] for row in rows) for name in ("fit_ms", "bare_ms"))
    over = statistics.median(row["ratio"] for row in rows) - 1
    low, high = min(row["ratio"] for row in rows) - 1, max(row["ratio"] for row in rows) - 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (facts, *rows)))
    (arguments.out / "README.md").write_text(f"""# Overhead of the training loop

`snflow fit {arguments.recipe}` takes {fitted:.2f} ms per step; the bare forward, backward and optimizer step {bare:.2f}
ms: {over:+.1%} (median of {len(rows)} turns, from {low:+.0%} to {high:+.0%}; goal: under {ALLOWED:.0%},
{"met" if over < ALLOWED else "missed"}).
All work per step and per epoch is included, except validation. Written by `{command}` at commit
`{commit():.12}`, torch {torch.__version__}, {os.cpu_count()} cores ({platform.machine()}).
""")


if __name__ == "__main__":
    main()
