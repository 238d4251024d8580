"""Self-normalizing layers."""

from __future__ import annotations

from snflow.selfnorm import SelfNormalizingConv2d, SelfNormalizingDense, SelfNormalizingStridedConv2d
from snflow.testing.case import Case, perturbed

CASES: dict[str, Case] = {
    "SelfNormalizingConv2d": Case(perturbed(lambda: SelfNormalizingConv2d(2)), (2, 4, 5)),
    "SelfNormalizingConv2d (1×1)": Case(perturbed(lambda: SelfNormalizingConv2d(3, 1)), (3, 2, 3)),
    "SelfNormalizingConv2d (5×5, no bias)": Case(
        perturbed(lambda: SelfNormalizingConv2d(1, 5, False), 0.03), (1, 4, 4)
    ),
    "SelfNormalizingConv2d (3×3 with an inverse of 7×7)": Case(
        perturbed(lambda: SelfNormalizingConv2d(2, 3, inverse_kernel_size=7)), (2, 4, 5)
    ),
    "SelfNormalizingConv2d (dilated)": Case(perturbed(lambda: SelfNormalizingConv2d(2, 3, dilation=2)), (2, 5, 6)),
    "SelfNormalizingConv2d (groups)": Case(perturbed(lambda: SelfNormalizingConv2d(4, 3, groups=2)), (4, 3, 4)),
    "SelfNormalizingConv2d (1×1, groups, secant)": Case(
        perturbed(lambda: SelfNormalizingConv2d(4, 1, groups=2, inverse_tracking="secant")), (4, 3, 2)
    ),
    "SelfNormalizingConv2d (newton)": Case(
        perturbed(lambda: SelfNormalizingConv2d(2, inverse_tracking="newton")), (2, 4, 5)
    ),
    "SelfNormalizingDense": Case(perturbed(lambda: SelfNormalizingDense(5)), (5,)),
    "SelfNormalizingDense (penalty on two rows)": Case(
        perturbed(lambda: SelfNormalizingDense(5, penalty_samples=2)), (5,)
    ),
    "SelfNormalizingDense (newton, Neumann)": Case(
        perturbed(lambda: SelfNormalizingDense(5, inverse_tracking="newton", neumann_terms=2)), (5,)
    ),
    "SelfNormalizingStridedConv2d": Case(perturbed(lambda: SelfNormalizingStridedConv2d(2, 2)), (2, 4, 6)),
    "SelfNormalizingDense (no bias, orthogonal)": Case(
        perturbed(lambda: SelfNormalizingDense(4, bias=False, initialization="orthogonal")), (4,)
    ),
}
"""Named layers, several a class where an option changes the path."""
