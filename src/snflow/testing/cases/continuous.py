"""Differential equations."""

from __future__ import annotations

from snflow.bijections import ContinuousFlow
from snflow.nets import VelocityNet
from snflow.testing.case import Case, perturbed

CASES = {
    # steps of its own choice are no differentiable function: tests/test_continuous.py has its gradients
    "ContinuousFlow (adaptive, adjoint)": Case(
        perturbed(lambda: ContinuousFlow(VelocityNet((2,), 4), (2,), tolerance=1e-9), 0.3),
        (2,),
        round_trip=1e-7,
        log_det=1e-7,
        rows=1e-7,
        smooth=False,
    ),
    "ContinuousFlow (context)": Case(
        perturbed(
            lambda: ContinuousFlow(
                VelocityNet((2,), 4, 1, context_features=2), (2,), context_shape=(2,), solver="rk4", adjoint=False
            ),
            0.3,
        ),
        (2,),
        round_trip=1e-6,
        log_det=1e-6,
    ),
    "ContinuousFlow (images)": Case(
        perturbed(
            lambda: ContinuousFlow(VelocityNet((1, 2, 2), 2, 1), (1, 2, 2), solver="rk4", steps=10, adjoint=False), 0.3
        ),
        (1, 2, 2),
        round_trip=1e-5,
        log_det=1e-5,
    ),
}
