"""Element-wise layers, couplings by any transformer, batch normalization."""

import torch

from snflow.bijections import (
    AdditiveTransformer,
    AffineTransformer,
    BatchNorm,
    CircularSplineTransformer,
    Coupling,
    Elementwise,
    GatedTransformer,
    RationalQuadraticTransformer,
    Scaling,
)
from snflow.bijections.coupling import alternating, checkerboard, halves
from snflow.nets import MLP, ConvNet
from snflow.testing.case import Case, perturbed


def angles(*size: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Uniform angles in (−π, π)."""
    return torch.pi * (2 * torch.rand(*size, dtype=dtype) - 1)


CASES = {
    "Elementwise (affine)": Case(perturbed(lambda: Elementwise(AffineTransformer(), (2, 3))), (2, 3)),
    "Elementwise (additive)": Case(perturbed(lambda: Elementwise(AdditiveTransformer(), (3,))), (3,)),
    "Elementwise (gated)": Case(perturbed(lambda: Elementwise(GatedTransformer(), (3,))), (3,)),
    "Elementwise (spline)": Case(perturbed(lambda: Elementwise(RationalQuadraticTransformer(5), (2, 3)), 1.0), (2, 3)),
    "Elementwise (circular)": Case(
        perturbed(lambda: Elementwise(CircularSplineTransformer(5), (3,)), 0.2), (3,), sample=angles, smooth=False
    ),
    "Scaling": Case(perturbed(lambda: Scaling((2, 2))), (2, 2)),
    "BatchNorm": Case(perturbed(lambda: BatchNorm(3)), (3,)),
    "BatchNorm (channels)": Case(perturbed(lambda: BatchNorm(3, image=True)), (3, 2, 2)),
    "Coupling (features)": Case(perturbed(lambda: Coupling(alternating(5), AffineTransformer(), MLP(3, 4, 8))), (5,)),
    "Coupling (features, context)": Case(
        perturbed(
            lambda: Coupling(halves(4, 1), AdditiveTransformer(), MLP(2, 2, 8, 3, 2, residual=True), context_features=2)
        ),
        (4,),
    ),
    "Coupling (spline)": Case(
        perturbed(lambda: Coupling(halves(3), RationalQuadraticTransformer(4), MLP(1, 22, 8)), 0.3), (3,)
    ),
    "Coupling (channels)": Case(
        perturbed(lambda: Coupling(halves(3), AffineTransformer(), ConvNet(1, 4, 4), image=True)),
        (3, 4, 4),
        smooth=False,
    ),
    "Coupling (checkerboard)": Case(
        perturbed(lambda: Coupling(checkerboard(4, 4), AffineTransformer(), ConvNet(2, 4, 4))), (2, 4, 4), smooth=False
    ),
}
