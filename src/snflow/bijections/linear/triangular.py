"""Triangular matrices."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.bijections.linear.factored import FactoredLinear


@final
class TriangularLinear(FactoredLinear):
    """z = T x + b, T lower or upper triangular with the diagonal exp(s); log|det| = Σ s.

    Forward is one product, inverse one triangular solve, O(D²) a row each; the log-determinant costs O(D). It begins as
    the identity.

    Args:
        features: D.
        upper: whether T is upper triangular.
        bias: whether there is a b.

    Shapes:
        x, z: ``(batch, D)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one feature.

    References:
        Tomczak & Welling (2016), Improving variational auto-encoders using convex combination linear inverse
        autoregressive flow.

    Example:
        >>> import torch, snflow
        >>> layer, x = snflow.TriangularLinear(3), torch.randn(2, 3)
        >>> torch.equal(layer(x)[0], x)
        True
    """

    def __init__(self, features: int, upper: bool = False, bias: bool = True) -> None:
        super().__init__(features, bias)
        self.upper = upper
        self.weight = nn.Parameter(torch.zeros(features, features))
        self.log_diagonal = nn.Parameter(torch.zeros(features))

    def _product(self, x: Tensor) -> Tensor:
        return x @ self._matrix().mT

    def _solve(self, y: Tensor) -> Tensor:
        columns: Tensor = torch.linalg.solve_triangular(self._matrix(), y.mT, upper=self.upper)
        return columns.mT

    def _log_abs_det(self) -> Tensor:
        return self.log_diagonal.sum()

    def _matrix(self) -> Tensor:
        strict = self.weight.triu(1) if self.upper else self.weight.tril(-1)
        return strict + torch.diag(self.log_diagonal.exp())
