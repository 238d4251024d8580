"""Runs the checks in chunks, each in a process of its own, and keeps one line of JSON per finished chunk.

A chunk that is on file for this commit is not run again, so a run that was stopped goes on where it was. A process that
crashes, hangs or runs out of memory is a failure of its chunk, not of the run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

from nightly.check import Check
from nightly.registry import CHECKS

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "results" / "reliability"
PAGE = "README.md"


os.environ["OMP_NUM_THREADS"] = "1"
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["nightly.registry"])
"""Chunks start from a process that has imported everything and run nothing; to import it each time would take hours."""


@dataclass(frozen=True)
class Chunk:
    """The cases ``first``, …, ``first + count − 1`` of a check."""

    check: str
    first: int
    count: int


def main(argv: list[str] | None = None) -> int:
    """Run the chosen checks; 0 if no case has failed."""
    asked = _arguments().parse_args(argv)
    names = list(CHECKS) if asked.only is None else asked.only.split(",")
    unknown = set(names) - set(CHECKS)
    if unknown:
        print(f"expected checks among {', '.join(CHECKS)}; got {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    checks = [CHECKS[name] for name in names]
    if asked.seed is not None:
        return _one_case(checks, asked.seed)
    asked.records.mkdir(parents=True, exist_ok=True)
    failed = run(checks, asked.records, jobs=asked.jobs, minutes=asked.minutes, fraction=asked.fraction)
    (asked.records / PAGE).write_text(page(CHECKS.values(), asked.records), encoding="utf-8")
    print(f"{failed} failures; {asked.records / PAGE}")
    return int(failed > 0)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make test-nightly", description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", metavar="NAMES", help="checks, separated by commas")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no chunk after this time")
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the nightly number of cases")
    parser.add_argument("--seed", type=int, help="run only this case, here, and let its error through")
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of the records")
    return parser


def _one_case(checks: list[Check], seed: int) -> int:
    for check in checks:
        with tempfile.TemporaryDirectory() as folder:
            print(check.name, seed, check.case_of(seed, Path(folder)))
    return 0


def run(checks: Iterable[Check], records: Path, *, jobs: int, minutes: float, fraction: float) -> int:
    """Run the chunks that are not on file, and return the number of failures among those that were run."""
    ends, commit, failed = time.monotonic() + 60 * minutes, current_commit(), 0
    todo = [c for check in checks for c in chunks(check, fraction) if c not in finished(records, check.name, commit)]
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(_run_chunk, chunk, ends): chunk for chunk in todo}
        for future in as_completed(running):
            found, chunk = future.result(), running[future]
            if found is None:
                continue
            line = {**asdict(chunk), **found, "commit": commit, **_place()}
            with (records / f"{chunk.check}.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            failed += len(found["failures"])
            print(
                f"{chunk.check} {chunk.first}…: {len(found['failures'])} failures, {found['seconds']:.0f} s", flush=True
            )
    return failed


def chunks(check: Check, fraction: float = 1.0) -> Iterator[Chunk]:
    """The chunks of a check, in order."""
    total = max(1, round(fraction * check.nightly))
    for first in range(0, total, check.chunk):
        yield Chunk(check.name, first, min(check.chunk, total - first))


def finished(records: Path, name: str, commit: str) -> set[Chunk]:
    """The chunks of a check that are on file for a commit."""
    return {
        Chunk(line["check"], line["first"], line["count"]) for line in lines(records, name) if line["commit"] == commit
    }


def lines(records: Path, name: str) -> list[dict[str, Any]]:
    """The records of a check; a half-written last line is dropped."""
    path, read = records / f"{name}.jsonl", []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            read.append(json.loads(text))
        except ValueError:
            continue
    return read


def _run_chunk(chunk: Chunk, ends: float) -> dict[str, Any] | None:
    """Run a chunk in a process of its own; ``None`` if the time is over."""
    if time.monotonic() >= ends:
        return None
    began, limit = time.monotonic(), 60 * CHECKS[chunk.check].minutes
    receiver, sender = _PROCESSES.Pipe(duplex=False)
    with tempfile.NamedTemporaryFile() as log:
        process = _PROCESSES.Process(target=_chunk, args=(chunk, sender, log.name))
        process.start()
        sender.close()
        try:
            if receiver.poll(limit):
                return receiver.recv()  # type: ignore[no-any-return]
            what = f"the chunk took over {limit:.0f} s"
        except EOFError:
            process.join()
            said = Path(log.name).read_text(errors="replace").split()
            what = f"the process ended with {process.exitcode}: {' '.join(said)[-300:]}"
        finally:
            _end(process)
    failure = {"seed": chunk.first, "message": what}
    return {"failures": [failure], "worst": None, "counted": {}, "seconds": time.monotonic() - began}


def _chunk(chunk: Chunk, sender: Connection, log: str) -> None:
    """What the process of a chunk does: it leads a group of its own, and what it prints goes to a file."""
    os.setpgid(0, 0)
    file = os.open(log, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(file, stream)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = asdict(CHECKS[chunk.check](chunk.first, chunk.count, Path(folder)))
    sender.send({**found, "seconds": round(time.perf_counter() - began, 2)})


def _end(process: BaseProcess) -> None:
    """End the process of a chunk, and those that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(cast("int", process.pid), signal.SIGKILL)
    process.join()


