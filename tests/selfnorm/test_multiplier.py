"""Multipliers: λ answers to the reconstruction error, rises and falls, and is remembered."""

import math

import pytest
import torch

from snflow import Penalty, SelfNormalizingDense
from snflow.selfnorm.multiplier import LARGEST, STEEPEST


def moved(errors, energy=100.0, **options):
    """λ and C̄ after a sequence of reconstruction errors."""
    penalty = Penalty(**options)
    for error in errors:
        penalty.observe(torch.tensor(error), torch.tensor(energy))
    average = 0.0 if penalty.multiplier is None else float(penalty.multiplier.average)
    return float(penalty.penalty_weight), average


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


def test_damping_adds_the_present_constraint_to_the_weight_of_the_gradient():
    options = {"multiplier": "differential", "multiplier_rate": 0.1, "multiplier_tolerance": 0.1}
    plain, damped = Penalty(**options), Penalty(**options, multiplier_damping=2.0)
    for error in (1.5, 0.7, 1.2):
        for one in (plain, damped):
            one.observe(torch.tensor(error), torch.tensor(100.0))
        constraint = error / (0.1**2 * 100) - 1
        wanted = max(0.0, float(plain.penalty_weight) + 2 * constraint)
        assert float(damped.penalty_weight) == pytest.approx(wanted, abs=1e-6)
    assert float(damped.multiplier.value) == float(plain.penalty_weight)


def test_the_modified_differential_method_settles_where_the_plain_one_oscillates():
    """min x²/2 − x subject to C = x² / κ² − 1 ≤ 0: x = κ, where λ is (1 − κ)/2κ; gradient descent in x."""

    def distance(damping):
        penalty = Penalty(
            multiplier="differential",
            multiplier_rate=0.2,
            multiplier_average=0.0,
            multiplier_tolerance=0.5,
            multiplier_damping=damping,
        )
        x, path = torch.tensor(1.0), []
        for _ in range(4000):
            x = x - 0.02 * (x - 1 + 2 * penalty.penalty_weight * x)
            penalty.observe(x.square(), torch.tensor(1.0))
            path.append(abs(float(x) - 0.5))
        return max(path[1000:1500]), path[-1]

    plain, damped = distance(0.0), distance(1.0)
    assert damped[0] < plain[0]
    assert damped[1] < 1e-3


def test_the_augmented_lagrangian_updates_its_multiplier_at_intervals():
    options = {"multiplier": "augmented_lagrangian", "multiplier_rate": 0.5, "multiplier_tolerance": 0.1}
    penalty = Penalty(**options, multiplier_interval=3, multiplier_average=0.0)

    def observe(error):
        penalty.observe(torch.tensor(error), torch.tensor(100.0))
        return float(penalty.penalty_weight), float(penalty.multiplier.value), float(penalty.multiplier.strength)

    assert observe(1.5) == pytest.approx((1.25, 1.0, 0.5))  # λ + ρ C
    assert observe(0.5) == pytest.approx((0.75, 1.0, 0.5))
    assert observe(1.5) == pytest.approx((1.5, 1.25, 0.5))  # λ ← λ + ρ C̄; the first violation is no worse than any
    observe(1.5), observe(1.5)
    assert observe(1.4)[1:] == pytest.approx((1.45, 1.0))  # not halved: ρ doubles
    observe(1.5), observe(1.5)
    assert observe(1.1)[1:] == pytest.approx((1.55, 1.0))  # less than half: ρ stays
    for _ in range(60):
        weight, value, strength = observe(0.0)
    assert (weight, value, strength) == pytest.approx((0.0, 0.0, 1.0))


def test_large_and_broken_errors_are_bounded():
    weight, average = moved([math.inf, math.nan], multiplier="geco")
    assert math.isfinite(weight)
    assert average <= STEEPEST
    assert moved([1e9] * 2000, multiplier="geco", multiplier_rate=1.0)[0] == pytest.approx(LARGEST)


def test_the_layer_moves_its_multiplier_after_the_forward_and_uses_the_one_before():
    layer = SelfNormalizingDense(4, tracking=Penalty(weight=2.0, multiplier="geco", multiplier_rate=0.5))
    constant = SelfNormalizingDense(4, tracking=Penalty(weight=2.0))
    constant.load_state_dict({k: v for k, v in layer.state_dict().items() if "multiplier" not in k})
    x = torch.randn(5, 4)
    for one in (layer, constant):
        with torch.no_grad():
            one.inverse_weight.add_(0.1)
        z, log_det = one(x)
        (z.square().sum(1) - log_det).mean().backward()
    torch.testing.assert_close(layer.weight.grad, constant.weight.grad)
    error = float(layer.reconstruction_error)
    assert float(layer.tracking.penalty_weight) == pytest.approx(2.0 * math.exp(0.5 * 0.1 * min(error, STEEPEST)))
    assert float(constant.tracking.penalty_weight) == 2.0


def test_evaluation_leaves_the_multiplier_alone_and_a_checkpoint_has_it():
    layer = SelfNormalizingDense(4, tracking=Penalty(multiplier="geco", multiplier_rate=0.5))
    layer(torch.randn(3, 4))
    kept = float(layer.tracking.penalty_weight)
    layer.eval()(torch.randn(3, 4))
    assert float(layer.tracking.penalty_weight) == kept
    fresh = SelfNormalizingDense(4, tracking=Penalty(multiplier="geco", multiplier_rate=0.5))
    fresh.load_state_dict(layer.state_dict())
    assert float(fresh.tracking.penalty_weight) == kept
    assert torch.equal(fresh.tracking.multiplier.average, layer.tracking.multiplier.average)
