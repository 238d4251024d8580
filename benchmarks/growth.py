"""Growth of cost: time and peak memory of forward and backward by dimension, batch, channels, image side and depth.

python benchmarks/growth.py --seconds 0.3 --out results/growth

The exponent is the slope of log cost against log size over the upper half of the sizes. The machine must be idle.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import snflow
from measurement import Timed, commit, interleaved, peak_mebibytes
from snflow.cli.main import keep_freed_memory

BATCH = 100
Case = tuple[list[snflow.Bijection], tuple[int, ...]]
"""Layers, and the shape of a batch for them."""


@dataclass(frozen=True)
class Axis:
    """A size that grows, and the layers of each size by the name of their gradient rule."""

    name: str
    what: str
    sizes: Sequence[int]
    make: Callable[[int], dict[str, Case]]


def _dense(size: int, batch: int = BATCH, depth: int = 1) -> dict[str, Case]:
    return {
        "self-normalizing": ([snflow.SelfNormalizingDense(size) for _ in range(depth)], (batch, size)),
        "exact": ([snflow.Dense(size) for _ in range(depth)], (batch, size)),
    }


def _conv(channels: int, side: int, depth: int = 1) -> dict[str, Case]:
    shape = (BATCH, channels, side, side)
    return {
        "self-normalizing": ([snflow.SelfNormalizingConv2d(channels, 3) for _ in range(depth)], shape),
        "exact": ([snflow.Conv2d(channels, 3) for _ in range(depth)], shape),
    }


AXES = (
    Axis("dimension", "dense layer, B = 100, by D", tuple(range(32, 3105, 96)), _dense),
    Axis("batch", "dense layer, D = 784, by B", (25, 50, 100, 200, 400, 800, 1600), lambda n: _dense(784, n)),
    Axis("dense_depth", "dense layers, D = 256, B = 100, by depth", (1, 2, 4, 8, 16), lambda n: _dense(256, depth=n)),
    Axis("channels", "3×3 convolution on 8×8, B = 100, by channels", (2, 4, 8, 16, 32), lambda n: _conv(n, 8)),
    Axis("side", "3×3 convolution of 2 channels, B = 100, by side", (8, 12, 16, 24, 32), lambda n: _conv(2, n)),
    Axis("conv_depth", "3×3 convolutions of 4 channels on 8×8, by depth", (1, 2, 4, 8, 16), lambda n: _conv(4, 8, n)),
)


def step(layers: Sequence[snflow.Bijection], shape: tuple[int, ...]) -> Callable[[], object]:
    """Forward and backward pass, with fresh gradients of x and of the weights."""
    chain = snflow.Chain(layers).eval()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    chain(x)  # computes the first log-determinants
    chain.train()

    def act() -> None:
        for parameter in chain.parameters():
            parameter.grad = None
        z, log_det = chain(x.detach().requires_grad_())
        (0.5 * z.square().flatten(1).sum(1) - log_det).mean().backward()

    return act


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """The slope of log cost against log size over the upper half of the sizes."""
    first = len(sizes) // 2
    xs, ys = [math.log(n) for n in sizes[first:]], [math.log(c) for c in costs[first:]]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def measured(axis: Axis, seconds: float) -> dict[str, Any]:
    """Milliseconds and MiB of each size, by gradient rule."""
    found: dict[str, dict[str, list[float]]] = {}
    for size in axis.sizes:
        torch.manual_seed(0)
        acts = {name: step(*case) for name, case in axis.make(size).items()}
        timed = {name: Timed(act) for name, act in acts.items()}
        interleaved(list(timed.values()), seconds, "cpu")
        for name, act in acts.items():
            costs = found.setdefault(name, {"ms": [], "mib": []})
            costs["ms"].append(timed[name].median_ms)
            costs["mib"].append(peak_mebibytes(act))
        print(axis.name, size, {name: round(costs["ms"][-1], 2) for name, costs in found.items()}, flush=True)
    for costs in found.values():
        costs["exponents"] = [exponent(axis.sizes, costs[unit]) for unit in ("ms", "mib")]
    return {"axis": axis.name, "what": axis.what, "sizes": list(axis.sizes), "rules": found}


def picture(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw time and memory of each axis, on logarithmic scales."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, places = plt.subplots(2, len(rows), figsize=(3.2 * len(rows), 5.6), layout="constrained", squeeze=False)
    for column, row in enumerate(rows):
        for line, unit in enumerate(("ms", "mib")):
            place = places[line][column]
            for number, (name, costs) in enumerate(row["rules"].items()):
                label = f"{name}, {costs['exponents'][line]:.2f}"
                place.loglog(row["sizes"], costs[unit], marker="o", markersize=3, color=f"C{number}", label=label)
            place.legend(title="exponent", fontsize=7, title_fontsize=7)
            place.set_title(row["what"], fontsize=8) if line == 0 else None
            place.set_ylabel({"ms": "milliseconds", "mib": "MiB at the peak"}[unit], fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def page(rows: Sequence[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The Markdown page."""
    text = f"""# How cost grows

Forward and backward pass of single kinds of layers, medians of interleaved runs; peak memory of tensors in MiB above
what stays alive between steps. The exact gradient of a convolution uses the dense matrix. The exponent is fitted over
the upper half of the sizes. Written by
`{facts["command"]}` on {facts["cores"]} cores ({facts["machine"]}), {facts["threads"]} threads, at commit
`{facts["commit"]:.12}`, torch {facts["torch"]}. All sizes are in `runs.jsonl`.

| what | rule | from | to | ms | exponent of time | MiB | exponent of memory |
|---|---|---|---|---|---|---|---|
"""
    for row in rows:
        for name, costs in row["rules"].items():
            ends = " → ".join(f"{costs['ms'][place]:.3g}" for place in (0, -1))
            memory = " → ".join(f"{costs['mib'][place]:.3g}" for place in (0, -1))
            time, space = costs["exponents"]
            text += f"| {row['what']} | {name} | {row['sizes'][0]} | {row['sizes'][-1]} "
            text += f"| {ends} | {time:.2f} | {memory} | {space:.2f} |\n"
    return text + "\n![Time and memory by size](picture.png)\n"


def main() -> None:
    """Measure every axis, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.3, help="how long each point is measured")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/growth"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    facts = {
        "command": f"python benchmarks/growth.py {' '.join(sys.argv[1:])}".strip(),
        "commit": commit(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": arguments.threads,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = [measured(axis, arguments.seconds) for axis in AXES]
    (arguments.out / "runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (facts, *rows)))
    (arguments.out / "README.md").write_text(page(rows, facts))
    picture(rows, arguments.out / "picture.png")


if __name__ == "__main__":
    main()
