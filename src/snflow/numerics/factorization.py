"""Factorizations of matrices, and Householder reflections."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from snflow.errors import NotInvertibleError, NumericalWarning

LEAST_ACCURACY = 1e-2
"""The relative error of a solve, condition number × machine epsilon, above which a warning is issued."""


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


@dataclass(frozen=True)
class LUFactor:
    """P A = L U of a square matrix in float64: log|det A| in nats, and solves in O(n²) each.

    Attributes:
        factors: L below the diagonal and U above it, with shape ``(n, n)``.
        pivots: the row exchanges, with shape ``(n,)``.
        log_abs_det: log|det A| in nats, a scalar.

    Example:
        >>> import torch
        >>> factor = LUFactor.of(torch.tensor([[2.0, 0.0], [1.0, 1.0]]), "an example")
        >>> factor.solve(torch.tensor([[2.0, 3.0]]))
        tensor([[1., 2.]])
    """

    factors: Tensor
    pivots: Tensor
    log_abs_det: Tensor

    @classmethod
    def of(cls, matrix: Tensor, owner: str) -> LUFactor:
        """Factorize A in float64.

        Args:
            matrix: A, with shape ``(n, n)``.
            owner: the name of the layer, for error messages.

        Raises:
            NotInvertibleError: A is singular or has a non-finite entry.

        Warns:
            NumericalWarning: a solve has fewer than two correct digits, judging by the ratio of the pivots, a rough
                lower bound on the condition number.
        """
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrix.detach().double())
        sizes = factors.diagonal().abs()
        log_abs_det = sizes.log().sum()
        if not torch.isfinite(log_abs_det):
            finite = bool(torch.isfinite(matrix).all())
            raise NotInvertibleError(
                owner,
                expected="an invertible weight",
                got=f"a {'singular' if finite else 'non-finite'} {len(matrix)}×{len(matrix)} matrix",
                fix="return to an earlier checkpoint, or train with a smaller learning rate or a larger penalty weight",
            )
        warn_of_condition(float(sizes.amax() / sizes.amin()), owner)
        return cls(factors, pivots, log_abs_det)

    def solve(self, rows: Tensor) -> Tensor:
        """Solve A x = y for each row y of ``rows`` ``(m, n)``; the result has the dtype of ``rows``."""
        return self._solve(rows, adjoint=False)

    def solve_transposed(self, rows: Tensor) -> Tensor:
        """Solve Aᵀ x = y for each row y of ``rows`` ``(m, n)``; the result has the dtype of ``rows``."""
        return self._solve(rows, adjoint=True)

    def _solve(self, rows: Tensor, *, adjoint: bool) -> Tensor:
        solution: Tensor = torch.linalg.lu_solve(self.factors, self.pivots, rows.double().mT, adjoint=adjoint)
        return solution.mT.to(rows.dtype)


def warn_of_condition(condition: float, owner: str) -> None:
    """Warn if, with this condition number, a float64 solve has fewer than two correct digits."""
    if condition * torch.finfo(torch.float64).eps > LEAST_ACCURACY:
        message = f"{owner}: the condition number of the weight is about {condition:.0e}: its inverse is inaccurate"
        warnings.warn(message, NumericalWarning, stacklevel=3)


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
