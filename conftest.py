"""What every test and every docstring example starts from: one thread, float64, one seed."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _pinned_torch() -> Iterator[None]:
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
