"""Linear layers that are held as factors."""

from snflow.bijections import (
    HouseholderLinear,
    LULinear,
    OrthogonalLinear,
    Permutation,
    QRLinear,
    SVDLinear,
    TriangularLinear,
)
from snflow.testing.case import Case, perturbed

CASES = {
    "HouseholderLinear": Case(perturbed(lambda: HouseholderLinear(4)), (4,)),
    "HouseholderLinear (2 reflections, no bias)": Case(perturbed(lambda: HouseholderLinear(4, 2, bias=False)), (4,)),
    "OrthogonalLinear": Case(perturbed(lambda: OrthogonalLinear(4)), (4,)),
    "LULinear": Case(perturbed(lambda: LULinear(4)), (4,)),
    "LULinear (identity first, no bias)": Case(perturbed(lambda: LULinear(3, bias=False, identity=True)), (3,)),
    "QRLinear": Case(perturbed(lambda: QRLinear(4, 3)), (4,)),
    "SVDLinear": Case(perturbed(lambda: SVDLinear(4)), (4,)),
    "TriangularLinear": Case(perturbed(lambda: TriangularLinear(4)), (4,)),
    "TriangularLinear (upper)": Case(perturbed(lambda: TriangularLinear(4, upper=True, bias=False)), (4,)),
    "Permutation": Case(lambda: Permutation([2, 0, 3, 1]), (4,)),
    "Permutation (channels)": Case(lambda: Permutation([2, 0, 1], image=True), (3, 2, 2)),
}
