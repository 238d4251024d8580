"""The same flows from this library and its peers, trained in the same way: test NLL and seconds per epoch.

    SNFLOW_DATA=DATA .venv/bin/python benchmarks/peer_densities.py [--tasks two_moons,ccpp] [--kinds maf] [--seeds 3]

It needs the peers: `pip install zuko nflows normflows torchflows`. All libraries of one task, kind and seed train in
turns of one epoch, so that other load on the machine affects all of them. Finished runs are read.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
import warnings
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from measurement import commit
from peers import HAVE, KINDS, LAYERS, LIBRARIES, WIDTH, Model
from snflow.data import table, toy

BATCH, PEAK_RATE, CLIP = 512, 2e-3, 10.0


@dataclass(frozen=True)
class Task:
    """A dataset and the number of epochs."""

    epochs: int
    toy: str | None = None
    path: str = ""
    drop: tuple[int, ...] = ()

    def load(self, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Load the three splits of this seed, standardized by the mean and standard deviation of the training split."""
        if self.toy is not None:
            data = toy(self.toy, seed=seed)  # type: ignore[arg-type]
        else:
            data = table(self.path, drop_columns=list(self.drop) or None, seed=seed)
        mean, scale = data.train.mean(0), data.train.std(0)
        return tuple(((split - mean) / scale).float() for split in (data.train, data.validation, data.test))  # type: ignore[return-value]


TASKS = {
    "two_moons": Task(30, toy="two_moons"),
    "checkerboard": Task(30, toy="checkerboard"),
    "ccpp": Task(40, path="uci/CCPP.csv"),
    "magic": Task(25, path="uci/magic04.data", drop=(10,)),
    "casp": Task(15, path="uci/CASP.csv"),
}


SLOW = {"ffjord": 3}
"""Kinds that are trained for a fraction of the epochs: each step solves two differential equations."""


def epochs_of(task: Task, kind: str) -> int:
    """The number of epochs of a kind on a task."""
    return task.epochs // SLOW.get(kind, 1)


@dataclass
class Trainee:
    """One library's flow during training."""

    model: Model
    steps: int
    best: float = math.inf
    test: float = math.nan
    diverged: bool = False
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(self.model.parameters(), PEAK_RATE)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, self.steps)

    def epoch(self, batches: list[Tensor]) -> None:
        """Train on each batch once, and record the time."""
        if self.diverged:
            return
        self.model.train()
        start = time.perf_counter()
        for x in batches:
            loss = -self.model.log_prob(x).mean()
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()
            self.schedule.step()
            self.model.after_step()
        self.seconds.append(time.perf_counter() - start)

    def validate(self, validation: Tensor, test: Tensor) -> None:
        """Keep the test NLL of the best epoch by validation."""
        self.model.eval()
        # one peer needs gradients for its log-determinants and enables them itself
        with torch.no_grad():
            nll = -float(self.model.log_prob(validation).detach().double().mean())
            if not math.isfinite(nll):
                self.diverged = True
            elif nll < self.best:
                self.best, self.test = nll, -float(self.model.log_prob(test).detach().double().mean())


