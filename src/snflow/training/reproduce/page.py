"""``results/NAME/README.md``: the runs of a target as a Markdown table, beside the paper's numbers."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path

from snflow.training.reproduce.comparison import against_exact
from snflow.training.reproduce.records import BESIDE, Record
from snflow.training.reproduce.targets import Row, Target

_HEAD = "| row | epochs | seeds | exact test {unit} | paper | difference | training | settings |\n|" + "---|" * 8

COLUMNS = 12

_ANGLES = {
    "likelihood_angle": "Angle of the likelihood's gradient",
    "angle": "Angle of the whole training gradient, the penalty's pull in it",
}
"""Columns of ``layers.csv`` and what they are; the first is what the learned inverse approximates."""


def write_page(path: Path, name: str, target: Target, records: Sequence[Record], picture: str | None) -> None:
    """Write the page of a target whose runs are trained flows.

    A line is the mean ± sample standard deviation over the seeds of one row with one set of settings; the hash of the
    settings is in its last column, and runs with different settings never share a line.

    Args:
        path: the file.
        name: the target's.
        target: what it shows.
        records: its runs.
        picture: the name of the picture beside the page, ``None`` for none.
    """
    lines = [f"# {title_of(name)}: {target.title}", ""]
    if target.remark:
        lines += [target.remark, ""]
    lines += [
        f"Written by `snflow reproduce {name}` on {_listed({r.machine for r in records})}, at commit "
        f"{_listed({_commit(r) for r in records})}. NLL is exact, that of the best epoch by validation"
        + (
            ", in nats of the integer images: dequantization, scaling and logit counted."
            if target.unit == "nats"
            else "."
        ),
        "",
        *table(target, records),
        "",
        *_missing(target, records),
        *against_exact(target, records),
        *by_epoch(target, records),
    ]
    if picture is not None:
        lines += [f"![{target.title}]({picture})", ""]
    lines += ["## Commands", "", *_commands(records), ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def table(target: Target, records: Sequence[Record]) -> list[str]:
    """The lines of a Markdown table: a line for each row and each of its settings.

    Example:
        >>> len(table(Target("nothing", "likelihood", ()), []))
        2
    """
    head = _HEAD.format(unit="NLL, nats" if target.unit == "nats" else "NLL, bits/dim").splitlines()
    return head + [_line(row, group, target.unit) for row in target.rows for group in grouped(row, records)]


def by_epoch(target: Target, records: Sequence[Record]) -> list[str]:
    """Exact validation NLL, or for angles the worst layer's, a line a run and a column an epoch, at most twelve."""
    if target.kind != "angle":
        return _courses("Exact validation NLL", [(r, _validation(r)) for r in records])
    lines = []
    for column, what in _ANGLES.items():
        lines += _courses(f"{what}, degrees, worst layer", [(r, _worst(r, column)) for r in records])
    return lines


def _courses(what: str, courses: Sequence[tuple[Record, dict[float, float]]]) -> list[str]:
    """A table for the runs of one model and one length: those are the ones to compare epoch by epoch."""
    comparable: dict[tuple[str, int], list[tuple[Record, dict[float, float]]]] = {}
    for record, course in courses:
        if course:
            comparable.setdefault((record.row.split("_")[0], record.epochs), []).append((record, course))
    lines = [f"## {what}, by epoch", ""] if comparable else []
    for (model, length), runs in sorted(comparable.items(), key=lambda item: item[0]):
        epochs = sorted({epoch for _, course in runs for epoch in course})
        shown = sorted({epochs[round(i * (len(epochs) - 1) / (COLUMNS - 1))] for i in range(COLUMNS)})
        lines.append(f"| {model}, {length} epochs | {' | '.join(f'{e:g}' for e in shown)} |")
        lines.append("|" + "---|" * (1 + len(shown)))
        for record, course in runs:
            numbers = " | ".join(f"{course[e]:.2f}" if e in course else "–" for e in shown)
            lines.append(f"| {record.row}, seed {record.seed} | {numbers} |")
        lines.append("")
    return lines


