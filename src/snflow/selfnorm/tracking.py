"""How a learned inverse is kept near the inverse: which gradients the weight and the inverse weight get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TrackingName = Literal["penalty"]


@dataclass(frozen=True)
class InverseTracking:
    """(a, b): the share a of the likelihood gradient that W gets and the share b that R gets.

    Attributes:
        weight_share: a; one half where the objective averages the likelihoods of f and of g⁻¹, as in the paper.
        inverse_share: b; zero for a rule in which R is no parameter of the optimizer.
        penalized: whether ‖g(f(x)) − x‖² has a gradient.
    """

    weight_share: float
    inverse_share: float
    penalized: bool


TRACKINGS: dict[TrackingName, InverseTracking] = {
    # ½ log p^f + ½ log p^g − λ‖g(f(h)) − h‖²: Keller et al. (2021), eq. 3
    "penalty": InverseTracking(weight_share=0.5, inverse_share=0.5, penalized=True),
}
