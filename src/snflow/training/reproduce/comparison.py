"""Rows beside the row that has the exact gradient: the same epochs, changes and seeds, or no comparison."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from snflow.training.reproduce.records import Record
from snflow.training.reproduce.targets import Target

_HEAD = ("| row | exact row | epochs | seeds | test NLL | exact's | gap | training time / exact's |", "|" + "---|" * 8)


def against_exact(target: Target, records: Sequence[Record]) -> list[str]:
    """100 (NLL − NLL*) / |NLL*| per cent: the lines of a table of each row beside its exact one, seed by seed.

    Args:
        target: names, for each row, the row with the exact gradient.
        records: runs; two are compared where epochs, changes on the command line and seed are the same.

    Returns:
        A heading and a Markdown table, or nothing where nothing can be compared.

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
        lines += [_line(pairs, "test_nll_nats" if target.unit == "nats" else "test_bits_per_dim") for pairs in in_order]
    if not lines:
        return []
    return ["## Beside the exact gradient, at equal epochs and settings", "", *_HEAD, *lines, ""]


def _twin(record: Record, exact: str | None, records: Sequence[Record]) -> Record | None:
    found = (
        other
        for other in records
        if other.row == exact
        and other.summary is not None
        and (other.seed, other.epochs, other.changes) == (record.seed, record.epochs, record.changes)
    )
    return next(found, None)


def _line(pairs: Sequence[tuple[Record, Record]], key: str) -> str:
    def mean(which: int, name: str) -> float:
        return statistics.fmean(float((pair[which].summary or {})[name]) for pair in pairs)

    own, exact = mean(0, key), mean(1, key)
    ratio = mean(0, "train_seconds") / mean(1, "train_seconds")
    first, twin = pairs[0]
    return (
        f"| {first.row} | {twin.row} | {first.epochs} | {len(pairs)} | {own:.2f} | {exact:.2f} "
        f"| {100 * (own - exact) / abs(exact):+.2f} % | {ratio:.2f} |"
    )
