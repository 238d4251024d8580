"""The learning-rate schedule and the moving average of the weights."""

import pytest
import torch
from torch import nn

from snflow.errors import CheckpointError
from snflow.train.optimizer import MovingAverage, learning_rate
from snflow.train.options import ScheduleOptions


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
    with pytest.raises(CheckpointError, match="a different flow"):
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
