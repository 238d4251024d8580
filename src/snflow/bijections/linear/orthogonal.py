"""Orthogonal matrices: rotations and reflections."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.arguments import check_count
from snflow.bijections.linear.factored import FactoredLinear
from snflow.numerics.reflections import reflect


@final
class HouseholderLinear(FactoredLinear):
    """z = H₁ … H_K x + b, Hₖ = I − 2 vₖ vₖᵀ/‖vₖ‖²; log|det| = 0.

    Either direction costs O(K D) a row. D reflections reach every orthogonal matrix of their determinant (−1)ᴷ.

    Args:
        features: D.
        reflections: K; D of them when ``None``.
        bias: whether there is a b.

    Shapes:
        x, z: ``(batch, D)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a count below one.

    References:
        Tomczak & Welling (2016), Improving variational auto-encoders using Householder flow, eq. 6.

    Example:
        >>> import torch, snflow
        >>> z, log_det = snflow.HouseholderLinear(3)(torch.tensor([[3.0, 4.0, 0.0]]))
        >>> round(z.norm().item(), 4), log_det.item()
        (5.0, 0.0)
    """

    def __init__(self, features: int, reflections: int | None = None, bias: bool = True) -> None:
        super().__init__(features, bias)
        count = features if reflections is None else reflections
        check_count("HouseholderLinear", "reflections", count)
        self.vectors = nn.Parameter(torch.randn(count, features))

    def _product(self, x: Tensor) -> Tensor:
        return reflect(x, self.vectors, transposed=True)

    def _solve(self, y: Tensor) -> Tensor:
        return reflect(y, self.vectors)

    def _log_abs_det(self) -> Tensor:
        return self.vectors.new_zeros(())


@final
class OrthogonalLinear(FactoredLinear):
    """z = exp(A − Aᵀ) x + b: every rotation is the exponential of a skew matrix; log|det| = 0.

    The exponential costs O(D³) a call, the product O(D²) a row; the inverse is the transpose. It begins as the
    identity.

    Args:
        features: D.
        bias: whether there is a b.

    Shapes:
        x, z: ``(batch, D)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one feature.

    References:
        Golinski et al. (2019), Improving normalizing flows via better orthogonal parameterizations.

    Example:
        >>> import torch, snflow
        >>> layer, x = snflow.OrthogonalLinear(3), torch.randn(2, 3)
        >>> torch.equal(layer(x)[0], x)
        True
    """

    def __init__(self, features: int, bias: bool = True) -> None:
        super().__init__(features, bias)
        self.skew = nn.Parameter(torch.zeros(features, features))

    def _product(self, x: Tensor) -> Tensor:
        return x @ self._matrix().mT

    def _solve(self, y: Tensor) -> Tensor:
        return y @ self._matrix()

    def _log_abs_det(self) -> Tensor:
        return self.skew.new_zeros(())

    def _matrix(self) -> Tensor:
        lower = self.skew.tril(-1)
        rotation: Tensor = torch.linalg.matrix_exp(lower - lower.mT)
        return rotation
