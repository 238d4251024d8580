"""A named set of runs, one after the other, and the table of what came out.

    .venv/bin/python benchmarks/short_runs.py digits
    SNFLOW_DATA=DATA .venv/bin/python benchmarks/short_runs.py mnist

Each run is one `snflow fit` command, written into the table; a run that was cut off is resumed, a finished one is read.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shlex
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """One row: a recipe and how it is changed."""

    name: str
    recipe: str
    options: tuple[str, ...] = ()

    def command(self, runs: Path) -> list[str]:
        """The words of the command."""
        return ["snflow", "fit", self.recipe, "--out", str(runs / self.name), *self.options]


@dataclass(frozen=True)
class Study:
    """Runs that belong in one table."""

    title: str
    introduction: str
    runs: tuple[Run, ...]


# The MNIST recipes warm up over 10 epochs, the paper's: a short run would be nothing but warm-up. One epoch of it is
# kept, so that the paper's rate is what is measured; the second set keeps the paper's schedule to the letter.
WARM = ("--schedule.warmup_epochs", "1")
DENSE = ("--epochs", "10")

ANGLE = ("--training.measure_angle", "true")
TRACKINGS = {
    "exact": ("--flow.log_det_rule", "exact"),
    "penalty": ("--flow.inverse_tracking", "penalty"),
    "newton": ("--flow.inverse_tracking", "newton"),
    "secant": ("--flow.inverse_tracking", "secant"),
}
STUDIES = {
    "digits": Study(
        "The digits: self-normalizing and exact",
        """The demo's recipe, all 200 epochs of it, and the same flow with the exact gradient, three seeds each. The
        seed is that of the weights, the batches and the noise; the split stays.""",
        tuple(
            Run(f"{name}_seed{seed}", "digits_conv", ("--flow.log_det_rule", rule, "--seed", str(seed)))
            for seed in range(3)
            for name, rule in (("snf", "self_normalized"), ("exact", "exact"))
        ),
    ),
    "mnist": Study(
        "MNIST: short runs",
        """**Short runs**: the paper trains the dense models for 6000 epochs and the convolutional ones for 1000. One
        seed. Rows without `warmup10` warm up over one epoch instead of the paper's ten, so that nearly all of the run
        has the paper's rate.""",
        (
            *(Run(f"dense_{rule}", f"mnist_dense_{rule}", DENSE + WARM) for rule in ("snf", "exact", "relative")),
            *(Run(f"dense_{rule}_warmup10", f"mnist_dense_{rule}", DENSE) for rule in ("snf", "exact", "relative")),
            *(Run(f"conv_{rule}", f"mnist_conv_{rule}", ("--epochs", "2", *WARM)) for rule in ("snf", "exact")),
        ),
    ),
    "tracking_dense": Study(
        "Tracking the inverse: two dense layers on MNIST",
        """The recipe `mnist_dense_newton`, 6 epochs at a peak rate of 1e-3 with cosine decay and no warm-up, with four
        ways to the gradient of the log-determinant, two seeds each. **Short runs.** The seconds are those of the
        training steps; angles are between the training gradient and the exact one, on a fixed batch.""",
        tuple(
            Run(f"{name}_seed{seed}", "mnist_dense_newton", (*options, "--seed", str(seed), *ANGLE))
            for seed in range(2)
            for name, options in TRACKINGS.items()
        ),
    ),
    "tracking_conv": Study(
        "Tracking the inverse: nine convolutions on MNIST",
        """The recipe `mnist_conv_newton`, 2 epochs with one of warm-up. **Short runs**, one seed.""",
        tuple(
            Run(name, "mnist_conv_newton", ("--epochs", "2", *WARM, *options, *ANGLE))
            for name, options in TRACKINGS.items()
        ),
    ),
    "tracking_glow": Study(
        "Tracking the inverse: a digits Glow with 3×3 mixing",
        """The recipe `digits_glow_newton`, 60 epochs, two seeds each.""",
        tuple(
            Run(f"{name}_seed{seed}", "digits_glow_newton", (*options, "--seed", str(seed), *ANGLE))
            for seed in range(2)
            for name, options in TRACKINGS.items()
        ),
    ),
}