def _validation(record: Record) -> dict[float, float]:
    return {row["epoch"]: row["validation_nll"] for row in record.metrics if row["validation_nll"] is not None}


def _worst(record: Record, column: str) -> dict[float, float]:
    course: dict[float, float] = {}
    for row in record.layers:
        if row.get(column) is not None:
            course[row["epoch"]] = max(course.get(row["epoch"], 0.0), row[column])
    return course


def title_of(name: str) -> str:
    """The name as a heading.

    Example:
        >>> title_of("table1")
        'Table 1'
    """
    word = name.rstrip("0123456789")
    return f"{word.capitalize()} {name.removeprefix(word)}"


def grouped(row: Row, records: Sequence[Record]) -> list[list[Record]]:
    """The runs of a row, those of the same settings together, by their epochs."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.row == row.name:
            groups.setdefault(record.settings, []).append(record)
    return sorted(groups.values(), key=lambda group: group[0].epochs)


def mean_and_deviation(values: Sequence[float], digits: int) -> str:
    """Mean ± sample standard deviation, which takes two values or more.

    Example:
        >>> mean_and_deviation([1.0, 2.0], 1), mean_and_deviation([1.0], 1), mean_and_deviation([], 1)
        ('1.5 ± 0.7', '1.0', '–')
    """
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def _line(row: Row, group: Sequence[Record], unit: str) -> str:
    first = group[0]
    key, digits = ("test_nll_nats", 2) if unit == "nats" else ("test_bits_per_dim", 3)
    found = [float(r.summary[key]) for r in group if r.summary is not None and r.summary[key] is not None]
    lost = sum(r.diverged is not None for r in group)
    shown = mean_and_deviation(found, digits) if found else "diverged"
    if lost and found:
        shown += f", {lost} of {len(group)} diverged"
    epochs = f"**short: {first.epochs}** of {first.full_epochs}" if first.short else str(first.epochs)
    paper = "–" if row.paper is None else f"{row.paper:g}"
    apart = f"{statistics.fmean(found) - row.paper:+.{digits}f}" if found and row.paper is not None else "–"
    minutes = [r.summary["train_seconds"] / 60 for r in group if r.summary is not None]
    time = f"{statistics.fmean(minutes):.1f} min{_circumstances(group)}" if minutes else "–"
    return f"| {row.name} | {epochs} | {len(group)} | {shown} | {paper} | {apart} | {time} | `{first.settings}` |"


def _circumstances(group: Sequence[Record]) -> str:
    """What a time must be read with, in brackets: another device than the processor, or other work beside."""
    used = {r.machine.split(",")[0] for r in group if r.summary and str(r.summary["device"]).startswith("cuda")}
    used |= {BESIDE for r in group if BESIDE in r.machine}
    return f" ({_listed(used)})" if used else ""


def _missing(target: Target, records: Sequence[Record]) -> list[str]:
    names = {record.row for record in records}
    absent = [row.name for row in target.rows if row.name not in names]
    return [f"Not run: {', '.join(absent)}.", ""] if absent else []


def _commands(records: Sequence[Record]) -> list[str]:
    lines = []
    for record in records:
        lines.append(f"- {record.row}, seed {record.seed}: `{record.command}`")
        if record.diverged is not None:
            lines.append(f"  ended with: {record.diverged}")
    return lines


def _listed(words: set[str]) -> str:
    return ", ".join(sorted(words)) or "–"


def _commit(record: Record) -> str:
    return f"`{record.commit[:12]}`" if record.commit else "unknown"


def said(words: Sequence[str]) -> str:
    """The command as it would be typed.

    Example:
        >>> said(["table1", "--rows", "dense_*"])
        "snflow reproduce table1 --rows 'dense_*'"
    """
    return shlex.join(["snflow", "reproduce", *words])
