"""Short MNIST runs of the paper's dense and convolutional models, one after the other, and the table of what came out.

    SNFLOW_DATA=DATA .venv/bin/python benchmarks/mnist_short.py --runs runs/mnist_short --out results/mnist_short

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


@dataclass(frozen=True)
class Run:
    """One row: a recipe and how it is shortened."""

    name: str
    recipe: str
    epochs: int
    options: tuple[str, ...] = ()

    def command(self, out: Path) -> list[str]:
        """The words of the command."""
        return [
            "snflow",
            "fit",
            self.recipe,
            "--out",
            str(out / self.name),
            "--epochs",
            str(self.epochs),
            *self.options,
        ]


# The recipes warm up over 10 epochs, the paper's: a short run would be nothing but warm-up. One epoch of it is kept,
# so that the paper's rate is what is measured; the second set keeps the paper's schedule to the letter.
QUICK = ("--schedule.warmup_epochs", "1")
RUNS = [
    *(Run(f"dense_{rule}", f"mnist_dense_{rule}", 10, QUICK) for rule in ("snf", "exact", "relative")),
    *(Run(f"dense_{rule}_warmup10", f"mnist_dense_{rule}", 10) for rule in ("snf", "exact", "relative")),
    *(Run(f"conv_{rule}", f"mnist_conv_{rule}", 2, QUICK) for rule in ("snf", "exact")),
]


INTRODUCTION = """
Written by `benchmarks/mnist_short.py` on {cores} cores ({processor}), nothing else running, one seed, commit
`{commit:.12}`. **Short runs**: the paper trains the dense models for 6000 epochs and the convolutional ones for 1000.
NLL is exact, in nats of the integer images: dequantization, scaling and logit counted. The test NLL is that of the best
epoch by validation. Rows without `warmup10` warm up over one epoch instead of the paper's ten, so that nearly all
of the run has the paper's rate.
"""


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/mnist_short"), help="where the run folders go")
    parser.add_argument("--out", type=Path, default=Path("results/mnist_short"), help="where the table goes")
    arguments = parser.parse_args()
    for run in RUNS:
        words = run.command(arguments.runs)
        print("$", shlex.join(words), flush=True)
        subprocess.run([str(Path(sys.executable).parent / words[0]), *words[1:]], check=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = [collect(run, arguments.runs) for run in RUNS]
    (arguments.out / "runs.json").write_text(json.dumps({"machine": machine(), "runs": rows}, indent=1) + "\n")
    (arguments.out / "README.md").write_text(table(rows))


def collect(run: Run, runs: Path) -> dict[str, object]:
    """The summary and the epochs of one run."""
    folder = runs / run.name
    with (folder / "metrics.csv").open() as file:
        epochs = list(csv.DictReader(file))
    summary = json.loads((folder / "summary.json").read_text())
    return {"name": run.name, "command": shlex.join(run.command(runs)), "summary": summary, "epochs": epochs}


def machine() -> dict[str, object]:
    """What the seconds were measured on, and at which commit."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    return {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system(), "commit": commit}


def table(rows: list[dict[str, object]]) -> str:
    """The Markdown page."""
    lines = [
        "# MNIST, short runs",
        "",
        *textwrap.wrap(INTRODUCTION.format(**machine()), 119),
        "",
        "| run | epochs | exact test NLL, nats | bits/dim | s / epoch, median | training, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        s = row["summary"]
        lines.append(
            f"| {row['name']} | {s['epochs']} | {s['test_nll_nats']:.1f} | {s['test_bits_per_dim']:.4f} "
            f"| {s['seconds_per_epoch_median']:.1f} | {s['train_seconds']:.0f} |"
        )
    lines += ["", "## By epoch", ""]
    lines += ["Reconstruction error and inverse residual are those of the worst layer.", ""]
    for row in rows:
        lines += [f"### {row['name']}", "", f"`{row['command']}`", ""]
        lines += ["| epoch | exact validation NLL, nats | ‖g(f(x)) − x‖² | ‖RW − I‖/√D | s |", "|---|---|---|---|---|"]
        for epoch in row["epochs"]:
            lines.append(
                f"| {epoch['epoch']} | {number(epoch['validation_nll'], '.1f')} | "
                f"{number(epoch['reconstruction_error'], '.3g')} | {number(epoch['inverse_residual'], '.3g')} | "
                f"{number(epoch['train_seconds'], '.1f')} |"
            )
        lines.append("")
    return "\n".join(lines)


def number(text: str, form: str) -> str:
    """A cell: a number, or a dash where there is none."""
    return format(float(text), form) if text else "–"


if __name__ == "__main__":
    main()
