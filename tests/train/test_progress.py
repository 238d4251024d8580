"""What is shown while a run trains."""

from __future__ import annotations

import io
import os
import sys

import pytest
from rich.console import Console

from snflow.train import progress


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time as the test wants it."""
    return Clock(monkeypatch)


def _lines(text: io.StringIO) -> list[str]:
    return text.getvalue().splitlines()


def test_a_slow_first_step_does_not_enter_the_time_left(clock: Clock) -> None:
    text = io.StringIO()
    reporter = progress.LineReporter(Console(file=text))
    reporter.start(0, 1000, 10)
    reporter.validated(0, 12.0)
    clock.now += 500.0  # it compiles
    reporter.step(1, 11.0)
    for _ in range(199):
        clock.now += 0.1
        reporter.step(1, 11.0)
    assert _lines(text) == [
        "epoch 0/10, exact NLL 12.000 nats",
        "epoch 1/10, objective 11.000, exact NLL 12.000 nats (epoch 0)",
        "epoch 1/10, objective 11.000, exact NLL 12.000 nats (epoch 0), 90 s left",
    ]


def test_the_time_left_follows_the_pace_of_the_last_lines(clock: Clock) -> None:
    text = io.StringIO()
    reporter = progress.LineReporter(Console(file=text))
    reporter.start(0, 100_000, 10)
    for seconds, steps in ((0.1, 2000), (1.0, 500)):
        for _ in range(steps):
            clock.now += seconds
            reporter.step(1, 11.0)
    assert _lines(text)[-1].endswith(", 27 h 05 min left")  # 97,500 steps of a second


def test_a_resumed_run_counts_from_where_it_stands(clock: Clock) -> None:
    text = io.StringIO()
    reporter = progress.LineReporter(Console(file=text))
    reporter.start(900, 1000, 10)
    for _ in range(100):
        clock.now += 1.0
        reporter.step(10, 11.0)
    reporter.validated(10, 9.5)
    reporter.close()
    assert _lines(text)[0] == "epoch 10/10, objective 11.000, 90 s left"
    assert _lines(text)[-1] == "epoch 10/10, objective 11.000, exact NLL 9.500 nats"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.4, "0 s"),
        (99.4, "99 s"),
        (100.0, "2 min"),
        (5900.0, "98 min"),
        (6000.0, "1 h 40 min"),
        (11100.0, "3 h 05 min"),
    ],
)
def test_durations_are_written_for_people(seconds: float, shown: str) -> None:
    assert progress._duration(seconds) == shown


def test_a_terminal_gets_a_bar_with_the_same_numbers() -> None:
    text = io.StringIO()
    reporter = progress.reporter_for(Console(file=text, force_terminal=True, width=120))
    assert isinstance(reporter, progress.BarReporter)
    reporter.start(0, 2, 1)
    reporter.step(1, 11.0)
    reporter.validated(1, 9.5)
    reporter.say("a line above it")
    reporter.close()
    shown = text.getvalue()
    assert "epoch 1/1" in shown
    assert "exact NLL 9.500 nats" in shown
    assert "a line above it" in shown
    assert isinstance(progress.reporter_for(Console(file=io.StringIO())), progress.LineReporter)


@pytest.mark.parametrize("lost", ["full", "closed"])
def test_a_run_outlives_its_output_with_one_warning(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if lost == "full":
        stream = open("/dev/full", "w")  # noqa: SIM115
    else:
        reader, writer = os.pipe()
        stream = os.fdopen(writer, "w")
        os.close(reader)
    said = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", said)
    with stream:
        console = progress.terminal()
        reporter = progress.reporter_for(console)
        reporter.start(0, 2, 1)
        for line in "abc":
            reporter.say(line)
        reporter.validated(1, 9.5)
        reporter.close()
        progress.show(console, [])
    reason = "no space left on device" if lost == "full" else "broken pipe"
    assert said.getvalue() == f"snflow: warning: the output is lost ({reason}); the run continues\n"


def test_an_output_that_works_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    progress.terminal().print("a line")
    assert capsys.readouterr().out == "a line\n"
