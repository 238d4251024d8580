"""Every transformer, element by element and inside of an autoregressive layer or a coupling."""

import torch

from snflow.bijections import (
    CDF,
    Autoregressive,
    BlockAutoregressive,
    Coupling,
    CubicSplineTransformer,
    Elementwise,
    IntegralTransformer,
    LinearSplineTransformer,
    LogisticMixtureTransformer,
    QuadraticSplineTransformer,
    SigmoidalTransformer,
    SumOfSquaresTransformer,
)
from snflow.bijections.coupling import halves
from snflow.nets import MLP
from snflow.testing.case import Case, perturbed

CASES = {
    "CDF (normal)": Case(lambda: CDF(torch.distributions.Normal, loc=torch.tensor([0.5, -1.0]), scale=2.0), (2,)),
    "CDF (Laplace)": Case(lambda: CDF(torch.distributions.Laplace, loc=0.0, scale=1.0), (2, 2)),
    "BlockAutoregressive": Case(perturbed(lambda: BlockAutoregressive(3, 4, 2), 0.3), (3,)),
    "BlockAutoregressive (context)": Case(perturbed(lambda: BlockAutoregressive(2, 3, context_features=2)), (2,)),
    "Elementwise (linear spline)": Case(perturbed(lambda: Elementwise(LinearSplineTransformer(6), (3,)), 0.5), (3,)),
    "Elementwise (quadratic spline)": Case(
        perturbed(lambda: Elementwise(QuadraticSplineTransformer(6), (2, 2)), 0.5), (2, 2)
    ),
    "Elementwise (cubic spline)": Case(perturbed(lambda: Elementwise(CubicSplineTransformer(6), (3,)), 0.5), (3,)),
    "Elementwise (logistic mixture)": Case(
        perturbed(lambda: Elementwise(LogisticMixtureTransformer(4), (2, 2)), 0.5), (2, 2)
    ),
    "Elementwise (sigmoidal)": Case(perturbed(lambda: Elementwise(SigmoidalTransformer(4), (3,)), 0.5), (3,)),
    "Elementwise (integral)": Case(perturbed(lambda: Elementwise(IntegralTransformer(3, 6), (3,)), 0.3), (3,)),
    "Elementwise (sum of squares)": Case(perturbed(lambda: Elementwise(SumOfSquaresTransformer(), (3,)), 0.5), (3,)),
    "Autoregressive (sigmoidal)": Case(
        perturbed(lambda: Autoregressive(3, SigmoidalTransformer(3, 2), 8, context_features=2)), (3,)
    ),
    "Autoregressive (integral)": Case(perturbed(lambda: Autoregressive(3, IntegralTransformer(2, 6), 8)), (3,)),
    "Autoregressive (sum of squares)": Case(
        perturbed(lambda: Autoregressive(3, SumOfSquaresTransformer(2, 2), 8)), (3,)
    ),
    "Coupling (logistic mixture)": Case(
        perturbed(lambda: Coupling(halves(3), LogisticMixtureTransformer(2), MLP(1, 16, 6))), (3,)
    ),
}
