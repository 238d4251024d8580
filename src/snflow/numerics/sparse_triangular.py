"""Solves with the triangular matrix of a masked convolution, at the speed of compiled code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from snflow.errors import NotInvertibleError


def convolution_matrix(kernel: Tensor, height: int, width: int) -> Any:
    """T(w) of a zero-padded convolution as a SciPy sparse matrix, events ordered by row, column, channel.

    Args:
        kernel: w, with shape ``(C, C, k, k)``, k odd; taps that are zero are left out.
        height: of the image.
        width: of the image.

    Returns:
        A ``(C·H·W, C·H·W)`` matrix in compressed columns, float64.

    Example:
        >>> kernel = torch.zeros(1, 1, 3, 3)
        >>> kernel[0, 0, 1, 0], kernel[0, 0, 1, 1] = 5.0, 2.0
        >>> convolution_matrix(kernel, 1, 2).toarray()
        array([[2., 0.],
               [5., 2.]])
    """
    taps = kernel.detach().to("cpu", torch.float64).numpy()
    channels, _, size, _ = taps.shape
    pixels = np.arange(height * width).reshape(height, width)
    rows, columns, values = [], [], []
    for a, b in np.ndindex(size, size):
        outs, ins = np.nonzero(taps[:, :, a, b])
        up, left = a - size // 2, b - size // 2
        inside = pixels[max(0, -up) : height - max(0, up), max(0, -left) : width - max(0, left)].ravel()
        rows.append((inside[:, None] * channels + outs).ravel())
        columns.append(((inside + up * width + left)[:, None] * channels + ins).ravel())
        values.append(np.broadcast_to(taps[outs, ins, a, b], (len(inside), len(outs))).ravel())
    count = channels * height * width
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return sparse.csc_matrix(entries, shape=(count, count))


@dataclass(frozen=True)
class SparseTriangular:
    """T x = y for a sparse triangular T: substitution in compiled code, O(non-zeros) for each right-hand side.

    SuperLU keeps the given order and takes the diagonal for its pivots: of a triangular matrix that fills in nothing.
    It was the fastest of three, measured with 16 channels on 14×14 pixels: 5 ms for 100 right-hand sides and 0.1 ms
    for one, where ``spsolve_triangular`` takes 21 and 5 ms and the banded ``dtbtrs`` 19 and 0.7 ms.

    Attributes:
        factor: SuperLU's factorisation.

    Example:
        >>> kernel = torch.full((1, 1, 1, 1), 2.0)
        >>> SparseTriangular.of(convolution_matrix(kernel, 1, 2), "an example").solve(torch.tensor([[2.0, 4.0]]))
        tensor([[1., 2.]])
    """

    factor: Any

    @classmethod
    def of(cls, matrix: Any, owner: str) -> SparseTriangular:
        """Take a triangular sparse matrix.

        Raises:
            NotInvertibleError: it is singular or holds a number that is not finite.
        """
        if not (np.isfinite(matrix.data).all() and (np.abs(matrix.diagonal()) > 0).all()):
            raise NotInvertibleError(
                owner, expected="a weight with an inverse", got="a diagonal with a zero, or a number that is not finite"
            )
        options = {"SymmetricMode": True, "Equil": False}
        return cls(splu(matrix, permc_spec="NATURAL", diag_pivot_thresh=0.0, options=options))

    def solve(self, rows: Tensor) -> Tensor:
        """Solve T x = y for each row y of ``rows`` ``(m, n)``; dtype and device of the result are those of ``rows``."""
        return self._solve(rows, "N")

    def solve_transposed(self, rows: Tensor) -> Tensor:
        """Solve Tᵀ x = y for each row y of ``rows`` ``(m, n)``."""
        return self._solve(rows, "T")

    def _solve(self, rows: Tensor, transposed: str) -> Tensor:
        if not len(rows):
            return torch.empty_like(rows)
        columns = rows.detach().to("cpu", torch.float64).numpy().T
        return torch.from_numpy(self.factor.solve(np.asfortranarray(columns), transposed).T.copy()).to(rows)
