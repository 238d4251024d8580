"""Multipliers: the weight λ of the reconstruction penalty, adapted to the reconstruction error."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor, nn

MultiplierName = Literal["constant", "geco", "differential", "augmented_lagrangian"]

LARGEST = 1e6
"""λ is clamped to [1/LARGEST, LARGEST] for GECO, else to [0, LARGEST], so that it can leave either bound again."""

STEEPEST = 10.0
"""Upper bound of the constraint without a tolerance: at the start of training, errors can be in the thousands."""

BALANCED = 1.0
"""Upper bound of the constraint with a tolerance: since it is at least −1, λ increases no faster than it decreases."""

GROWTH = 2.0
"""Factor by which the augmented Lagrangian increases ρ if the violation has not halved since the last update of λ."""


@final
class Multiplier(nn.Module):
    """λ as the multiplier of the constraint C ≤ 0, updated once per training step from a moving average C̄ of C.

    With a tolerance κ, C = ‖g(f(x)) − x‖² / (κ²‖x‖²) − 1, clipped to [−1, 1]. It is dimensionless, and negative if the
    inverse is more accurate than required, so that λ can decrease. Without a tolerance, C = ‖g(f(x)) − x‖², clipped to
    [0, 10], as used by Keller et al. with GECO. It is never negative, so λ never decreases. The methods:

    - ``geco``: λ ← λ exp(rate · C̄).
    - ``differential``: λ ← max(0, λ + rate · C̄), with the gradient of the penalty weighted by max(0, λ + damping · C).
      This is gradient ascent in λ and gradient descent in the weights; without the damping term, the two may oscillate.
      With it, this is the modified differential method of multipliers.
    - ``augmented_lagrangian``: the gradient of the penalty is weighted by max(0, λ + ρ C). Every ``interval`` steps,
      λ ← max(0, λ + ρ C̄), and ρ is doubled if max(0, C̄) has not halved since the last update; initially ρ = ``rate``.

    Args:
        method: one of the three methods.
        weight: the initial λ.
        rate: step size of λ; for the augmented Lagrangian, the initial ρ.
        average: decay rate of the moving average C̄.
        tolerance: κ; 0 for none.
        damping: weight of the damping term of the differential method.
        interval: number of training steps between two updates of λ by the augmented Lagrangian.

    References:
        Rezende & Viola (2018), Taming VAEs, for GECO; Platt & Barr (1988), Constrained differential optimization;
        Hestenes (1969), Multiplier and gradient methods, and Powell (1969), A method for nonlinear constraints in
        minimization problems, for the augmented Lagrangian; Keller et al. (2021), Self Normalizing Flows.

    Example:
        >>> multiplier = Multiplier("geco", 1.0, rate=0.1, tolerance=0.5)
        >>> penalty_weight = torch.tensor(1.0)
        >>> multiplier.update(penalty_weight, error=torch.tensor(1.0), energy=torch.tensor(2.0))
        >>> penalty_weight
        tensor(1.0101)
    """

    value: Tensor
    average: Tensor
    strength: Tensor
    steps: Tensor
    violation: Tensor

    def __init__(
        self,
        method: MultiplierName,
        weight: float,
        *,
        rate: float = 1e-3,
        average: float = 0.9,
        tolerance: float = 0.0,
        damping: float = 0.0,
        interval: int = 100,
    ) -> None:
        super().__init__()
        self.method, self.rate, self.decay, self.tolerance = method, rate, average, tolerance
        self.damping, self.interval = damping, interval
        self.register_buffer("value", torch.tensor(float(weight)))
        self.register_buffer("average", torch.tensor(0.0))
        if method == "augmented_lagrangian":
            self.register_buffer("strength", torch.tensor(float(rate)))
            self.register_buffer("steps", torch.tensor(0))
            self.register_buffer("violation", torch.tensor(torch.inf))

    @torch.no_grad()
    def update(self, penalty_weight: Tensor, error: Tensor, energy: Tensor) -> None:
        """Update λ, and write the weight of the penalty for the next step to ``penalty_weight``.

        Args:
            penalty_weight: a scalar, modified in place.
            error: mean of ‖g(f(x)) − x‖² over the batch, a scalar.
            energy: mean of ‖x‖² over the batch, a scalar.
        """
        constraint = self.constraint(error, energy)
        self.average.mul_(self.decay).add_(constraint, alpha=1 - self.decay)
        if self.method == "geco":
            self.value.mul_((self.rate * self.average).exp()).clamp_(1 / LARGEST, LARGEST)
            penalty_weight.copy_(self.value)
        elif self.method == "differential":
            self.value.add_(self.rate * self.average).clamp_(0, LARGEST)
            penalty_weight.copy_((self.value + self.damping * constraint).clamp_(0, LARGEST))
        else:
            self._close_round()
            penalty_weight.copy_((self.value + self.strength * constraint).clamp_(0, LARGEST))

    def constraint(self, error: Tensor, energy: Tensor) -> Tensor:
        """C, clipped; 0 if the error is NaN, since the training loop skips such a step."""
        if self.tolerance == 0:
            return torch.nan_to_num(error, nan=0.0, posinf=STEEPEST).clamp(max=STEEPEST)
        allowed = (self.tolerance**2 * energy).clamp_min(torch.finfo(error.dtype).tiny)
        return torch.nan_to_num(error / allowed - 1, nan=0.0, posinf=BALANCED).clamp(max=BALANCED)

    def _close_round(self) -> None:
        """Update λ and ρ of the augmented Lagrangian if an update is due, without device synchronization."""
        self.steps.add_(1)
        due = self.steps % self.interval == 0
        moved = (self.value + self.strength * self.average).clamp_(0, LARGEST)
        self.value.copy_(torch.where(due, moved, self.value))
        violation = self.average.clamp_min(0)
        slow = due & (violation > 0) & (violation > self.violation / 2)
        self.strength.copy_(torch.where(slow, self.strength * GROWTH, self.strength).clamp_(max=LARGEST))
        self.violation.copy_(torch.where(due, violation, self.violation))

    def extra_repr(self) -> str:
        """Show the method."""
        return self.method