def train(task: Task, kind: str, seed: int, libraries: list[str], epochs: int) -> dict[str, dict[str, Any]]:
    """Train one kind of flow from every library on one task, in turns."""
    train_set, validation, test = task.load(seed)
    steps = epochs * (len(train_set) // BATCH)
    trainees = {}
    for name in libraries:
        torch.manual_seed(seed)
        trainees[name] = Trainee(LIBRARIES[name](kind, train_set.shape[1]), steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(train_set), generator=generator)
        batches = [train_set[rows] for rows in order.split(BATCH) if len(rows) == BATCH]
        for trainee in trainees.values():
            trainee.epoch(batches)
            trainee.validate(validation, test)
    return {
        name: {
            "test_nll": trainee.test,
            "diverged": trainee.diverged,
            "epoch_seconds": statistics.median(trainee.seconds),
            "parameters": trainee.model.parameters_trained(),
            "epochs": epochs,
        }
        for name, trainee in trainees.items()
    }


def main() -> None:
    """Train the missing runs, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/peers"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # from the peers
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "runs.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(row["task"], row["kind"], row["seed"], row["library"]) for row in rows}
    for seed in range(arguments.seeds):
        for task in arguments.tasks.split(","):
            for kind in arguments.kinds.split(","):
                missing = [name for name in HAVE.get(kind, tuple(LIBRARIES)) if (task, kind, seed, name) not in done]
                if not missing:
                    continue
                for name, outcome in train(TASKS[task], kind, seed, missing, epochs_of(TASKS[task], kind)).items():
                    row = {"task": task, "kind": kind, "seed": seed, "library": name, **outcome, **_versions(name)}
                    rows.append(row)
                    with file.open("a") as out:
                        out.write(json.dumps(row) + "\n")
                    print(f"{task:14} {kind:22} {seed} {name:11} {outcome['test_nll']:9.4f}", flush=True)
    (arguments.out / "README.md").write_text(page(rows))


def _versions(library: str) -> dict[str, str]:
    return {"version": version(library), "torch": torch.__version__, "commit": commit()}


def page(rows: list[dict[str, Any]]) -> str:
    """The page: a table per kind of flow, with a row per task and a column per library."""
    versions = sorted({f"{row['library']} {row['version']}" for row in rows})
    commits = ", ".join(sorted({f"`{row['commit']:.12}`" for row in rows}))
    text = f"""# The same flows in this library and its peers

{LAYERS} layers, networks of two hidden layers of {WIDTH}, splines of 8 pieces on [−5, 5]; Adam at a peak of {PEAK_RATE}
with cosine decay, batches of {BATCH}, gradient norm clipped at {CLIP:g}; the same batches for all. Test NLL in nats of
the standardized data, at the best epoch by validation, mean ± standard deviation over seeds, which also choose the
splits; then the median seconds per epoch on one thread, the libraries taking turns by epochs. `benchmarks/peers.py`
lists what could not be made equal. These are **short** runs: they compare libraries, not flows.

Written by `SNFLOW_DATA=DATA python benchmarks/peer_densities.py` on {os.cpu_count()} cores
({platform.machine()}), at commit {commits}, torch {torch.__version__}; {", ".join(versions)}.
"""
    for kind in KINDS:
        some = [row for row in rows if row["kind"] == kind]
        if not some:
            continue
        names = [name for name in LIBRARIES if any(row["library"] == name for row in some)]
        text += f"\n## {kind}\n\n| data | epochs | seeds | {' | '.join(names)} |\n|---|---|---|{'---|' * len(names)}\n"
        for task in TASKS:
            here = [row for row in some if row["task"] == task]
            if not here:
                continue
            seeds = len({row["seed"] for row in here})
            cells = [_cell([row for row in here if row["library"] == name]) for name in names]
            text += f"| {task} | {epochs_of(TASKS[task], kind)} | {seeds} | {' | '.join(cells)} |\n"
        task = some[0]["task"]
        counts = {row["library"]: str(row["parameters"]) for row in some if row["task"] == task}
        text += f"| parameters, {task} | | | {' | '.join(counts[name] for name in names)} |\n"
    return text


def _cell(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    fine = [row["test_nll"] for row in rows if math.isfinite(row["test_nll"])]
    if not fine:
        return "diverged"
    spread = f" ± {statistics.stdev(fine):.3f}" if len(fine) > 1 else ""
    lost = sum(row["diverged"] for row in rows)
    note = f", {lost} diverged" if lost else ""
    return f"{statistics.mean(fine):.3f}{spread}{note}; {statistics.median(r['epoch_seconds'] for r in rows):.2f} s"


if __name__ == "__main__":
    main()
