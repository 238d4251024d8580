"""Linear maps with a cheap determinant: LU, QR, SVD, Householder, orthogonal and triangular."""

from __future__ import annotations

from abc import abstractmethod
from typing import final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection
from snflow.errors import check_count
from snflow.numerics.factorization import check_invertible, reflect, undefined_reflections
from snflow.numerics.kept_factor import KeptAccuracy, linear_condition_number


class FactoredLinear(Bijection):
    """z = W x + b, log|det W| from the factors of W: abstract base class of the factored linear layers.

    **To write a subclass**, implement the product, the solve, the log-determinant and the condition number; this class
    adds the bias, and the error and the warning for a weight without an inverse or with an inaccurate one.

    Args:
        features: D.
        bias: whether to add b.

    Shapes:
        x, z: ``(batch, D)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one feature.
        NotInvertibleError: W is singular or not finite, except in ``encode``.

    Warns:
        NumericalWarning: a solve has fewer than two correct digits; once for each value of W.
    """

    bias: nn.Parameter | None

    def __init__(self, features: int, bias: bool) -> None:
        super().__init__()
        check_count(self.label, "features", features)
        self.features = features
        self.event_shape = (features,)
        self.bias = nn.Parameter(torch.zeros(features)) if bias else None
        self._accuracy = KeptAccuracy(self.label)

    @abstractmethod
    def _product(self, x: Tensor) -> Tensor:
        """W x for rows x ``(batch, D)``."""

    @abstractmethod
    def _solve(self, y: Tensor) -> Tensor:
        """W⁻¹ y for rows y ``(batch, D)``."""

    @abstractmethod
    def _log_abs_det(self) -> Tensor:
        """log|det W| in nats, a scalar."""

    @abstractmethod
    def _condition(self) -> float:
        """The condition number of W, or an estimate."""

    def _reflections(self, count: int | None) -> nn.Parameter:
        """Draw random vectors for K reflections, with shape ``(K, D)``."""
        count = self.features if count is None else count
        check_count(self.label, "reflections", count)
        return nn.Parameter(torch.randn(count, self.features))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._encode(x, context), self._finite_log_abs_det().expand(x.shape[0])

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        z = self._product(x)
        return z if self.bias is None else z + self.bias

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._decode(z, context), -self._finite_log_abs_det().expand(z.shape[0])

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        self._finite_log_abs_det()  # raises if there is no inverse
        self._accuracy.check(self._factors_of_weight(), (self.features,), z.dtype, self._condition)
        return self._solve(z if self.bias is None else z - self.bias)

    def _finite_log_abs_det(self) -> Tensor:
        log_abs_det, factors = self._log_abs_det(), self._factors_of_weight()
        # the sum is finite if every entry is
        check_invertible(log_abs_det + sum(factor.sum() for factor in factors), self.label, *factors)
        return log_abs_det

    def _factors_of_weight(self) -> tuple[Tensor, ...]:
        return tuple(parameter for parameter in self.parameters() if parameter is not self.bias)

    def _estimated_condition(self) -> float:
        like = torch.empty(1, self.features).to(self._factors_of_weight()[0])
        return linear_condition_number(self._product, self._solve, like)

    def extra_repr(self) -> str:
        """Show the size."""
        return f"{self.features}, bias={self.bias is not None}"


@final
class TriangularLinear(FactoredLinear):
    """z = T x + b, T lower or upper triangular with the diagonal exp(s); log|det| = Σ s.

    ``forward`` is one product and ``inverse`` one triangular solve, each O(D²) per row; the log-determinant costs O(D).
    The layer is initialized to the identity.

    Args:
        features: D.
        upper: whether T is upper triangular.
        bias: whether to add b.

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

    def __init__(self, features: int, *, upper: bool = False, bias: bool = True) -> None:
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

    def _condition(self) -> float:
        return self._estimated_condition()

    def _matrix(self) -> Tensor:
        strict = self.weight.triu(1) if self.upper else self.weight.tril(-1)
        return strict + torch.diag(self.log_diagonal.exp())


@final
class HouseholderLinear(FactoredLinear):
    """z = H₁ … H_K x + b, Hₖ = I − 2 vₖ vₖᵀ/‖vₖ‖²; log|det| = 0.

    Each direction costs O(K D) per row. K = D reflections can represent every orthogonal matrix with determinant (−1)ᴰ.

    Args:
        features: D.
        reflections: K; ``None`` for D.
        bias: whether to add b.

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

    def __init__(self, features: int, *, reflections: int | None = None, bias: bool = True) -> None:
        super().__init__(features, bias)
        self.vectors = self._reflections(reflections)

    def _product(self, x: Tensor) -> Tensor:
        return reflect(x, self.vectors, transposed=True)

    def _solve(self, y: Tensor) -> Tensor:
        return reflect(y, self.vectors)

    def _log_abs_det(self) -> Tensor:
        return undefined_reflections(self.vectors)

    def _condition(self) -> float:
        return 1.0


