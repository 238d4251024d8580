"""Records of runs and of measured times: what a page of results is derived from."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

BUSY = "other work beside"
"""Appended by hand to the machine of a run that shared it with other jobs, so that its times are unreliable."""


@dataclass(frozen=True)
class Record:
    """One run of one row.

    Attributes:
        row: name of the row.
        seed: seed of the run.
        settings: hash of the recipe without its seed; a line of a table never averages over different settings.
        epochs: number of epochs requested.
        full_epochs: number of epochs of the unchanged recipe; fewer make a short run.
        folder: the run folder.
        command: the command that trains it.
        commit: commit of the code, ``None`` outside a checkout.
        machine: processor, cores and system, followed by ``BUSY`` if the machine had other work.
        summary: summary of the run; ``None`` if it diverged.
        diverged: the error that ended it.
        metrics: rows of metrics.csv, thinned out.
        layers: rows of layers.csv, thinned out.
        changes: values by dotted name with which the command line overrode those of the row.
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
        """Row, settings and seed, which identify a run."""
        return self.row, self.settings, self.seed

    @property
    def short(self) -> bool:
        """Whether the recipe asks for more epochs."""
        return self.epochs < self.full_epochs


def read_records(path: Path) -> list[Record]:
    """Read the runs in ``runs.jsonl``; none if the file does not exist."""
    if not path.is_file():
        return []
    return [Record(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line]


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write ``runs.jsonl``, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}")
    lines = (json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(path)


def merged(old: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """Add new runs to the old ones; a run of the same row, settings and seed replaces the old one in its place.

    Example:
        >>> merged([], [])
        []
    """
    by_key = {record.key: record for record in (*old, *new)}
    return list(by_key.values())


def read_times(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read ``times.jsonl``: how the times were measured, and one mapping per row."""
    facts, *rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return facts, rows


def write_times(path: Path, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
    """Write ``times.jsonl``: machine, commit and ``facts`` in the first line, then one line per row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"machine": machine(), "commit": commit(), **facts}, *rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def machine(summary: Mapping[str, Any] | None = None) -> str:
    """Cores, processor and system, preceded by the accelerator if a run's summary says that it used one."""
    computer = f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()})"
    if summary is None or not str(summary["device"]).startswith("cuda"):
        return computer
    import torch

    return f"{torch.cuda.get_device_name(summary['device'])}, {computer}"


def commit() -> str | None:
    """The commit that is checked out; ``None`` outside a checkout."""
    here = str(Path(__file__).parent)
    try:
        done = subprocess.run(
            ["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=10
        )
    except OSError:
        return None
    return done.stdout.strip() or None
