"""Multipliers: λ answers to the reconstruction error, rises and falls, and is remembered."""

import math

import pytest
import torch

from snflow import SelfNormalizingDense
from snflow.selfnorm.multiplier import LARGEST, STEEPEST, update_multiplier
from snflow.selfnorm.options import LearnedInverse


def moved(errors, start=1.0, energy=100.0, **options):
    weight, average = torch.tensor(start), torch.tensor(0.0)
    for error in errors:
        update_multiplier(weight, average, torch.tensor(error), torch.tensor(energy), LearnedInverse(**options))
    return float(weight), float(average)


def test_constant_stays():
    assert moved([5.0, 100.0])[0] == 1.0


def test_geco_is_the_papers_without_a_tolerance():
    """λ ← λ exp(rate · C̄), C̄ a moving average of ‖g(f(x)) − x‖²: it never falls."""
    average, weight = 0.0, 1.0
    errors = [2.0, 0.5, 3.0]
    for error in errors:
        average = 0.9 * average + 0.1 * error
        weight *= math.exp(1e-3 * average)
    assert moved(errors, multiplier="geco") == pytest.approx((weight, average))
    assert moved([0.0] * 100, multiplier="geco")[0] == 1.0


def test_geco_with_a_tolerance_rises_above_it_and_falls_below():
    options = {"multiplier": "geco", "multiplier_rate": 0.01, "multiplier_tolerance": 0.1}
    assert moved([4.0] * 50, **options)[0] > 1  # ‖e‖² = 4 > 0.1² · 100
    assert moved([0.25] * 50, **options)[0] < 1
    assert moved([1.0] * 50, **options)[0] == pytest.approx(1.0)


def test_the_differential_method_adds_and_stays_above_zero():
    options = {"multiplier": "differential", "multiplier_rate": 0.1, "multiplier_tolerance": 0.1}
    assert moved([1.5], **options)[0] == pytest.approx(1.005)
    assert moved([300.0], **options)[0] == pytest.approx(1.01)
    assert moved([0.0] * 50, **options)[0] == 0.0


def test_large_and_broken_errors_are_bounded():
    weight, average = moved([math.inf, math.nan], multiplier="geco")
    assert math.isfinite(weight)
    assert average <= STEEPEST
    assert moved([1e9] * 2000, multiplier="geco", multiplier_rate=1.0)[0] == pytest.approx(LARGEST)


def test_the_layer_moves_its_multiplier_after_the_forward_and_uses_the_one_before():
    layer = SelfNormalizingDense(4, multiplier="geco", multiplier_rate=0.5, penalty_weight=2.0)
    constant = SelfNormalizingDense(4, penalty_weight=2.0)
    constant.load_state_dict(layer.state_dict())
    x = torch.randn(5, 4)
    for one in (layer, constant):
        with torch.no_grad():
            one.inverse_weight.add_(0.1)
        z, log_det = one(x)
        (z.square().sum(1) - log_det).mean().backward()
    torch.testing.assert_close(layer.weight.grad, constant.weight.grad)
    error = float(layer.reconstruction_error)
    assert float(layer.penalty_weight) == pytest.approx(2.0 * math.exp(0.5 * 0.1 * min(error, STEEPEST)))
    assert float(constant.penalty_weight) == 2.0


def test_evaluation_leaves_the_multiplier_alone_and_a_checkpoint_has_it():
    layer = SelfNormalizingDense(4, multiplier="geco", multiplier_rate=0.5)
    layer(torch.randn(3, 4))
    kept = float(layer.penalty_weight)
    layer.eval()(torch.randn(3, 4))
    assert float(layer.penalty_weight) == kept
    fresh = SelfNormalizingDense(4, multiplier="geco", multiplier_rate=0.5)
    fresh.load_state_dict(layer.state_dict())
    assert float(fresh.penalty_weight) == kept
    assert torch.equal(fresh._constraint, layer._constraint)
