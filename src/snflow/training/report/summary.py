"""The final numbers of runs, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def show(console: Console, runs: Sequence[tuple[str, Path, dict[str, Any]]]) -> None:
    """Print exact test NLL, bits a dimension, time and place of each run.

    Args:
        console: where to.
        runs: name, folder and summary of each; with more than one, the first is compared with the others.
    """
    table = Table(box=box.SIMPLE_HEAD, title="exact test negative log-likelihood", title_justify="left")
    for heading, justify in (("run", "left"), ("nats", "right"), ("bits/dim", "right"), ("epochs", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    table.add_column("training", justify="right")
    table.add_column("s/epoch", justify="right")
    for name, _, summary in runs:
        bits = summary["test_bits_per_dim"]
        table.add_row(
            name,
            f"{summary['test_nll_nats']:.3f}",
            "–" if bits is None else f"{bits:.4f}",
            str(summary["epochs"]),
            f"{summary['train_seconds']:.1f} s",
            f"{summary['seconds_per_epoch_median']:.3g}",
        )
    console.print(table)
    if len(runs) > 1:
        first = runs[0]
        for name, _, other in runs[1:]:
            console.print(difference(first[0], first[2], name, other), highlight=False, markup=False, soft_wrap=True)
    for name, folder, _ in runs:
        line = f"{name}: pictures {folder / 'samples.png'} and {folder / 'curves.png'}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def difference(name: str, one: dict[str, Any], other_name: str, other: dict[str, Any]) -> str:
    """How far the NLL of one run is from that of another, in per cent of its size, and the ratio of their times.

    Example:
        >>> fast = {"test_nll_nats": 101.0, "train_seconds": 5.0}
        >>> difference("a", fast, "b", {"test_nll_nats": 100.0, "train_seconds": 10.0})
        'a against b: NLL +1.00 %, training time × 0.50'
    """
    gap = 100 * (one["test_nll_nats"] - other["test_nll_nats"]) / abs(other["test_nll_nats"])
    ratio = one["train_seconds"] / other["train_seconds"] if other["train_seconds"] else float("nan")
    return f"{name} against {other_name}: NLL {gap:+.2f} %, training time × {ratio:.2f}"
