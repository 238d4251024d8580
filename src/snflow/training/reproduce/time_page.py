"""``results/NAME/README.md`` of the targets that are times."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snflow.training.reproduce.carrying_out import commit, machine
from snflow.training.reproduce.page import title_of
from snflow.training.reproduce.targets import Target

_COLUMNS = ("learned_1_ms", "exact_1_ms", "learned_100_ms", "exact_100_ms")


def write_times(
    folder: Path, name: str, target: Target, times: Sequence[dict[str, Any]], how: Mapping[str, Any]
) -> None:
    """Table 3: milliseconds a batch and a sample, and the ratio to the exact gradient of the same model.

    Args:
        folder: of the results.
        name: the target's.
        target: what it shows.
        times: a mapping a row.
        how: command, threads and device.
    """
    _keep(folder, times, how)
    lines = [
        *_opening(name, target, how),
        "A training batch of 100 is objective, gradient, gradient norm and Adam's step: medians of steps, ten at a "
        "time in turns. A sample goes from latents to pixels; the factors of an exact inverse are made once, before. "
        "The ratio is that of the exact row of the same model to this one.",
        "",
        *times_table(target, times),
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def times_table(target: Target, times: Sequence[dict[str, Any]]) -> list[str]:
    """The lines of Table 3, a line a row.

    Example:
        >>> len(times_table(Target("nothing", "time", ()), []))
        2
    """
    paper = {row.name: row.paper for row in target.rows}
    measured = {row["row"]: row for row in times}
    lines = [
        "| row | ms a batch | ratio | paper: ms | paper: ratio "
        "| sample of 1: learned | exact | sample of 100, each: learned | exact |",
        "|" + "---|" * 9,
    ]
    for row in times:
        exact = f"{row['row'].split('_')[0]}_exact"
        ratio = f"{measured[exact]['batch_ms'] / row['batch_ms']:.2f}" if exact in measured else "–"
        papers, whole = paper.get(row["row"]), paper.get(exact)
        theirs = "–" if papers is None else f"{papers:g}"
        apart = "–" if papers is None or whole is None else f"{whole / papers:.2f}"
        samples = " | ".join("–" if row.get(c) is None else f"{row[c]:.3g}" for c in _COLUMNS)
        lines.append(f"| {row['row']} | {row['batch_ms']:.1f} | {ratio} | {theirs} | {apart} | {samples} |")
    return lines


def write_dimensions(
    folder: Path, name: str, target: Target, times: Mapping[str, list[tuple[int, float]]], how: Mapping[str, Any]
) -> None:
    """Figure 4: milliseconds a batch by dimension, a column a rule."""
    _keep(folder, [{"row": row, "ms_by_dimension": points} for row, points in times.items()], how)
    lines = [
        *_opening(name, target, how),
        "Two dense layers, a training batch of 100 as in Table 3; medians of steps, ten at a time in turns, in "
        "milliseconds.",
        "",
        *dimensions_table(times),
        "",
        f"![{target.title}](picture.png)",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def dimensions_table(times: Mapping[str, list[tuple[int, float]]]) -> list[str]:
    """The lines of Figure 4 as a table: a line a dimension, a column a rule.

    Example:
        >>> dimensions_table({"exact": [(32, 1.0)], "snf": [(32, 0.5)]})[-1]
        '| 32 | 1.00 | 0.50 |'
    """
    names = list(times)
    lines = [f"| dimension | {' | '.join(names)} |", "|" + "---|" * (1 + len(names))]
    for position, (dimension, _) in enumerate(times[names[0]]):
        lines.append(f"| {dimension} | {' | '.join(f'{times[n][position][1]:.2f}' for n in names)} |")
    return lines


def _opening(name: str, target: Target, how: Mapping[str, Any]) -> list[str]:
    head = [f"# {title_of(name)}: {target.title}", ""]
    at = commit()
    where = f"{machine()}, {how['threads']} threads, device {how['device']}, at commit `{at[:12] if at else 'unknown'}`"
    return [*head, *([target.remark, ""] if target.remark else []), f"Written by `{how['command']}` on {where}.", ""]


def _keep(folder: Path, times: Sequence[dict[str, Any]], how: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"machine": machine(), "commit": commit(), **how}
    lines = [json.dumps(facts), *map(json.dumps, times)]
    (folder / "times.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
