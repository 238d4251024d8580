"""What came of one run, as a line of ``runs.jsonl``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

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
