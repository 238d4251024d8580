"""Pages of results beside the numbers of the paper."""

from __future__ import annotations

import json
import os
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from records import BESIDE, Record, against_exact, read_records
from reproduce import commit, machine
from targets import TARGETS, Row, Target

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


def write_overview(page: Path, results: Path) -> None:
    """Write the page.

    Args:
        page: the file.
        results: the folder with a folder for each target; one that is not there is said to be not run.
    """
    lines = [
        "# The paper and this library",
        "",
        "Every table and figure of Keller et al. (2021), Self Normalizing Flows, that was run here, beside its",
        "numbers. Written by `snflow reproduce overview` from the results; each title leads to the runs, their",
        "commands, commits and machine. A run of fewer epochs than the paper's is called short in its line.",
        "",
    ]
    for name, target in TARGETS.items():
        folder = results / name
        link = Path(os.path.relpath(folder, page.parent)).as_posix()
        there = (folder / "README.md").is_file()
        title = f"{title_of(name)}: {target.title}"
        lines += [f"## [{title}]({link}/README.md)" if there else f"## {title}", ""]
        lines += [*_content(folder, target), ""] if there else ["Not run yet.", ""]
        if (folder / "picture.png").is_file():
            lines += [f"![{target.title}]({link}/picture.png)", ""]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines), encoding="utf-8")


def _content(folder: Path, target: Target) -> list[str]:
    if target.kind not in ("time", "dimension"):
        return table(target, read_records(folder / "runs.jsonl"))
    rows = [json.loads(line) for line in (folder / "times.jsonl").read_text(encoding="utf-8").splitlines()[1:]]
    if target.kind == "time":
        return times_table(target, rows)
    return dimensions_table({row["row"]: [(int(d), float(ms)) for d, ms in row["ms_by_dimension"]] for row in rows})
