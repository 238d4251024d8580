"""Options of the learned inverse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypedDict

from snflow.errors import check_choice, check_option

TrackingName = Literal["penalty", "newton", "secant"]
MultiplierName = Literal["constant", "geco", "differential"]


@dataclass(frozen=True)
class LearnedInverse:
    """How a layer learns its inverse g, and how g is kept near f⁻¹."""

    penalty_weight: float = 1.0
    """Weight λ of the reconstruction penalty ‖g(f(x)) − x‖²; the first one where a multiplier changes it."""
    symmetric_penalty: bool = False
    """Also penalise ‖f(g(z)) − z‖²."""
    penalty_only_inverse: bool = False
    """Keep the penalty from the forward weights, so that only the learned inverse follows."""
    penalty_samples: int | None = None
    """Rows of a batch, drawn anew each step, on which the penalty is taken, and counted for the others too: an unbiased
    estimate of its gradient for less work. null: all of them."""
    inverse_tracking: TrackingName = "penalty"
    """How g follows: by gradients of the penalty (the paper), or by newton or secant steps of its own."""
    tracking_tolerance: float = 0.1
    """newton and secant: the residual ‖I − WR‖/√D that is left alone."""
    tracking_probes: int = 8
    """Random vectors by which the residual is estimated."""
    tracking_pull: float = 0.0
    """newton and secant: weight of the penalty's gradient on w; keeps f among the maps that a g can invert."""
    neumann_terms: int | None = None
    """Terms k ≥ 1 of W⁻ᵀ ≈ Rᵀ Σₖ (I − WᵀRᵀ)ᵏ in the log-det gradient; 0 takes Rᵀ for W⁻ᵀ. null: 1 for a k×k convolution
    that newton or secant follows, whose inverse is no convolution, else 0."""
    neumann_probes: int = 8
    """Random vectors by which those terms are estimated."""
    guard: bool = True
    """penalty: watch the residual, and repair an inverse that is lost."""
    guard_every: int = 20
    """penalty: training steps between two looks of the guard."""
    guard_bound: float = 0.3
    """penalty: the residual ‖I − WR‖/√D past which the guard repairs."""
    multiplier: MultiplierName = "constant"
    """What changes λ: nothing, GECO, or the modified differential method of multipliers."""
    multiplier_rate: float = 1e-3
    """Rate at which λ moves with the constraint, a training step."""
    multiplier_average: float = 0.9
    """Decay of the moving average of the constraint."""
    multiplier_tolerance: float = 0.0
    """κ: ‖g(f(x)) − x‖ ≤ κ‖x‖ is what the multiplier asks; at 0 GECO is the paper's, and λ never falls."""

    def __post_init__(self) -> None:
        require = partial(check_option, "flow", self)
        for field in ("penalty_weight", "tracking_pull", "multiplier_rate", "multiplier_tolerance"):
            value = getattr(self, field)
            require(field, math.isfinite(value) and value >= 0, "a finite number of at least 0")
        for field in ("tracking_tolerance", "guard_bound"):
            require(field, getattr(self, field) > 0, "a number above 0")
        for field in ("tracking_probes", "neumann_probes", "guard_every"):
            require(field, getattr(self, field) >= 1, "a whole number of at least 1")
        require(
            "neumann_terms",
            self.neumann_terms is None or self.neumann_terms >= 0,
            "a whole number of at least 0, or null",
        )
        samples = self.penalty_samples
        require("penalty_samples", samples is None or samples >= 1, "a whole number of at least 1, or null")
        require("multiplier_average", 0 <= self.multiplier_average < 1, "a number in [0, 1)")
        check_choice("flow", "inverse_tracking", self.inverse_tracking, TrackingName)
        check_choice("flow", "multiplier", self.multiplier, MultiplierName)


class LearnedInverseArguments(TypedDict, total=False):
    """The fields of :class:`LearnedInverse`, as keyword arguments of layers and flows."""

    penalty_weight: float
    symmetric_penalty: bool
    penalty_only_inverse: bool
    penalty_samples: int | None
    inverse_tracking: TrackingName
    tracking_tolerance: float
    tracking_probes: int
    tracking_pull: float
    neumann_terms: int | None
    neumann_probes: int
    guard: bool
    guard_every: int
    guard_bound: float
    multiplier: MultiplierName
    multiplier_rate: float
    multiplier_average: float
    multiplier_tolerance: float
