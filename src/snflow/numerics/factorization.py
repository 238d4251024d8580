"""Factorizations of matrices, their condition numbers, and Householder reflections."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from snflow.errors import NotInvertibleError, NumericalWarning
from snflow.numerics.krylov import Linear
from snflow.numerics.transforms import is_recorded, is_traced, stands_for_many, value_of

LEAST_ACCURACY = 1e-2
"""The relative error of a solve, condition number × machine epsilon, above which a warning is issued."""

_POWER_STEPS, _POWER_VECTORS = 3, 4
"""Number of steps and of vectors of the power iterations from which a condition number is estimated."""

_FIX = "return to an earlier checkpoint, or train with a smaller learning rate or a larger penalty weight"


class Factor(Protocol):
    """A factorization of A, by any algorithm."""

    @property
    def log_abs_det(self) -> Tensor:
        """log|det A| in nats, a scalar in float64."""
        ...

    def solve(self, rows: Tensor) -> Tensor:
        """Solve A x = y for each row y of ``rows`` ``(m, n)``; the result has the dtype of ``rows``."""
        ...

    def solve_transposed(self, rows: Tensor) -> Tensor:
        """Solve Aᵀ x = y for each row y of ``rows`` ``(m, n)``; the result has the dtype of ``rows``."""
        ...


def check_invertible(log_abs_det: Tensor, owner: str, *weights: Tensor) -> None:
    """Raise an error if log|det A| is not finite.

    Nothing is checked where no value can be read: under a transform of the weight, and in compiled or recorded code.

    Args:
        log_abs_det: log|det A|, or any scalar that is finite if and only if A has an inverse.
        owner: the name of the layer, for the error message.
        weights: the parameters of A.

    Raises:
        NotInvertibleError: A is singular or has a non-finite entry.

    Example:
        >>> check_invertible(torch.tensor(0.5), "an example", torch.ones(1))
    """
    if is_recorded() or stands_for_many(log_abs_det) or any(map(is_traced, weights)):
        return
    if math.isfinite(value_of(log_abs_det).item()):
        return
    finite = all(bool(weight.isfinite().all()) for weight in weights)
    raise NotInvertibleError(
        owner, expected="an invertible weight", got=f"a {'singular' if finite else 'non-finite'} one", fix=_FIX
    )


@torch.no_grad()
def condition_number(
    product: Linear, transposed: Linear, solve: Linear, solve_transposed: Linear, like: Tensor
) -> float:
    """‖A‖₂ ‖A⁻¹‖₂, estimated from below, usually within a factor of two: power iterations for AᵀA and A⁻ᵀA⁻¹.

    Args:
        product: x ↦ A x, linear, for events with shape ``(batch, *event)``.
        transposed: v ↦ Aᵀ v.
        solve: y ↦ A⁻¹ y.
        solve_transposed: v ↦ A⁻ᵀ v.
        like: events ``(batch, *event)``, which provide the shape of one event, the dtype and the device.

    Returns:
        The estimate; NaN or infinity if the products or the solves are not finite.

    References:
        Golub & Van Loan (2013), Matrix computations, section 8.2.

    Example:
        >>> a = torch.tensor([1.0, 10.0, 1000.0])
        >>> round(condition_number(lambda x: a * x, lambda x: a * x, lambda x: x / a, lambda x: x / a, a[None]))
        1000
    """
    shape, generator = (_POWER_VECTORS, *like.shape[1:]), torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)
    norm = _norm(product, transposed, start)
    # scaled by ‖A‖, so that A⁻ᵀA⁻¹ does not overflow
    return float(_norm(lambda y: norm * solve(y), lambda v: norm * solve_transposed(v), start))


def _norm(product: Linear, transposed: Linear, rows: Tensor) -> Tensor:
    """‖A‖₂ from the rows, one power iteration each."""
    event = tuple(range(1, rows.dim()))
    for _ in range(_POWER_STEPS):
        rows = transposed(product(rows))
        rows = rows / torch.linalg.vector_norm(rows, dim=event, keepdim=True)
    norms: Tensor = torch.linalg.vector_norm(product(rows), dim=event)
    return norms.amax()


class Accuracy:
    """The condition number κ of a matrix, and a warning, given once, if what is computed from it is inaccurate.

    Args:
        condition: κ.
        owner: the name of the layer, for the warning.

    Example:
        >>> Accuracy(1e3, "an example").of_solve(torch.float32)
    """

    def __init__(self, condition: float, owner: str) -> None:
        self.condition, self.owner = condition, owner
        self._warned = False

    def of_solve(self, dtype: torch.dtype) -> None:
        """Warn if a right-hand side that is rounded to this dtype leaves fewer than two correct digits: κ ε > 10⁻²."""
        self._check(dtype, LEAST_ACCURACY, "its inverse has fewer than two correct digits")

    def of_log_det(self, dtype: torch.dtype) -> None:
        """Warn if a weight in this dtype is singular up to its own rounding: κ ε > 1."""
        self._check(dtype, 1.0, "it is singular up to rounding, and its log-determinant is that of the rounding errors")

    def _check(self, dtype: torch.dtype, limit: float, consequence: str) -> None:
        if self._warned or self.condition * torch.finfo(dtype).eps <= limit:
            return
        self._warned = True
        name = str(dtype).removeprefix("torch.")
        size = f"about {self.condition:.0e}" if math.isfinite(self.condition) else "too large to be estimated"
        message = f"{self.owner}: the condition number of the weight is {size}"
        warnings.warn(f"{message}: in {name} {consequence}", NumericalWarning, stacklevel=3)


@dataclass(frozen=True)
class LUFactor:
    """P A = L U of a square matrix in float64: log|det A| in nats, and solves in O(n²) each.

    Attributes:
        factors: L below the diagonal and U above it, with shape ``(n, n)``.
        pivots: the row exchanges, with shape ``(n,)``.
        log_abs_det: log|det A| in nats, a scalar.
        accuracy: the condition number.

    Example:
        >>> import torch
        >>> factor = LUFactor.of(torch.tensor([[2.0, 0.0], [1.0, 1.0]]), "an example")
        >>> factor.solve(torch.tensor([[2.0, 3.0]]))
        tensor([[1., 2.]])
    """

    factors: Tensor
    pivots: Tensor
    log_abs_det: Tensor
    accuracy: Accuracy

    @classmethod
    def of(cls, matrix: Tensor, owner: str) -> LUFactor:
        """Factorize A in float64.

        Args:
            matrix: A, with shape ``(n, n)``.
            owner: the name of the layer, for error messages.

        Raises:
            NotInvertibleError: A is singular or has a non-finite entry.

        Warns:
            NumericalWarning: A is singular up to the rounding of its entries; or later, in a solve with rows of a
                dtype in which the solution has fewer than two correct digits. One warning is given per factorization.
        """
        a = matrix.detach().double()
        factors, pivots, _ = torch.linalg.lu_factor_ex(a)
        log_abs_det = factors.diagonal().abs().log().sum()
        check_invertible(log_abs_det, owner, matrix.detach())
        condition = condition_number(
            lambda x: x @ a.mT,
            lambda v: v @ a,
            lambda y: torch.linalg.lu_solve(factors, pivots, y.mT).mT,
            lambda v: torch.linalg.lu_solve(factors, pivots, v.mT, adjoint=True).mT,
            a[:1],
        )
        accuracy = Accuracy(condition, owner)
        accuracy.of_log_det(matrix.dtype)
        return cls(factors, pivots, log_abs_det, accuracy)

    def solve(self, rows: Tensor) -> Tensor:
        """Solve A x = y for each row y of ``rows`` ``(m, n)``; the result has the dtype of ``rows``."""
        return self._solve(rows, adjoint=False)

    def solve_transposed(self, rows: Tensor) -> Tensor:
        """Solve Aᵀ x = y for each row y of ``rows`` ``(m, n)``; the result has the dtype of ``rows``."""
        return self._solve(rows, adjoint=True)

    def _solve(self, rows: Tensor, *, adjoint: bool) -> Tensor:
        self.accuracy.of_solve(rows.dtype)
        solution: Tensor = torch.linalg.lu_solve(self.factors, self.pivots, rows.double().mT, adjoint=adjoint)
        return solution.mT.to(rows.dtype)


def reflect(x: Tensor, vectors: Tensor, *, transposed: bool = False) -> Tensor:
    """x H₁ … H_K for rows x, with Hₖ = I − 2 vₖ vₖᵀ/‖vₖ‖²: an orthogonal map.

    Args:
        x: rows, with shape ``(batch, D)``.
        vectors: v, nonzero, with shape ``(K, D)``.
        transposed: whether to apply the transpose, H_K … H₁, which is the inverse.

    Returns:
        The rows, with the shape of x; norms are preserved.

    References:
        Tomczak & Welling (2016), Improving variational auto-encoders using Householder flow, eq. 6.

    Example:
        >>> import torch
        >>> reflect(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0]]))
        tensor([[-1.,  2.]])
    """
    unit = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    for v in reversed(unit) if transposed else unit:
        x = x - 2 * torch.outer(x @ v, v)
    return x


def undefined_reflections(vectors: Tensor) -> Tensor:
    """Zero, or NaN if a vector is zero: the log-determinant of reflections, without a gradient.

    Example:
        >>> undefined_reflections(torch.eye(2)), undefined_reflections(torch.zeros(1, 2))
        (tensor(0.), tensor(nan))
    """
    norms: Tensor = torch.linalg.vector_norm(vectors.detach(), dim=1)
    return (0 * norms.log()).sum()
