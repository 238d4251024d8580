"""Self-normalizing layers."""

from __future__ import annotations

from snflow.selfnorm import SelfNormalizingConv2d, SelfNormalizingDense
from snflow.testing.case import Case, perturbed

CASES: dict[str, Case] = {
    "SelfNormalizingConv2d": Case(perturbed(lambda: SelfNormalizingConv2d(2)), (2, 4, 5)),
    "SelfNormalizingConv2d (1×1)": Case(perturbed(lambda: SelfNormalizingConv2d(3, 1)), (3, 2, 3)),
    "SelfNormalizingConv2d (5×5, no bias)": Case(
        perturbed(lambda: SelfNormalizingConv2d(1, 5, False), 0.03), (1, 4, 4)
    ),
    "SelfNormalizingDense": Case(perturbed(lambda: SelfNormalizingDense(5)), (5,)),
    "SelfNormalizingDense (no bias, orthogonal)": Case(
        perturbed(lambda: SelfNormalizingDense(4, bias=False, initialization="orthogonal")), (4,)
    ),
}
"""Named layers, several a class where an option changes the path."""
