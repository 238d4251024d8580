"""The nightly run: its checks find their faults, it goes on where it was stopped, and short counts run here."""

import json
import multiprocessing
import os
import re
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
import torch

from nightly import runner
from nightly.check import Found, check, require, within
from nightly.registry import CHECKS

SHORT = [name for name, each in CHECKS.items() if each.short]


@pytest.mark.parametrize("name", SHORT)
def test_short_counts(name, tmp_path):
    found = CHECKS[name](0, CHECKS[name].short, tmp_path)
    assert not found.failures


@check("even seeds", nightly=10, chunk=4)
def even(seed, folder):
    require(seed % 2 == 0, f"{seed} is odd")
    within("seed", seed, 6.5)
    return Found(float(seed), {"even": 1})


def test_failures_are_collected_with_their_seeds(tmp_path):
    found = even(3, 5, tmp_path)
    assert [failure.seed for failure in found.failures] == [3, 5, 7]
    assert (found.count, found.worst, found.counted) == (5, 6.0, {"even": 2})
    assert "Fault at test_nightly.py" not in found.failures[0].message
    assert found.failures[0].message.endswith("3 is odd")


def test_a_case_depends_on_its_seed_alone(tmp_path):
    drawn = check("numbers", nightly=1, chunk=1)(lambda seed, folder: torch.rand(()).item())
    torch.rand(3)
    first = drawn(7, 1, tmp_path)
    drawn(0, 5, tmp_path)
    assert drawn(7, 1, tmp_path) == first


def test_a_nan_is_within_no_bound():
    with pytest.raises(AssertionError, match="error: nan"):
        within("error", float("nan"), 1.0)


def record(folder, first, failures=()):
    line = {
        "check": "even",
        "first": first,
        "count": 4,
        "failures": list(failures),
        "worst": 2.0,
        "counted": {"even": 4},
    }
    line |= {"commit": "abc", "machine": "m", "date": "d", "seconds": 1.0}
    with (folder / "even.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def test_finished_chunks_are_not_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "current_commit", lambda: "abc")
    monkeypatch.setattr(runner, "_run_chunk", lambda chunk, ends: ran.append(chunk.first))
    record(tmp_path, 4)
    with (tmp_path / "even.jsonl").open("a") as file:
        file.write('{"check": "ev')  # the line of a process that was killed
    ran = []
    runner.run([even], tmp_path, jobs=1, minutes=1, fraction=1.0)
    assert sorted(ran) == [0, 8]
    ran.clear()
    monkeypatch.setattr(runner, "current_commit", lambda: "another")
    runner.run([even], tmp_path, jobs=1, minutes=1, fraction=1.0)
    assert sorted(ran) == [0, 4, 8]


def test_nothing_is_started_when_the_time_is_over():
    assert runner._run_chunk(runner.Chunk("fuzz", 0, 1), 0.0) is None


def test_the_page_sums_the_records_and_lists_the_failures(tmp_path):
    record(tmp_path, 0)
    record(tmp_path, 4, [{"seed": 5, "message": "5 is odd"}])
    page = runner.page([even], tmp_path)
    assert "| even | even seeds | 8 | 10 | 1 | 2 | even 8 | 0–7 | `abc` | m | d | 2 |" in page
    assert "- `even`, seed 5: 5 is odd" in page


def ended(monkeypatch, what, minutes=1.0):
    """What the runner says of a chunk whose only case calls something."""
    chunk = check("nothing", nightly=1, chunk=1, minutes=minutes)(lambda seed, folder: what())
    monkeypatch.setitem(runner.CHECKS, "a check", chunk)
    monkeypatch.setattr(runner, "_PROCESSES", multiprocessing.get_context("fork"))  # a server has no such check
    return runner._run_chunk(runner.Chunk("a check", 3, 1), float("inf"))


def test_a_chunk_is_run_in_a_process_of_its_own(monkeypatch):
    found = ended(monkeypatch, lambda: Found(float(os.getpid())))
    assert found["failures"] == []
    assert found["worst"] != os.getpid()


def test_a_process_that_crashes_is_a_failure_of_its_chunk(monkeypatch):
    (failure,) = ended(monkeypatch, lambda: (os.write(2, b"out of luck"), os._exit(7)))["failures"]
    assert failure == {"seed": 3, "message": "the process ended with 7: out of luck"}


def test_a_process_that_hangs_is_a_failure_and_ended_with_those_that_it_started(monkeypatch, tmp_path):
    def hang():
        child = subprocess.Popen(["sleep", "60"])
        (tmp_path / "pid").write_text(str(child.pid))
        time.sleep(60)

    (failure,) = ended(monkeypatch, hang, minutes=0.01)["failures"]
    assert failure == {"seed": 3, "message": "the chunk took over 1 s"}
    process = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    assert not process.exists() or process.read_text().split()[2] == "Z"


def test_the_oldest_environment_is_that_of_the_lower_bounds():
    declared = tomllib.loads((runner.ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    bounds = dict(re.match(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", text).groups() for text in declared)
    lines = (runner.ROOT / "constraints-oldest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pinned.keys() == bounds.keys()
    for name, version in pinned.items():
        assert version == bounds[name] or re.fullmatch(re.escape(bounds[name]) + r"(\.0)+", version), name
