"""Pages of results, with the paper's numbers. Every page is derived from the jsonl file in its folder alone."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from records import BUSY, Record, read_records, read_times
from targets import TARGETS, Row, Target

COMMAND = "python papers/self_normalizing_flows/reproduce.py"
COLUMNS = 12
"""Most epochs shown in a table of runs by epoch."""

_HEAD = "| row | epochs | seeds | exact test {unit} | paper | difference | training | settings |\n|" + "---|" * 8
_EXACT_HEAD = (
    "| row | exact row | epochs | seeds | test NLL | exact | gap | training time / exact |",
    "|" + "---|" * 8,
)
_ANGLES = {
    "likelihood_angle": "Angle of the likelihood gradient",
    "angle": "Angle of the full training gradient, including the penalty",
}
"""Columns of ``layers.csv`` and their headings; the first is what the learned inverse approximates."""
_SAMPLE_TIMES = ("learned_1_ms", "exact_1_ms", "learned_100_ms", "exact_100_ms")


def write_page(folder: Path, name: str, target: Target) -> None:
    """Write ``README.md`` of a target from the ``runs.jsonl`` or ``times.jsonl`` beside it.

    Each line of a table of runs is the mean ± sample standard deviation over the seeds of one row with one set of
    settings. The last column is the hash of the settings; runs with different settings never share a line.

    Args:
        folder: the target's folder of results.
        name: the target's name.
        target: the table or figure.
    """
    lines = [f"# {title_of(name)}: {target.title}", ""]
    if target.remark:
        lines += [target.remark, ""]
    picture = [f"![{target.title}](picture.png)", ""] if (folder / "picture.png").is_file() else []
    if target.kind in ("time", "dimension"):
        facts, rows = read_times(folder / "times.jsonl")
        lines += [*_measured(name, target, facts), *_times(target, rows), "", *picture]
    else:
        records = read_records(folder / "runs.jsonl")
        lines += [
            *_run(name, target, records),
            *table(target, records),
            "",
            *_missing(target, records),
            *against_exact(target, records),
            *by_epoch(target, records),
            *picture,
            *_commands(records),
        ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def write_overview(page: Path, results: Path) -> None:
    """Rewrite the page of every target, and one page with all tables.

    Args:
        page: the overview's file.
        results: the folder that has a folder per target; a target without results is listed as not run.
    """
    lines = [
        "# The paper and this library",
        "",
        "The tables and figures of Keller et al. (2021), Self Normalizing Flows, that were reproduced here, with the",
        f"paper's numbers. `{COMMAND} overview` writes this page from the results;",
        "each title links to the runs, their commands, commits and machines. A run with fewer epochs than in the",
        "paper is marked as short.",
        "",
    ]
    for name, target in TARGETS.items():
        folder = results / name
        link = Path(os.path.relpath(folder, page.parent)).as_posix()
        title = f"{title_of(name)}: {target.title}"
        timed = target.kind in ("time", "dimension")
        if not (folder / ("times.jsonl" if timed else "runs.jsonl")).is_file():
            lines += [f"## {title}", "", "Not run yet.", ""]
            continue
        write_page(folder, name, target)
        content = (
            _times(target, read_times(folder / "times.jsonl")[1])
            if timed
            else table(target, read_records(folder / "runs.jsonl"))
        )
        lines += [f"## [{title}]({link}/README.md)", "", *content, ""]
        if (folder / "picture.png").is_file():
            lines += [f"![{target.title}]({link}/picture.png)", ""]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines), encoding="utf-8")


def title_of(name: str) -> str:
    """Turn the name of a target into a heading.

    Example:
        >>> title_of("table1")
        'Table 1'
    """
    word = name.rstrip("0123456789")
    return f"{word.capitalize()} {name.removeprefix(word)}"


def table(target: Target, records: Sequence[Record]) -> list[str]:
    """A Markdown table of runs: one line for each row and each of its settings.

    Example:
        >>> len(table(Target("nothing", "likelihood", ()), []))
        2
    """
    head = _HEAD.format(unit="NLL, nats" if target.unit == "nats" else "NLL, bits/dim").splitlines()
    return head + [_line(row, group, target.unit) for row in target.rows for group in grouped(row, records)]


def grouped(row: Row, records: Sequence[Record]) -> list[list[Record]]:
    """The runs of a row, grouped by their settings, in the order of their epochs."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.row == row.name:
            groups.setdefault(record.settings, []).append(record)
    return sorted(groups.values(), key=lambda group: group[0].epochs)


