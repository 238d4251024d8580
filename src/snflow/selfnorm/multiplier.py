"""Multipliers: the weight λ of the reconstruction penalty as an answer to the reconstruction error."""

from __future__ import annotations

import torch
from torch import Tensor

from snflow.selfnorm.options import LearnedInverse

LARGEST = 1e6
"""λ stays within [1/LARGEST, LARGEST], so that it can come back from either end."""

STEEPEST = 10.0
"""Largest constraint that counts without a tolerance: at the start of training an error can be in the thousands."""

BALANCED = 1.0
"""Largest constraint that counts with a tolerance: as none is below −1, λ rises no faster than it falls."""


@torch.no_grad()
def update_multiplier(
    penalty_weight: Tensor, average: Tensor, error: Tensor, energy: Tensor, options: LearnedInverse
) -> None:
    """λ ← λ exp(rate · C̄) (GECO) or λ ← max(0, λ + rate · λ₀ · C̄) (differential), C̄ a moving average of the constraint.

    With a tolerance κ the constraint is C = ‖g(f(x)) − x‖² / (κ²‖x‖²) − 1, a number without a scale that is negative
    where the inverse is better than asked: λ falls again; it counts within [−1, 1]. Without one GECO takes
    C = ‖g(f(x)) − x‖², as Keller et al. do: it never is negative.

    Args:
        penalty_weight: λ, a scalar, changed in place.
        average: C̄, a scalar, changed in place; zero at first.
        error: mean of ‖g(f(x)) − x‖² over the batch, a scalar.
        energy: mean of ‖x‖² over the batch, a scalar.
        options: which rule, its rate, average and tolerance.

    References:
        Rezende & Viola (2018), Taming VAEs, for GECO; Platt & Barr (1988), Constrained differential optimization;
        Keller et al. (2021), Self Normalizing Flows, section 5.4.

    Example:
        >>> options = LearnedInverse(multiplier="geco", multiplier_rate=0.1, multiplier_tolerance=0.5)
        >>> weight, average = torch.tensor(1.0), torch.tensor(0.0)
        >>> update_multiplier(weight, average, torch.tensor(1.0), torch.tensor(2.0), options)
        >>> weight
        tensor(1.0101)
    """
    if options.multiplier == "constant":
        return
    tolerance = options.multiplier_tolerance
    constraint = (
        error if tolerance == 0 else error / (tolerance**2 * energy).clamp_min(torch.finfo(error.dtype).tiny) - 1
    )
    # A step whose numbers are not finite is left out by the training loop; λ must not remember it.
    largest = STEEPEST if tolerance == 0 else BALANCED
    constraint = torch.nan_to_num(constraint, nan=0.0, posinf=largest).clamp(max=largest)
    decay = options.multiplier_average
    average.mul_(decay).add_(constraint, alpha=1 - decay)
    if options.multiplier == "geco":
        penalty_weight.mul_((options.multiplier_rate * average).exp()).clamp_(1 / LARGEST, LARGEST)
    else:
        penalty_weight.add_(options.multiplier_rate * average).clamp_(0, LARGEST)
