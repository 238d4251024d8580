"""What every test and every docstring example starts from: one thread, one seed, and float64 except for whole runs."""

import os
from collections.abc import Iterator

# One thread also for the commands that tests start and for fixtures of whole modules: two workers with two threads each
# would spend most of their time at OpenMP's barriers. Set before torch is imported, which reads it once.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

_WHOLE_RUNS = ("train", "cli", "papers")
"""Folders of tests whose runs are continued by other processes, which start in float32."""


@pytest.fixture(autouse=True)
def _pinned_torch(request: pytest.FixtureRequest) -> Iterator[None]:
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    tested = request.path.parent
    single = tested.parent.name == "tests" and tested.name in _WHOLE_RUNS
    torch.set_default_dtype(torch.float32 if single else torch.float64)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