def current_commit() -> str:
    """The commit that last changed what is checked, marked if the checkout differs from it.

    Commits of other files, such as the records, leave what was run valid.
    """

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    code = ("--", "src", "tests", "pyproject.toml")
    changed = git("status", "--porcelain", "--untracked-files=no", *code)
    return git("log", "-1", "--format=%h", "--abbrev=12", *code) + ("-changed" if changed else "")


def _place() -> dict[str, str]:
    import torch

    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    return {"machine": machine, "date": datetime.now(UTC).date().isoformat()}


HEADER = """\
# The nightly checks

Written by `make test-nightly` from the records beside this page, one line of JSON per chunk. Each case is made from its
seed alone: `make test-nightly ONLY=fuzz SEED=123` runs one again. A row shows the newest commit on file of its check;
"of" is the number of cases of a whole run.

| check | what it shows | cases | of | failures | worst | counted | seeds | commit | machine | date | seconds |
|---|---|---|---|---|---|---|---|---|---|---|---|
"""


def page(checks: Iterable[Check], records: Path) -> str:
    """The table of all checks, and the list of failures with their seeds."""
    rows, failures = [], []
    for check in checks:
        read = lines(records, check.name)
        newest = [line for line in read if line["commit"] == read[-1]["commit"]]
        rows.append(_row(check, newest))
        failures += [f"- `{check.name}`, seed {f['seed']}: {f['message']}" for x in newest for f in x["failures"]]
    listed = "\n".join(failures) or "None."
    return f"{HEADER}{chr(10).join(rows)}\n\n## Failures\n\n{listed}\n"


def _row(check: Check, read: list[dict[str, Any]]) -> str:
    if not read:
        return f"| {check.name} | {check.shows} | 0 | {check.nightly} | | | | | | | | |"
    counted: Counter[str] = sum((Counter(line["counted"]) for line in read), Counter())
    worst = [line["worst"] for line in read if line["worst"] is not None]
    cells = [
        check.name,
        check.shows,
        sum(line["count"] for line in read),
        check.nightly,
        sum(len(line["failures"]) for line in read),
        f"{max(worst):.2g}" if worst else "",
        ", ".join(f"{name} {number}" for name, number in sorted(counted.items())),
        f"{min(x['first'] for x in read)}–{max(x['first'] + x['count'] for x in read) - 1}",
        f"`{read[-1]['commit']}`",
        read[-1]["machine"],
        read[-1]["date"],
        f"{sum(line['seconds'] for line in read):.0f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"
