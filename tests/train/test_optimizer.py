"""The parts of the loop by themselves: guard, average, schedule, tally, signals, metrics."""

import math
import signal

import pytest
import torch
from torch import nn

from snflow.bijections.chain import Chain
from snflow.distributions.base import StandardNormal
from snflow.distributions.flow import Flow
from snflow.errors import CheckpointError, DivergenceError
from snflow.train.evaluation import exact_nll
from snflow.train.loop import StopRequest, Tally
from snflow.train.metrics import EpochRow, MetricsFile
from snflow.train.optimizer import MovingAverage, learning_rate
from snflow.train.options import OptimizerOptions, ScheduleOptions, TrainingOptions
from snflow.train.steps import DivergenceCheck


def test_the_guard_counts_only_what_is_in_a_row():
    guard = DivergenceCheck(nn.Linear(1, 1), TrainingOptions(on_nonfinite="skip", max_skips=1), OptimizerOptions())
    for step in range(3):
        guard.failed(math.nan, 1.0, step, "")
        guard.passed()
    guard.failed(math.nan, 1.0, 4, "")
    with pytest.raises(DivergenceError, match="no single layer"):
        guard.failed(math.nan, 1.0, 5, "")


def test_a_risen_likelihood_ends_the_run_only_with_a_lost_inverse():
    guard = DivergenceCheck(nn.Linear(1, 1), TrainingOptions(divergence_rise=0.5), OptimizerOptions())
    for rise, residuals in ((0.4, {"a": 9.0}), (2.0, {"a": 0.9}), (2.0, {}), (-1.0, {"a": math.nan})):
        guard.validated(rise, residuals, 3, "")
    for lost in (1.1, math.nan):
        with pytest.raises(
            DivergenceError, match=r"epoch 3: expected .*0\.5 of the best, got one 0\.6 .* at b: .*go on"
        ):
            guard.validated(0.6, {"a": 0.2, "b": lost}, 3, "go on from there")
    careless = DivergenceCheck(nn.Linear(1, 1), TrainingOptions(divergence_rise=None), OptimizerOptions())
    careless.validated(9.0, {"a": 9.0}, 3, "")


def test_evaluation_leaves_the_generators_of_training_alone(monkeypatch):
    from snflow.train import evaluation

    monkeypatch.setattr(evaluation, "mean_nll", lambda *rest: torch.rand(()).item())
    flow = Flow(Chain([]), StandardNormal((1,)))
    before = torch.get_rng_state()
    exact_nll(flow, torch.zeros(1, 1), 1, 0)
    assert torch.equal(before, torch.get_rng_state())


def test_the_moving_average_is_the_written_out_one():
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.0)
        average = MovingAverage(layer, 0.15)
        expected = 0.0
        for n, value in enumerate((1.0, 2.0, 3.0)):
            layer.weight.fill_(value)
            average.update()
            decay = min(0.15, (1 + n) / (10 + n))
            expected = decay * expected + (1 - decay) * value
    with average.applied():
        assert layer.weight.item() == pytest.approx(expected)
    assert layer.weight.item() == 3.0
    other = MovingAverage(nn.Linear(2, 1), 0.5)
    with pytest.raises(CheckpointError, match="another"):
        other.load_state_dict(average.state_dict())


def test_the_learning_rate_is_warmed_up_then_constant_or_cosine():
    constant = ScheduleOptions(warmup_epochs=2)
    assert [learning_rate(1.0, constant, s, 2, 10) for s in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    cosine = ScheduleOptions(decay="cosine", final_fraction=0.1)
    rates = [learning_rate(2.0, cosine, s, 5, 2) for s in range(10)]
    assert rates[0] == 2.0
    assert rates[-1] == pytest.approx(0.2)
    assert rates == sorted(rates, reverse=True)
    assert learning_rate(1.0, ScheduleOptions(warmup_epochs=9, decay="cosine"), 3, 2, 2) == pytest.approx(4 / 18)


def test_the_tally_survives_a_checkpoint():
    tally = Tally(epochs=2, best_step=4)
    tally.epoch.objective = 3.5
    assert Tally.from_dict(tally.to_dict()) == tally


def test_a_second_interrupt_stops_at_once_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_metrics_drop_rows_behind_the_checkpoint_and_half_written_ones(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.csv")
    metrics.start(None)
    for epoch in range(4):
        metrics.append(EpochRow(epoch, epoch, None, 0.1, None, None, None, None, None, None, None, 0, 1.0, 0.1, 1.0))
    with metrics.path.open("a") as file:
        file.write("4,4,0.1,0.2")
    assert [row["epoch"] for row in metrics.read()] == [0, 1, 2, 3]
    metrics.start(2)
    assert [row["epoch"] for row in metrics.read()] == [0, 1, 2]
    assert metrics.read()[0]["objective"] == 0.1


def test_metrics_of_an_earlier_version_keep_their_rows(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.csv")
    metrics.path.write_text("epoch,validation_nll,retired\n0,3.5,9\n1,2.5,9\n")
    assert [(row["epoch"], row["validation_nll"], row["objective"]) for row in metrics.read()] == [
        (0, 3.5, None),
        (1, 2.5, None),
    ]
    metrics.start(0)
    metrics.append(EpochRow(1, 1, None, 0.1, None, None, None, None, None, None, None, 0, 1.0, 0.1, 1.0))
    assert [row["objective"] for row in metrics.read()] == [None, 0.1]
