"""Autoregressive layers."""

from snflow.bijections import AffineTransformer, Autoregressive, GatedTransformer, RationalQuadraticTransformer
from snflow.testing.case import Case, perturbed

CASES = {
    "Autoregressive (affine)": Case(perturbed(lambda: Autoregressive(4, AffineTransformer(), 12)), (4,)),
    "Autoregressive (affine, context)": Case(
        perturbed(lambda: Autoregressive(3, AffineTransformer(), 8, context_features=2)), (3,)
    ),
    "Autoregressive (affine, Jacobi)": Case(
        perturbed(lambda: Autoregressive(4, AffineTransformer(), 12, inverse_by="jacobi")), (4,)
    ),
    "Autoregressive (gated, residual, context)": Case(
        perturbed(lambda: Autoregressive(3, GatedTransformer(), 8, 3, context_features=2, residual=True)), (3,)
    ),
    "Autoregressive (spline)": Case(
        perturbed(lambda: Autoregressive(3, RationalQuadraticTransformer(4), 12, residual=True), 0.3), (3,)
    ),
    "Autoregressive (one feature)": Case(perturbed(lambda: Autoregressive(1, AffineTransformer(), 4)), (1,)),
}