def mean_and_spread(values: Sequence[float], digits: int) -> str:
    """Mean ± sample standard deviation; the mean alone for a single value.

    Example:
        >>> mean_and_spread([1.0, 2.0], 1), mean_and_spread([1.0], 1), mean_and_spread([], 1)
        ('1.5 ± 0.7', '1.0', '–')
    """
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def against_exact(target: Target, records: Sequence[Record]) -> list[str]:
    """100 (NLL − NLL*) / |NLL*| percent: each row compared with its exact row, seed by seed.

    Args:
        target: gives, for each row, the row with the exact gradient.
        records: runs; two are compared if their epochs, changes on the command line and seeds are equal.

    Returns:
        A heading and a Markdown table, or nothing if there is nothing to compare.

    Example:
        >>> against_exact(Target("nothing", "likelihood", ()), [])
        []
    """
    lines = []
    for row in target.rows:
        by_settings: dict[str, list[tuple[Record, Record]]] = {}
        for record in records:
            twin = _twin(record, row.exact, records)
            if record.row == row.name and record.summary is not None and twin is not None:
                by_settings.setdefault(record.settings, []).append((record, twin))
        in_order = sorted(by_settings.values(), key=lambda found: found[0][0].epochs)
        key = "test_nll_nats" if target.unit == "nats" else "test_bits_per_dim"
        lines += [_comparison(pairs, key) for pairs in in_order]
    if not lines:
        return []
    return ["## Compared with the exact gradient, at equal epochs and settings", "", *_EXACT_HEAD, *lines, ""]


def by_epoch(target: Target, records: Sequence[Record]) -> list[str]:
    """Exact validation NLL, or the angle of the worst layer: one line per run, at most twelve epochs."""
    if target.kind != "angle":
        return _courses("Exact validation NLL", [(r, _validation(r)) for r in records])
    lines = []
    for column, heading in _ANGLES.items():
        lines += _courses(f"{heading}, degrees, worst layer", [(r, _worst(r, column)) for r in records])
    return lines


def times_table(target: Target, times: Sequence[Mapping[str, Any]]) -> list[str]:
    """Table 3, one line per row.

    Example:
        >>> len(times_table(Target("nothing", "time", ()), []))
        2
    """
    paper = {row.name: row.paper for row in target.rows}
    measured = {row["row"]: row for row in times}
    lines = [
        "| row | ms per batch | ratio | paper: ms | paper: ratio "
        "| sample of 1: learned | exact | sample of 100, each: learned | exact |",
        "|" + "---|" * 9,
    ]
    for row in times:
        exact = f"{row['row'].split('_')[0]}_exact"
        ratio = f"{measured[exact]['batch_ms'] / row['batch_ms']:.2f}" if exact in measured else "–"
        published, published_exact = paper.get(row["row"]), paper.get(exact)
        theirs = "–" if published is None else f"{published:g}"
        apart = "–" if published is None or published_exact is None else f"{published_exact / published:.2f}"
        samples = " | ".join("–" if row.get(c) is None else f"{row[c]:.3g}" for c in _SAMPLE_TIMES)
        lines.append(f"| {row['row']} | {row['batch_ms']:.1f} | {ratio} | {theirs} | {apart} | {samples} |")
    return lines


def dimensions_table(times: Mapping[str, Sequence[tuple[int, float]]]) -> list[str]:
    """Figure 4 as a table: one line per dimension, one column per gradient rule.

    Example:
        >>> dimensions_table({"exact": [(32, 1.0)], "snf": [(32, 0.5)]})[-1]
        '| 32 | 1.00 | 0.50 |'
    """
    names = list(times)
    lines = [f"| dimension | {' | '.join(names)} |", "|" + "---|" * (1 + len(names))]
    for position, (dimension, _) in enumerate(times[names[0]]):
        lines.append(f"| {dimension} | {' | '.join(f'{times[n][position][1]:.2f}' for n in names)} |")
    return lines


def _run(name: str, target: Target, records: Sequence[Record]) -> list[str]:
    unit = "; nats of the integer images, with dequantization, scaling and logit included."
    return [
        f"Run on {'; '.join(sorted({r.machine.replace(BUSY, 'busy') for r in records})) or '–'}, at commit "
        f"{_listed({_commit(r) for r in records})}. "
        f"`{COMMAND} {name}` repeats or continues the runs. NLL is exact, at the best epoch by validation"
        f"{unit if target.unit == 'nats' else '.'}",
        "",
    ]


