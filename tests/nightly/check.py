"""A check: one property, tried on many cases, each of which is made from its seed alone."""

from __future__ import annotations

import random
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch


class Fault(AssertionError):
    """The property does not hold in a case; the message has the numbers."""


@dataclass(frozen=True)
class Found:
    """What one case has found.

    Attributes:
        worst: the largest error; ``None`` if the property is a yes or a no.
        counted: what the case met, such as inputs that were refused, by name.
    """

    worst: float | None = None
    counted: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A case in which the property does not hold."""

    seed: int
    message: str


@dataclass(frozen=True)
class Result:
    """What the cases from one seed on have found."""

    count: int
    failures: list[Failure]
    worst: float | None
    counted: dict[str, int]


@dataclass(frozen=True)
class Check:
    """A property and how often it is tried; calling it tries the cases ``seed``, …, ``seed + count − 1``.

    Attributes:
        name: its name on the command line.
        shows: what holds if no case fails.
        case: tries one case, given its seed and a folder that the cases of a chunk share.
        nightly: number of cases of a nightly run.
        chunk: number of cases that are run by one process and recorded together.
        minutes: limit on the time of a chunk.
        short: number of cases in the ordinary test suite; 0 if that has its own tests of the property.
    """

    name: str
    shows: str
    case: Callable[[int, Path], Found | float | None]
    nightly: int
    chunk: int
    minutes: float
    short: int

    def __call__(self, seed: int, count: int, folder: Path) -> Result:
        """Try ``count`` cases, and collect the failures instead of raising them."""
        failures, worst, counted = [], None, Counter()
        for at in range(seed, seed + count):
            try:
                found = self.case_of(at, folder)
            except Exception as error:
                failures.append(Failure(at, described(error)))
                continue
            counted.update(found.counted)
            if found.worst is not None:
                worst = found.worst if worst is None else max(worst, found.worst)
        return Result(count, failures, worst, dict(counted))

    def case_of(self, seed: int, folder: Path) -> Found:
        """Try one case, from a known state of all generators and with warnings as they come."""
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        dtype = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = self.case(seed, folder)
        finally:
            torch.set_default_dtype(dtype)
        return found if isinstance(found, Found) else Found(found)


def check(
    shows: str, *, nightly: int, chunk: int, minutes: float = 20.0, short: int = 0
) -> Callable[[Callable[[int, Path], Found | float | None]], Check]:
    """Make a check of a function that tries one case."""
    return lambda case: Check(case.__name__, shows, case, nightly, chunk, minutes, short)


def described(error: BaseException) -> str:
    """An error in one line, with the last line of this project or of the tests that it went through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}: {' '.join(str(error).split())[:400]}"


def require(holds: bool, message: str) -> None:
    """Raise a fault unless something holds."""
    if not holds:
        raise Fault(message)


def within(what: str, error: float, bound: float) -> float:
    """Raise a fault unless an error is within its bound; NaN is not. Returns the error."""
    require(error <= bound, f"{what}: {error:.2e}, allowed {bound:.0e}")
    return float(error)