@final
class OrthogonalLinear(FactoredLinear):
    """z = exp(A − Aᵀ) x + b: every rotation is the exponential of a skew-symmetric matrix; log|det| = 0.

    The exponential costs O(D³) per call, the product O(D²) per row; the inverse is the transpose. The layer is
    initialized to the identity.

    Args:
        features: D.
        bias: whether to add b.

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

    def __init__(self, features: int, *, bias: bool = True) -> None:
        super().__init__(features, bias)
        self.skew = nn.Parameter(torch.zeros(features, features))

    def _product(self, x: Tensor) -> Tensor:
        return x @ self._matrix().mT

    def _solve(self, y: Tensor) -> Tensor:
        return y @ self._matrix()

    def _log_abs_det(self) -> Tensor:
        return self.skew.new_zeros(())

    def _condition(self) -> float:
        return 1.0

    def _matrix(self) -> Tensor:
        lower = self.skew.tril(-1)
        rotation: Tensor = torch.linalg.matrix_exp(lower - lower.mT)
        return rotation


@final
class LULinear(FactoredLinear):
    """z = P L U x + b, where U has the diagonal ±exp(s); log|det| = Σ s.

    P and the signs are fixed. ``forward`` is one product and ``inverse`` two triangular solves, O(D²) per row; the
    log-determinant costs O(D).

    Args:
        features: D.
        bias: whether to add b.
        identity: whether to initialize the matrix to the identity instead of a random orthogonal matrix.

    Shapes:
        x, z: ``(batch, D)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one feature.

    References:
        Kingma & Dhariwal (2018), Glow, eq. 10-11; Oliva et al. (2018), Transformation autoregressive networks.

    Example:
        >>> import torch, snflow
        >>> layer, x = snflow.LULinear(3), torch.randn(2, 3)
        >>> torch.allclose(layer.decode(layer(x)[0]), x, atol=1e-5)
        True
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, features: int, *, bias: bool = True, identity: bool = False) -> None:
        super().__init__(features, bias)
        first = torch.eye(features)
        if not identity:
            first = torch.linalg.qr(torch.randn(features, features))[0]
        permutation, lower, upper = torch.linalg.lu(first)
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", upper.diagonal().sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(upper.diagonal().abs().log())

    def _product(self, x: Tensor) -> Tensor:
        lower, upper = self._factors()
        return x @ (self.permutation @ lower @ upper).mT

    def _solve(self, y: Tensor) -> Tensor:
        lower, upper = self._factors()
        columns = torch.linalg.solve_triangular(lower, (y @ self.permutation).mT, upper=False, unitriangular=True)
        solution: Tensor = torch.linalg.solve_triangular(upper, columns, upper=True)
        return solution.mT

    def _log_abs_det(self) -> Tensor:
        return self.log_diagonal.sum()

    def _condition(self) -> float:
        return self._estimated_condition()

    def _factors(self) -> tuple[Tensor, Tensor]:
        lower = self.lower.tril(-1) + torch.eye(self.features, dtype=self.lower.dtype, device=self.lower.device)
        return lower, self.upper.triu(1) + torch.diag(self.sign * self.log_diagonal.exp())


@final
class QRLinear(FactoredLinear):
    """z = Q R x + b, Q a product of K reflections, R upper triangular with the diagonal exp(s); log|det| = Σ s.

    ``forward`` costs O(D² + K D) per row; ``inverse`` is one triangular solve and the reflections.

    Args:
        features: D.
        reflections: K; ``None`` for D.
        bias: whether to add b.

    Shapes:
        x, z: ``(batch, D)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a count below one.

    References:
        Hoogeboom et al. (2019), Emerging convolutions, section 4.1.

    Example:
        >>> import torch, snflow
        >>> layer, x = snflow.QRLinear(3), torch.randn(2, 3)
        >>> torch.allclose(layer.decode(layer(x)[0]), x, atol=1e-5)
        True
    """

    def __init__(self, features: int, *, reflections: int | None = None, bias: bool = True) -> None:
        super().__init__(features, bias)
        self.vectors = self._reflections(reflections)
        self.upper = nn.Parameter(torch.zeros(features, features))
        self.log_diagonal = nn.Parameter(torch.zeros(features))

    def _product(self, x: Tensor) -> Tensor:
        return reflect(x @ self._triangle().mT, self.vectors, transposed=True)

    def _solve(self, y: Tensor) -> Tensor:
        columns = reflect(y, self.vectors).mT
        solution: Tensor = torch.linalg.solve_triangular(self._triangle(), columns, upper=True)
        return solution.mT

    def _log_abs_det(self) -> Tensor:
        return self.log_diagonal.sum() + undefined_reflections(self.vectors)

    def _condition(self) -> float:
        return self._estimated_condition()

    def _triangle(self) -> Tensor:
        return self.upper.triu(1) + torch.diag(self.log_diagonal.exp())


@final
class SVDLinear(FactoredLinear):
    """z = U diag(exp(s)) Vᵀ x + b, U and V products of K reflections each; log|det| = Σ s.

    Each direction costs O(K D) per row, and the singular values are explicit parameters.

    Args:
        features: D.
        reflections: K, the number of reflections in each of U and V; ``None`` for D.
        bias: whether to add b.

    Shapes:
        x, z: ``(batch, D)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a count below one.

    References:
        Zhang et al. (2018), Stabilizing gradients for deep neural networks via efficient SVD parameterization.

    Example:
        >>> import torch, snflow
        >>> layer, x = snflow.SVDLinear(3), torch.randn(2, 3)
        >>> torch.allclose(layer.decode(layer(x)[0]), x, atol=1e-5)
        True
    """

    def __init__(self, features: int, *, reflections: int | None = None, bias: bool = True) -> None:
        super().__init__(features, bias)
        self.left = self._reflections(reflections)
        self.right = self._reflections(reflections)
        self.log_singular_values = nn.Parameter(torch.zeros(features))

    def _product(self, x: Tensor) -> Tensor:
        return reflect(reflect(x, self.right) * self.log_singular_values.exp(), self.left, transposed=True)

    def _solve(self, y: Tensor) -> Tensor:
        return reflect(reflect(y, self.left) * (-self.log_singular_values).exp(), self.right, transposed=True)

    def _log_abs_det(self) -> Tensor:
        undefined = undefined_reflections(self.left) + undefined_reflections(self.right)
        return self.log_singular_values.sum() + undefined

    def _condition(self) -> float:
        smallest, largest = self.log_singular_values.detach().double().aminmax()
        return float((largest - smallest).exp())
