"""What the benchmarks share: the commit, timing in turns, and peak memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

# The steps of the paper's Table 3 and Figure 4 are timed there; a checkout has both folders.
sys.path.append(str(Path(__file__).parents[1] / "papers" / "self_normalizing_flows"))

from targets import TARGETS, named_recipe, recipe_of, reference_of
from timing import EVENTS, Timed, build, interleaved, timed_training

__all__ = [
    "EVENTS",
    "TARGETS",
    "Timed",
    "build",
    "commit",
    "interleaved",
    "named_recipe",
    "peak_mebibytes",
    "recipe_of",
    "reference_of",
    "timed_training",
]


def commit() -> str:
    """The hash of the commit that is checked out; empty outside a repository."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def peak_mebibytes(act: Callable[[], object]) -> float:
    """The largest total size of tensors alive during ``act``, above what was alive before, in MiB."""
    act()
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        act()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        act()
    held = most = 0
    for event in profile.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / 2**20
