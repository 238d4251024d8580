"""The check for divergence."""

import math

import pytest
from torch import nn

from snflow.errors import DivergenceError
from snflow.train.options import OptimizerOptions, TrainingOptions
from snflow.train.steps import DivergenceCheck


def test_the_check_counts_skips_in_a_row():
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
        with pytest.raises(DivergenceError, match=r"epoch 3: expected .*0\.5 of the best, got 0\.6 .* at b: .*go on"):
            guard.validated(0.6, {"a": 0.2, "b": lost}, 3, "go on from there")
    careless = DivergenceCheck(nn.Linear(1, 1), TrainingOptions(divergence_rise=None), OptimizerOptions())
    careless.validated(9.0, {"a": 9.0}, 3, "")