MEASURED = """NLL is exact, in nats of the integer images: dequantization, scaling and logit counted. The test NLL is
that of the best epoch by validation. Written by `benchmarks/short_runs.py {study}` on {cores} cores ({processor}),
nothing else running, at commit `{commit:.12}`."""


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES, help="which runs")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the run folders go")
    parser.add_argument("--out", type=Path, default=Path("results"), help="where the page goes")
    arguments = parser.parse_args()
    study, facts = STUDIES[arguments.study], machine()
    runs, out = arguments.runs / arguments.study, arguments.out / arguments.study
    for run in study.runs:
        words = run.command(runs)
        print("$", shlex.join(words), flush=True)
        subprocess.run([str(Path(sys.executable).parent / words[0]), *words[1:]], check=True)
    out.mkdir(parents=True, exist_ok=True)
    rows = [collect(run, runs) for run in study.runs]
    lines = [json.dumps({"machine": facts}), *map(json.dumps, rows)]
    (out / "runs.jsonl").write_text("\n".join(lines) + "\n")
    (out / "README.md").write_text(page(arguments.study, study, rows, facts))


def machine() -> dict[str, Any]:
    """What the seconds were measured on, and at which commit."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    return {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system(), "commit": commit}


def collect(run: Run, runs: Path) -> dict[str, Any]:
    """The summary and the epochs of one run."""
    folder = runs / run.name
    with (folder / "metrics.csv").open() as file:
        epochs = list(csv.DictReader(file))
    with (folder / "layers.csv").open() as file:
        layers = list(csv.DictReader(file))
    summary = json.loads((folder / "summary.json").read_text())
    command = shlex.join(run.command(runs))
    return {"name": run.name, "command": command, "summary": summary, "epochs": epochs, "layers": layers}


def page(name: str, study: Study, rows: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The Markdown page: a row a run, then each run by epoch, about ten epochs of it."""
    text = f"{study.introduction} {MEASURED.format(study=name, **facts)}"
    lines = [f"# {study.title}", "", *textwrap.wrap(" ".join(text.split()), 119), ""]
    lines += ["| run | epochs | exact test NLL, nats | bits/dim | s / epoch, median | training, s | slowest step, s |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in rows:
        s = row["summary"]
        lines.append(
            f"| {row['name']} | {s['epochs']} | {s['test_nll_nats']:.2f} | {s['test_bits_per_dim']:.4f} "
            f"| {s['seconds_per_epoch_median']:.2f} | {s['train_seconds']:.0f} | {slowest(row)} |"
        )
    lines += ["", "## By epoch", "", "Error, residual, angle and λ are those of the worst layer.", ""]
    for row in rows:
        lines += [f"### {row['name']}", "", f"`{row['command']}`", ""]
        lines += ["| epoch | exact validation NLL, nats | ‖g(f(x)) − x‖² | ‖RW − I‖/√D | angle, ° | λ | repairs | s |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        every = max(1, (len(row["epochs"]) - 1) // 10)
        lines += [by_epoch(epoch, row["layers"]) for epoch in row["epochs"][::every]]
        lines.append("")
    return "\n".join(lines)


def by_epoch(epoch: dict[str, str], layers: list[dict[str, str]]) -> str:
    """One row of the table of a run; a dash where there is no number."""
    angles = [row["angle"] for row in layers if row["epoch"] == epoch["epoch"] and row["angle"]]
    shown = {**epoch, "angle": max(angles, key=float, default="")}
    forms = {
        "validation_nll": ".1f",
        "reconstruction_error": ".3g",
        "inverse_residual": ".3g",
        "angle": ".2f",
        "penalty_weight": ".3g",
        "repairs": "s",
        "train_seconds": ".2f",
    }
    cells = [
        "–" if not shown.get(key) else shown[key] if form == "s" else format(float(shown[key]), form)
        for key, form in forms.items()
    ]
    return f"| {' | '.join([epoch['epoch'], *cells])} |"


def slowest(row: dict[str, Any]) -> str:
    """The slowest step of a run; runs of older versions did not note it."""
    steps = [float(epoch["slowest_step_seconds"]) for epoch in row["epochs"] if epoch.get("slowest_step_seconds")]
    return f"{max(steps):.2f}" if steps else "–"


if __name__ == "__main__":
    main()
