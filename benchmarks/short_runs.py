"""A named set of runs, one after the other, and a table of their results.

    .venv/bin/python benchmarks/short_runs.py digits
    SNFLOW_DATA=DATA .venv/bin/python benchmarks/short_runs.py mnist

Each run is one `snflow fit` command, which the page lists. A stopped run is resumed; a finished one is read.
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
from pathlib import Path
from typing import Any

from measurement import commit
from studies import STUDIES, Run, Study

EXIT_DIVERGED = 3
DIVERGED = "diverged.txt"

MEASURED = """NLL is exact, in nats of the raw data; for integer images, dequantization, scaling and logit are included.
The test NLL is that of the best epoch by validation. Written by `benchmarks/short_runs.py {study}` on {cores} cores
({processor}), {load}, at commit `{commit:.12}`."""


def main() -> None:
    """Run the missing runs, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES, help="the set of runs")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run folders")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the pages")
    parser.add_argument("--busy", action="store_true", help="note on the page that the machine has other work")
    arguments = parser.parse_args()
    study, facts = STUDIES[arguments.study], machine(arguments.busy)
    runs, out = arguments.runs / arguments.study, arguments.out / arguments.study
    for run in study.runs:
        words = run.command(runs)
        print("$", shlex.join(words), flush=True)
        run_command(words, runs / run.name)
    out.mkdir(parents=True, exist_ok=True)
    rows = [collect(run, runs) for run in study.runs]
    lines = [json.dumps({"machine": facts}), *map(json.dumps, rows)]
    (out / "runs.jsonl").write_text("\n".join(lines) + "\n")
    (out / "README.md").write_text(page(arguments.study, study, rows, facts))


def run_command(words: list[str], folder: Path) -> None:
    """Run one command; a run that diverges is a result too and is kept with its message."""
    if (folder / DIVERGED).exists():
        return
    done = subprocess.run([str(Path(sys.executable).parent / words[0]), *words[1:]], stderr=subprocess.PIPE, text=True)
    print(done.stderr, file=sys.stderr, end="", flush=True)
    if done.returncode == EXIT_DIVERGED:
        (folder / DIVERGED).write_text(done.stderr.strip().splitlines()[-1] + "\n")
    else:
        done.check_returncode()


def machine(busy: bool) -> dict[str, Any]:
    """The machine and the commit."""
    load = "with other jobs running, so that the times are unreliable" if busy else "otherwise idle"
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "commit": commit(),
        "load": load,
    }


def collect(run: Run, runs: Path) -> dict[str, Any]:
    """The summary and the epochs of one run."""
    folder = runs / run.name
    with (folder / "metrics.csv").open() as file:
        epochs = list(csv.DictReader(file))
    with (folder / "layers.csv").open() as file:
        layers = list(csv.DictReader(file))
    row: dict[str, Any] = {"name": run.name, "command": shlex.join(run.command(runs))}
    if (folder / DIVERGED).exists():
        row["diverged"] = (folder / DIVERGED).read_text().strip()
    else:
        row["summary"] = json.loads((folder / "summary.json").read_text())
    return {**row, "epochs": epochs, "layers": layers}


def page(name: str, study: Study, rows: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The Markdown page: one row per run, then about ten epochs of each run."""
    text = f"{study.introduction} {MEASURED.format(study=name, **facts)}"
    lines = [f"# {study.title}", "", *textwrap.wrap(" ".join(text.split()), 119), ""]
    lines += ["| run | epochs | exact test NLL, nats | bits/dim | s / epoch, median | training, s | slowest step, s |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in rows:
        if "diverged" in row:
            lines.append(f"| {row['name']} | {len(row['epochs']) - 1} | diverged | – | – | – | – |")
            continue
        s = row["summary"]
        bits = "–" if s["test_bits_per_dim"] is None else f"{s['test_bits_per_dim']:.4f}"
        lines.append(
            f"| {row['name']} | {s['epochs']} | {s['test_nll_nats']:.3f} | {bits} "
            f"| {s['seconds_per_epoch_median']:.2f} | {s['train_seconds']:.0f} | {slowest(row)} |"
        )
    lines += ["", "## By epoch", "", "Error, residual, angle and λ are those of the worst layer.", ""]
    for row in rows:
        lines += [f"### {row['name']}", "", f"`{row['command']}`", ""]
        if "diverged" in row:
            lines += [*textwrap.wrap(f"It ended with: {row['diverged']}", 119), ""]
        lines += ["| epoch | exact validation NLL, nats | ‖g(f(x)) − x‖² | ‖I − RW‖/√D | angle, ° | λ | repairs | s |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        every = max(1, (len(row["epochs"]) - 1) // 10)
        lines += [by_epoch(epoch, row["layers"]) for epoch in row["epochs"][::every]]
        lines.append("")
    return "\n".join(lines)


def by_epoch(epoch: dict[str, str], layers: list[dict[str, str]]) -> str:
    """One row of the table of a run; a dash for a missing number."""
    angles = [row["angle"] for row in layers if row["epoch"] == epoch["epoch"] and row["angle"]]
    shown = {**epoch, "angle": max(angles, key=float, default="")}
    forms = {
        "validation_nll": ".2f",
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
    """The slowest step of a run; older versions did not record it."""
    steps = [float(epoch["slowest_step_seconds"]) for epoch in row["epochs"] if epoch.get("slowest_step_seconds")]
    return f"{max(steps):.2f}" if steps else "–"


if __name__ == "__main__":
    main()
