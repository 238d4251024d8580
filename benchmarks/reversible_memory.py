"""Peak memory of a training step by depth, plain and reversible, each in its own process.

.venv/bin/python benchmarks/reversible_memory.py
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

from measurement import commit

DEPTHS, ROWS, FEATURES, WIDTH = (4, 16, 64), 10_000, 64, 64
OUT = Path("results/memory")

STEP = """
import sys, torch
from snflow import ActNorm, AffineTransformer, Chain, Coupling, Permutation, Reversible
from snflow.bijections.coupling import alternating
from snflow.nets import MLP
torch.set_num_threads(1)
torch.manual_seed(0)
kind, depth, rows, features, width = sys.argv[1], *map(int, sys.argv[2:])
half = features // 2
masks = [alternating(features, number % 2) for number in range(depth)]
layers = []
for mask in masks:
    coupling = Coupling(mask, AffineTransformer(), MLP(half, 2 * half, width=width))
    layers += [ActNorm(features, vectors=True), coupling, Permutation.reversed(features)]
chain = Chain(layers)
def peak():  # of this process alone: getrusage starts at the peak of the parent
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
flow = Reversible(chain) if kind == "reversible" else chain
def step(count):
    z, log_det = flow(torch.randn(count, features))
    (0.5 * z.square().sum(1) - log_det).mean().backward()
step(100)  # initializes the act-norms; two rows would give them arbitrary scales
before = peak()
step(rows)
print(peak() - before)
"""


def peak(kind: str, depth: int) -> float:
    """The peak of a step above the program with its weights and gradients, in MiB."""
    words = [sys.executable, "-c", STEP, kind, *map(str, (depth, ROWS, FEATURES, WIDTH))]
    # return freed tensors to the system at once, so that only live ones are measured
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout) / 1024


def main() -> None:
    """Measure and write the page."""
    rows = [{"kind": kind, "depth": d, "mib": peak(kind, d)} for kind in ("plain", "reversible") for d in DEPTHS]
    OUT.mkdir(parents=True, exist_ok=True)
    facts = {"commit": commit(), "torch": torch.__version__, "machine": platform.machine(), "cores": os.cpu_count()}
    (OUT / "runs.jsonl").write_text("\n".join(json.dumps(line) for line in ({"machine": facts}, *rows)) + "\n")
    found = {(row["kind"], row["depth"]): row["mib"] for row in rows}
    lines = "\n".join(f"| {d} | {found['plain', d]:.0f} | {found['reversible', d]:.0f} |" for d in DEPTHS)
    (OUT / "README.md").write_text(f"""# Peak memory by depth: a chain, plain and reversible

Act-norm, affine coupling and permutation of {FEATURES} features, two hidden layers of {WIDTH}, {ROWS:,} rows in
float32: peak memory of one forward and backward pass in MiB, above the program with its weights and gradients.
Written by `python benchmarks/reversible_memory.py` at commit `{commit():.12}`, torch {torch.__version__}.

| couplings | `Chain` | `Reversible` |
|---|---|---|
{lines}
""")


if __name__ == "__main__":
    main()
