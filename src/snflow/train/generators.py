"""Random number generators of a run: seeded, saved and restored."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed(value: int) -> None:
    """Seed the global generators of torch (on every device), NumPy and Python."""
    torch.manual_seed(value)
    random.seed(value)
    # A user's layer may draw from NumPy's global generator.
    np.random.seed(value % 2**32)  # noqa: NPY002


def capture() -> dict[str, Any]:
    """Return the states of torch (CPU, and CUDA if used), NumPy and Python, as types that load weights-only."""
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "python": [version, torch.tensor(internal, dtype=torch.int64), gauss],
    }


def restore(state: dict[str, Any]) -> None:
    """Restore every generator to a captured state."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_initialized():
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))


@contextmanager
def preserved() -> Iterator[None]:
    """Restore every generator after the block, so that evaluation does not change training.

    Example:
        >>> before = torch.get_rng_state()
        >>> with preserved():
        ...     _ = torch.rand(3)
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    state = capture()
    try:
        yield
    finally:
        restore(state)
