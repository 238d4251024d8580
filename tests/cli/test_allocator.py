"""The process of the command line keeps the memory that a step frees; a program that imports the library does not."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

GNU = platform.libc_ver()[0] == "glibc"
FREED = """
import resource
{before}
def step():
    return [bytearray(b"1") * 2**22 for _ in range(8)]  # without torch, whose import takes most of the time
step()
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
KEEP = "from snflow.cli.main import keep_freed_memory; assert keep_freed_memory() is {granted}"
PAGES = 20 * 8 * 1024
"""Pages of 4 KiB that the steps ask for altogether."""


def page_faults(before: str, **environment: str) -> int:
    """How many pages the system had to hand out in 20 steps of a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", FREED.format(before=before)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return int(done.stdout)


@pytest.mark.skipif(not GNU, reason="an option of GNU's C library")
def test_steps_ask_for_no_new_pages() -> None:
    assert page_faults(KEEP.format(granted=True)) < PAGES // 100


@pytest.mark.skipif(not GNU, reason="an option of GNU's C library")
def test_the_environment_decides() -> None:
    granted = KEEP.format(granted=False)
    assert page_faults(granted, MALLOC_MMAP_THRESHOLD_="1048576") > PAGES // 2
    assert page_faults(granted, GLIBC_TUNABLES="glibc.malloc.mmap_threshold=1048576") > PAGES // 2


def test_import_and_a_call_of_main_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from snflow.cli import main as cli

    called: list[bool] = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: called.append(True) or True)
    assert cli.main(["--version"]) == 0
    assert not called
    monkeypatch.setattr(sys, "argv", ["snflow", "--version"])
    assert cli.command() == 0
    assert called
