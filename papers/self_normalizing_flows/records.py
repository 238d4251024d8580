"""Results of runs, read from their folders and compared with exact training."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from targets import Target

BESIDE = "other work beside"
"""Of a machine that was busy: the seconds say little, the rest is as it would have been."""


@dataclass(frozen=True)
class Record:
    """One run of one row.

    Attributes:
        row: the row's name.
        seed: of the run.
        settings: hash of the recipe without its seed: lines of a table with different settings are never averaged.
        epochs: passes that were asked for.
        full_epochs: passes of the recipe as it is: fewer are a short run.
        folder: the run folder.
        command: what carries it out.
        commit: of the code, ``None`` outside of a checkout.
        machine: processor, cores and system; with ``BESIDE`` put behind, by hand, where that was so.
        summary: that of the run; ``None`` where it diverged.
        diverged: the error that ended it.
        metrics: the rows of metrics.csv, thinned.
        layers: those of layers.csv, thinned.
        changes: values by ``section.option`` that the command line put over the row's.
    """

    row: str
    seed: int
    settings: str
    epochs: int
    full_epochs: int
    folder: str
    command: str
    commit: str | None
    machine: str
    summary: dict[str, Any] | None
    diverged: str | None
    metrics: list[dict[str, Any]]
    layers: list[dict[str, Any]]
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int]:
        """Row, settings and seed: what tells two runs apart."""
        return self.row, self.settings, self.seed

    @property
    def short(self) -> bool:
        """Whether the recipe asks for more epochs."""
        return self.epochs < self.full_epochs


def read_records(path: Path) -> list[Record]:
    """The runs in ``runs.jsonl``; none where there is no such file."""
    if not path.is_file():
        return []
    return [Record(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line]


def write_records(path: Path, records: list[Record]) -> None:
    """Write ``runs.jsonl`` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}")
    lines = (json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(path)


def merged(old: list[Record], new: list[Record]) -> list[Record]:
    """The old runs with the new ones in their places; a run of the same row, settings and seed replaces the old one.

    Example:
        >>> merged([], [])
        []
    """
    by_key = {record.key: record for record in (*old, *new)}
    return list(by_key.values())


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
