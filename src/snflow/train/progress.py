"""Progress of a run on the terminal, and the table of results at its end."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

_WINDOW = 10
"""Number of lines over which the time per step is averaged."""


class Lasting(io.TextIOBase):
    """A stream that outlives its reader: after a first failed write, what follows is dropped, with one warning.

    Args:
        stream: a text stream, such as standard output into a pipe or a file.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream

    def write(self, text: str) -> int:
        """Write the text, or drop it."""
        self._attempt(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream, if it is not lost."""
        self._attempt(lambda stream: stream.flush())

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Return the file descriptor of the stream, from which the width of a terminal is read."""
        if self._stream is None:
            raise io.UnsupportedOperation
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's encoding."""
        return "utf-8" if self._stream is None else self._stream.encoding

    def _attempt(self, action: Callable[[TextIO], object]) -> None:
        stream = self._stream
        if stream is None:
            return
        try:
            action(stream)
        except OSError as error:
            self._stream = None
            with contextlib.suppress(OSError, ValueError):
                # What the stream still holds would fail again at the end of the process.
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
            with contextlib.suppress(OSError, ValueError):
                reason = (error.strerror or str(error)).lower()
                print(f"snflow: warning: the output is lost ({reason}); the run continues", file=sys.stderr)


def terminal() -> Console:
    """Return a console on standard output that never ends a run."""
    return Console(file=cast(TextIO, Lasting(sys.stdout)), highlight=False)


class Reporter(ABC):
    """Receives the progress of a run, and shows it."""

    @abstractmethod
    def start(self, done: int, total: int, epochs: int) -> None:
        """Start, with ``done`` of ``total`` steps already taken, in ``epochs`` epochs."""

    @abstractmethod
    def step(self, epoch: int, objective: float, steps: int = 1) -> None:
        """Report steps of epoch ``epoch`` (counted from 1), with the objective of the last one in nats."""

    @abstractmethod
    def validated(self, epoch: int, nll: float, error: float | None = None) -> None:
        """Report the validation NLL after ``epoch`` epochs, and its standard error if it is an estimate, in nats."""

    @abstractmethod
    def say(self, text: str) -> None:
        """Show a line of text."""

    @abstractmethod
    def close(self) -> None:
        """Stop."""


class SilentReporter(Reporter):
    """Shows nothing; used in all processes except the first."""

    def start(self, done: int, total: int, epochs: int) -> None:
        """Do nothing."""

    def step(self, epoch: int, objective: float, steps: int = 1) -> None:
        """Do nothing."""

    def validated(self, epoch: int, nll: float, error: float | None = None) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class BarReporter(Reporter):
    """A progress bar with epoch, objective, last exact NLL and remaining time.

    Args:
        console: the terminal.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("objective {task.fields[objective]}"),
            TextColumn("{task.fields[nll]}"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=4,
        )

    def start(self, done: int, total: int, epochs: int) -> None:
        """Show the bar."""
        self._task = self._progress.add_task(
            "", completed=done, total=total, epoch=0, epochs=epochs, objective="–", nll="exact NLL –"
        )
        self._progress.start()

    def step(self, epoch: int, objective: float, steps: int = 1) -> None:
        """Advance the bar."""
        self._progress.update(self._task, advance=steps, epoch=epoch, objective=f"{objective:.3f}")

    def validated(self, epoch: int, nll: float, error: float | None = None) -> None:
        """Show the new NLL."""
        self._progress.update(self._task, nll=_likelihood(nll, error))

    def say(self, text: str) -> None:
        """Print above the bar."""
        self._progress.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        """Stop updating the bar."""
        self._progress.stop()


class LineReporter(Reporter):
    """Plain lines: one at the first validation, then at most one per ``seconds``, and one at the end.

    Args:
        console: where to print.
        seconds: minimum time between two lines.
    """

    def __init__(self, console: Console, seconds: float = 10.0) -> None:
        self._console, self._seconds = console, seconds
        self._nll, self._objective = "", float("nan")
        self._epoch = self._nll_epoch = 0

    def start(self, done: int, total: int, epochs: int) -> None:
        """Start counting."""
        self._spoke = time.monotonic()
        self._start, self._done, self._total, self._epochs = done, done, total, epochs
        self._pending = False
        # Time and number of steps at the last few lines, from which the remaining time is estimated.
        self._marks: deque[tuple[float, int]] = deque(maxlen=_WINDOW)

    def step(self, epoch: int, objective: float, steps: int = 1) -> None:
        """Show a line when it is due."""
        self._done += steps
        self._epoch, self._objective, self._pending = epoch, objective, True
        now = time.monotonic()
        if not self._marks:  # the first step includes compilation and warm-up: it is not representative
            self._marks.append((now, self._done))
        if now - self._spoke >= self._seconds:
            self._line()

    def validated(self, epoch: int, nll: float, error: float | None = None) -> None:
        """Show the first NLL immediately, later ones with the next line."""
        first = not self._nll
        self._epoch, self._nll, self._nll_epoch, self._pending = epoch, _likelihood(nll, error), epoch, True
        if first:
            self._line()

    def say(self, text: str) -> None:
        """Show a line of text."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Show the last line."""
        if self._pending:
            self._line()

    def _line(self) -> None:
        self._spoke, self._pending = time.monotonic(), False
        parts = [f"epoch {self._epoch}/{self._epochs}"]
        if self._done > self._start:
            parts.append(f"objective {self._objective:.3f}")
        if self._nll:
            of = "" if self._nll_epoch == self._epoch else f" (epoch {self._nll_epoch})"
            parts.append(f"{self._nll}{of}")
        left = self._seconds_left()
        if left is not None:
            parts.append(f"{_duration(left)} left")
        self.say(", ".join(parts))

    def _seconds_left(self) -> float | None:
        if not self._marks or self._done == self._total:
            return None
        began, done = self._marks[0]
        if self._done == done:
            return None
        self._marks.append((self._spoke, self._done))
        return (self._spoke - began) / (self._done - done) * (self._total - self._done)


def _likelihood(nll: float, error: float | None) -> str:
    """Format an NLL with its standard error: ``exact NLL 3.142 nats``, ``estimated NLL 3.142 ± 0.010 nats``."""
    return f"exact NLL {nll:.3f} nats" if error is None else f"estimated NLL {nll:.3f} ± {error:.2g} nats"


def _duration(seconds: float) -> str:
    """Format a duration: ``42 s``, ``17 min``, ``3 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def reporter_for(console: Console) -> Reporter:
    """Return a progress bar on a terminal, plain lines elsewhere."""
    return BarReporter(console) if console.is_terminal else LineReporter(console)


def show(console: Console, runs: Sequence[tuple[str, Path, dict[str, Any]]]) -> None:
    """Print the exact test NLL, bits per dimension, time and folder of each run.

    Args:
        console: where to print.
        runs: name, folder and summary of each; the first is compared with the others.
    """
    table = Table(box=box.SIMPLE_HEAD, title="exact test negative log-likelihood", title_justify="left")
    for heading, justify in (("run", "left"), ("nats", "right"), ("bits/dim", "right"), ("epochs", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    table.add_column("training", justify="right")
    table.add_column("s/epoch", justify="right")
    for name, _, summary in runs:
        bits = summary["test_bits_per_dim"]
        table.add_row(
            name,
            f"{summary['test_nll_nats']:.3f}",
            "–" if bits is None else f"{bits:.4f}",
            str(summary["epochs"]),
            f"{summary['train_seconds']:.1f} s",
            f"{summary['seconds_per_epoch_median']:.3g}",
        )
    console.print(table)
    if len(runs) > 1:
        first = runs[0]
        for name, _, other in runs[1:]:
            console.print(difference(first[0], first[2], name, other), highlight=False, markup=False, soft_wrap=True)
    for name, folder, _ in runs:
        line = f"{name}: pictures {folder / 'samples.png'} and {folder / 'curves.png'}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def difference(name: str, one: dict[str, Any], other_name: str, other: dict[str, Any]) -> str:
    """Describe the relative difference in NLL of two runs, in percent, and the ratio of their training times.

    Example:
        >>> fast = {"test_nll_nats": 101.0, "train_seconds": 5.0}
        >>> difference("a", fast, "b", {"test_nll_nats": 100.0, "train_seconds": 10.0})
        'a against b: NLL +1.00 %, training time × 0.50'
    """
    gap = 100 * (one["test_nll_nats"] - other["test_nll_nats"]) / abs(other["test_nll_nats"])
    ratio = one["train_seconds"] / other["train_seconds"] if other["train_seconds"] else float("nan")
    return f"{name} against {other_name}: NLL {gap:+.2f} %, training time × {ratio:.2f}"
