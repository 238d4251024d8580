"""Penalty: the learned inverse is trained by the reconstruction penalty, as in the paper."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.errors import MAX_INT, ConfigError, check_choice, check_count, check_weight
from snflow.selfnorm.gradient import GradientRule, Symmetric
from snflow.selfnorm.multiplier import Multiplier, MultiplierName
from snflow.selfnorm.newton import newton_schulz
from snflow.selfnorm.tracking import Tracking, WeightPair, check_neumann, check_positive


@final
class Penalty(Tracking):
    """½ log p^f + ½ log p^g − λ‖g(f(x)) − x‖²: R is a parameter, trained with W and repaired by a guard if inaccurate.

    The method of the paper. W and R each receive half of the likelihood gradient, and the gradient of the penalty. The
    guard periodically estimates the residual ‖I − RW‖_F/√D. If it exceeds a bound, or if the powers of I − RW grow, R
    is repaired by a Newton–Schulz step, or by the exact inverse if such a step would not contract, or, for a k×k
    convolution, by a least-squares fit.

    Args:
        weight: λ, the weight of the penalty; its initial value if a multiplier is used. The paper uses 1.
        samples: number of randomly drawn rows of each batch on which the penalty is computed, reweighted such that its
            gradient is unbiased, for less computation. ``None`` for all rows.
        on_inverse_only: whether the penalty affects only the inverse weights, not the forward weights.
        symmetric: whether to add ‖f(g(z)) − z‖² to the penalty, where no gradient flows through z. ``"through"`` is the
            penalty of the authors' code, ½‖g(f(x)) − x‖² + ½‖f(g(z)) − z‖² with a gradient through z = f(x).
        neumann_terms: number of terms k ≥ 1 of W⁻ᵀ ≈ Rᵀ Σₖ (I − WᵀRᵀ)ᵏ in the gradient of the log-determinant; 0 in
            the paper.
        neumann_probes: number of random vectors used to estimate these terms.
        guard: whether to check the residual and repair an inaccurate inverse, which the paper does not do. A repair
            replaces R, and thereby changes the gradients of all later steps; ``guard=False`` is the method of the
            paper. A run in which ``repairs`` stays zero is that of the paper, up to the random numbers drawn by the
            checks.
        guard_every: number of training steps between two checks.
        guard_bound: residual ‖I − RW‖_F/√D above which the inverse is repaired.
        probes: number of random vectors with which the guard estimates the residual.
        multiplier: how λ is adapted: ``"constant"`` (not at all), ``"geco"``, ``"differential"`` (the differential
            method of multipliers, or its modified version if damped) or ``"augmented_lagrangian"``; see
            :class:`Multiplier` for the formulas.
        multiplier_rate: step size of λ per training step; for the augmented Lagrangian, the initial weight ρ of the
            quadratic term.
        multiplier_average: decay rate of the moving average of the constraint.
        multiplier_tolerance: κ in the constraint ‖g(f(x)) − x‖ ≤ κ‖x‖; with 0, as in the paper, λ never decreases.
        multiplier_damping: weight of the damping term of the differential method; 0 for none.
        multiplier_interval: number of training steps between two updates of λ by the augmented Lagrangian.

    Raises:
        ConfigError: an option is out of range.

    References:
        Keller et al. (2021), Self Normalizing Flows, eq. 3 and 8–16.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.SelfNormalizingDense(3, tracking=snflow.Penalty(weight=10.0))
        >>> x = torch.randn(5, 3)
        >>> z, log_det = layer(x)
        >>> (0.5 * z.square().sum(1) - log_det).mean().backward()
        >>> layer.inverse_weight.grad.shape
        torch.Size([3, 3])
    """

    trains_inverse = True
    _forwards: Tensor

    def __init__(
        self,
        *,
        weight: float = 1.0,
        samples: int | None = None,
        on_inverse_only: bool = False,
        symmetric: Symmetric = False,
        neumann_terms: int = 0,
        neumann_probes: int = 8,
        guard: bool = True,
        guard_every: int = 20,
        guard_bound: float = 0.3,
        probes: int = 8,
        multiplier: MultiplierName = "constant",
        multiplier_rate: float = 1e-3,
        multiplier_average: float = 0.9,
        multiplier_tolerance: float = 0.0,
        multiplier_damping: float = 0.0,
        multiplier_interval: int = 100,
    ) -> None:
        check_weight("Penalty", "weight", weight, fix="use 1, as in the paper")
        super().__init__(penalty_weight=weight, probes=probes)
        if samples is not None:
            check_count("Penalty", "samples", samples)
        if symmetric not in (True, False, "through"):
            raise ConfigError("Penalty", expected="symmetric to be True, False or 'through'", got=repr(symmetric))
        check_neumann("Penalty", neumann_terms, neumann_probes)
        check_count("Penalty", "guard_every", guard_every, most=MAX_INT)
        check_positive("Penalty", "guard_bound", guard_bound)
        self.samples, self.on_inverse_only, self.symmetric = samples, on_inverse_only, symmetric
        self.neumann_terms, self.neumann_probes = neumann_terms, neumann_probes
        self.guard, self.guard_every, self.guard_bound = guard, guard_every, guard_bound
        check_choice("Penalty", "multiplier", multiplier, MultiplierName)
        check_weight("Penalty", "multiplier_rate", multiplier_rate, fix="use 1e-3")
        check_weight("Penalty", "multiplier_tolerance", multiplier_tolerance, fix="use 0, as in the paper")
        check_weight("Penalty", "multiplier_damping", multiplier_damping, fix="use 0 for no damping")
        check_count("Penalty", "multiplier_interval", multiplier_interval, most=MAX_INT)
        if not 0 <= multiplier_average < 1:
            raise ConfigError("Penalty", expected="multiplier_average in [0, 1)", got=repr(multiplier_average))
        if multiplier_damping > 0 and multiplier != "differential":
            raise ConfigError(
                "Penalty",
                expected="multiplier_damping with multiplier='differential'",
                got=f"multiplier={multiplier!r}",
            )
        self.multiplier = (
            None
            if multiplier == "constant"
            else Multiplier(
                multiplier,
                weight,
                rate=multiplier_rate,
                average=multiplier_average,
                tolerance=multiplier_tolerance,
                damping=multiplier_damping,
                interval=multiplier_interval,
            )
        )
        self.register_buffer("_forwards", torch.tensor(0))
        self._counted: int | None = 0
        self.register_load_state_dict_post_hook(_forget_count)

    def gradient_rule(self, closed: bool) -> GradientRule:
        """Return the gradient of the paper, modified by the options."""
        return GradientRule(
            penalized_weight=not self.on_inverse_only,
            symmetric=self.symmetric,
            samples=self.samples,
            neumann_terms=self.neumann_terms,
            neumann_probes=self.neumann_probes,
        )

    def is_due(self, weight: Tensor, steps: int) -> bool:
        """Whether the guard's periodic check is due, from the number of training steps."""
        if not self.guard:
            return False
        if self._counted is None:
            self._counted = int(self._forwards)
        checks = self._counted // self.guard_every
        self._counted += steps
        self._forwards.add_(steps)
        return self._counted // self.guard_every > checks

    def update(self, pair: WeightPair) -> Tensor | None:
        """Return a repaired r if the current one is too inaccurate."""
        residual = pair.residual(self.probes)
        if self._at_floor(residual, self.guard_bound) and residual.growth < 1:
            return None
        if pair.operators.inverse.closed and residual.contracts:
            return self._accepted(pair, newton_schulz(*pair.matrices()))
        return self.best(pair)

    @property
    def moves_penalty_weight(self) -> bool:
        """Whether a multiplier adapts λ."""
        return self.multiplier is not None

    def observe(self, error: Tensor, energy: Tensor) -> None:
        """Update λ by the multiplier."""
        if self.multiplier is not None:
            self.multiplier.update(self.penalty_weight, error, energy)

    def extra_repr(self) -> str:
        """Show λ and whether there is a guard."""
        return f"weight={float(self.penalty_weight):g}" + ("" if self.guard else ", guard=False")


def _forget_count(penalty: nn.Module, _: object) -> None:
    if isinstance(penalty, Penalty):
        penalty._counted = None
