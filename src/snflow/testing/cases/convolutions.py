"""Convolutions whose determinants are cheap by their structure."""

from __future__ import annotations

from snflow.bijections import (
    AutoregressiveConv2d,
    ConvExponential,
    EmergingConv2d,
    MaskedResidualConv2d,
    PeriodicConv2d,
    PLUConv2d,
    Woodbury,
)
from snflow.testing.case import Case, perturbed

CASES: dict[str, Case] = {
    "AutoregressiveConv2d": Case(perturbed(lambda: AutoregressiveConv2d(3)), (3, 4, 5)),
    "AutoregressiveConv2d (backward, 5×5 on 2×3)": Case(
        perturbed(lambda: AutoregressiveConv2d(2, 5, "backward", bias=False)), (2, 2, 3)
    ),
    "AutoregressiveConv2d (1×1)": Case(perturbed(lambda: AutoregressiveConv2d(3, 1)), (3, 2, 2)),
    "MaskedResidualConv2d": Case(perturbed(lambda: MaskedResidualConv2d(2, 2), 0.2), (2, 2, 3)),
    "MaskedResidualConv2d (reverse, context)": Case(
        perturbed(lambda: MaskedResidualConv2d(1, 3, reverse=True, context_features=2), 0.2), (1, 3, 2)
    ),
    "ConvExponential": Case(perturbed(lambda: ConvExponential(2), 0.05), (2, 4, 5)),
    "ConvExponential (5×5 on 2×3)": Case(perturbed(lambda: ConvExponential(2, 5), 0.03), (2, 2, 3)),
    "EmergingConv2d": Case(perturbed(lambda: EmergingConv2d(2)), (2, 4, 4)),
    "PLUConv2d": Case(perturbed(lambda: PLUConv2d(3)), (3, 2, 4)),
    "PLUConv2d (one channel)": Case(perturbed(lambda: PLUConv2d(1)), (1, 1, 1)),
    "PeriodicConv2d": Case(perturbed(lambda: PeriodicConv2d(2), 0.05), (2, 4, 6)),
    "PeriodicConv2d (odd sides, no bias)": Case(perturbed(lambda: PeriodicConv2d(2, 3, False), 0.05), (2, 3, 5)),
    "PeriodicConv2d (larger than the image)": Case(perturbed(lambda: PeriodicConv2d(1, 5), 0.05), (1, 2, 1)),
    "Woodbury": Case(perturbed(lambda: Woodbury((3, 4, 2), 2, 3)), (3, 4, 2)),
    "Woodbury (full rank)": Case(perturbed(lambda: Woodbury((2, 2, 2)), 0.05), (2, 2, 2)),
}
"""Named layers, several a class where an option changes the path."""