def _measured(name: str, target: Target, facts: Mapping[str, Any]) -> list[str]:
    method = {
        "time": "A training batch of 100 is objective, gradient, gradient norm and Adam's step: medians of steps, "
        "interleaved in turns of ten. A sample goes from latents to pixels; an exact inverse is factorized once, "
        "beforehand. The ratio is the time of the exact row of the same model, divided by this row's.",
        "dimension": "Two dense layers and a training batch of 100, as in Table 3; medians of steps, taken in turns of "
        "ten, in milliseconds.",
    }[target.kind]
    return [
        f"Measured by `{facts['command']}` on {facts['machine']}, {facts['threads']} threads, device "
        f"{facts['device']}, at commit `{(facts['commit'] or 'unknown')[:12]}`. Repeat with `{COMMAND} {name}`.",
        "",
        method,
        "",
    ]


def _times(target: Target, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if target.kind == "time":
        return times_table(target, rows)
    return dimensions_table({row["row"]: [(int(d), float(ms)) for d, ms in row["ms_by_dimension"]] for row in rows})


def _line(row: Row, group: Sequence[Record], unit: str) -> str:
    first = group[0]
    key, digits = ("test_nll_nats", 2) if unit == "nats" else ("test_bits_per_dim", 3)
    found = [float(r.summary[key]) for r in group if r.summary is not None and r.summary[key] is not None]
    lost = sum(r.diverged is not None for r in group)
    shown = mean_and_spread(found, digits) if found else "diverged"
    if lost and found:
        shown += f", {lost} of {len(group)} diverged"
    epochs = f"**short: {first.epochs}** of {first.full_epochs}" if first.short else str(first.epochs)
    paper = "–" if row.paper is None else f"{row.paper:g}"
    apart = f"{statistics.fmean(found) - row.paper:+.{digits}f}" if found and row.paper is not None else "–"
    minutes = [r.summary["train_seconds"] / 60 for r in group if r.summary is not None]
    time = f"{statistics.fmean(minutes):.1f} min{_circumstances(group)}" if minutes else "–"
    return f"| {row.name} | {epochs} | {len(group)} | {shown} | {paper} | {apart} | {time} | `{first.settings}` |"


def _circumstances(group: Sequence[Record]) -> str:
    """The accelerator, or that the machine was busy, in parentheses: times depend on it."""
    used = {r.machine.split(",")[0] for r in group if r.summary and str(r.summary["device"]).startswith("cuda")}
    used |= {"busy machine" for r in group if BUSY in r.machine}
    return f" ({_listed(used)})" if used else ""


def _twin(record: Record, exact: str | None, records: Sequence[Record]) -> Record | None:
    found = (
        other
        for other in records
        if other.row == exact
        and other.summary is not None
        and (other.seed, other.epochs, other.changes) == (record.seed, record.epochs, record.changes)
    )
    return next(found, None)


def _comparison(pairs: Sequence[tuple[Record, Record]], key: str) -> str:
    def mean(which: int, name: str) -> float:
        return statistics.fmean(float((pair[which].summary or {})[name]) for pair in pairs)

    own, exact = mean(0, key), mean(1, key)
    ratio = mean(0, "train_seconds") / mean(1, "train_seconds")
    first, twin = pairs[0]
    return (
        f"| {first.row} | {twin.row} | {first.epochs} | {len(pairs)} | {own:.2f} | {exact:.2f} "
        f"| {100 * (own - exact) / abs(exact):+.2f} % | {ratio:.2f} |"
    )


def _courses(heading: str, courses: Sequence[tuple[Record, dict[float, float]]]) -> list[str]:
    """One table for the runs of one model and one number of epochs, which can be compared epoch by epoch."""
    comparable: dict[tuple[str, int], list[tuple[Record, dict[float, float]]]] = {}
    for record, course in courses:
        if course:
            comparable.setdefault((record.row.split("_")[0], record.epochs), []).append((record, course))
    lines = [f"## {heading}, by epoch", ""] if comparable else []
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


def _missing(target: Target, records: Sequence[Record]) -> list[str]:
    names = {record.row for record in records}
    absent = [row.name for row in target.rows if row.name not in names]
    return [f"Not run: {', '.join(absent)}.", ""] if absent else []


def _commands(records: Sequence[Record]) -> list[str]:
    lines = [
        "## Commands",
        "",
        "As they were run, at the commits above; CHANGELOG.md lists options renamed since.",
        "",
    ]
    for record in records:
        lines.append(f"- {record.row}, seed {record.seed}: `{record.command}`")
        if record.diverged is not None:
            lines.append(f"  ended with: {record.diverged}")
    return [*lines, ""]


def _listed(words: set[str]) -> str:
    return ", ".join(sorted(words)) or "–"


def _commit(record: Record) -> str:
    return f"`{record.commit[:12]}`" if record.commit else "unknown"
