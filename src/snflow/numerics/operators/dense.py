"""Linear operators that depend on a weight: the interface, and dense matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor
from torch.nn import functional

from snflow.numerics.factorization import Factor, LUFactor
from snflow.numerics.transforms import add_scaled


class Operator(Protocol):
    """A(w): a square linear operator on events that is linear in its weight w.

    The matrix of A(w) is block-diagonal with identical blocks: a single block for a dense layer or a k×k convolution,
    and one per pixel for a 1×1 convolution. Events have shape ``(batch, *event)``.
    """

    @property
    def closed(self) -> bool:
        """Whether A(w)⁻¹ = A(r) for some r, so that inverting the operator amounts to inverting :meth:`matrices`."""
        ...

    def product(self, weight: Tensor, x: Tensor, plus: Tensor | None = None, times: float = 1.0) -> Tensor:
        """A(w) x + times · plus, with the shape of x ``(batch, *event)``, fused if the backend supports it."""
        ...

    def transposed_product(self, weight: Tensor, v: Tensor, plus: Tensor | None = None, times: float = 1.0) -> Tensor:
        """A(w)ᵀ v + times · plus, with the shape of v ``(batch, *event)``."""
        ...

    def weight_gradient(self, weight: Tensor, x: Tensor, v: Tensor) -> Tensor:
        """∂/∂w Σ_b ⟨v_b, A(w) x_b⟩, with the shape of the weight; x and v have shape ``(batch, *event)``."""
        ...

    def transpose(self, weight: Tensor) -> Tensor:
        """Return the weight of the operator A(w)ᵀ."""
        ...

    def trace_gradient(self, other: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """∂/∂w tr(A(w) A(r)) for r = ``other``, which replaces ∂log|det A(w)|/∂w when A(r) ≈ A(w)⁻¹."""
        ...

    def add_trace_gradient(self, into: Tensor, other: Tensor, scale: Tensor, event_shape: tuple[int, ...]) -> None:
        """Add scale · :meth:`trace_gradient` to ``into`` in place; the scale is a zero-dimensional tensor."""
        ...

    def block(self, weight: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """Return one diagonal block of the matrix of A(w), with shape ``(n, n)``, differentiable in the weight."""
        ...

    def factor(self, weight: Tensor, event_shape: tuple[int, ...], owner: str) -> Factor:
        """Factorize one diagonal block in float64 by the cheapest stable method; errors name the ``owner``."""
        ...

    def log_abs_det(self, weight: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """log|det A(w)| of all blocks in nats, a scalar, exact and differentiable, by the method of :meth:`factor`."""
        ...

    def copies(self, event_shape: tuple[int, ...]) -> int:
        """Return the number of identical diagonal blocks."""
        ...

    def to_rows(self, x: Tensor) -> Tensor:
        """Split events ``(batch, *event)`` into the parts on which a block acts: ``(batch · copies, n)``."""
        ...

    def from_rows(self, rows: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """Undo :meth:`to_rows`."""
        ...

    def matrices(self, weight: Tensor) -> Tensor:
        """Return the transposed blocks ``(m, n, n)`` of a closed operator.

        A(r) = A(w)⁻¹ if and only if the matrices of r are the inverses of those of w. They are transposed because a
        dense layer stores its inverse in this form: see :class:`TransposedDenseOperator`.
        """
        ...

    def from_matrices(self, matrices: Tensor) -> Tensor:
        """Undo :meth:`matrices`."""
        ...


@dataclass(frozen=True)
class DenseOperator:
    """z = W x for an unconstrained matrix W ``(features, features)`` and events ``(features,)``.

    In :meth:`trace_gradient` the other operator is a :class:`TransposedDenseOperator`.

    Example:
        >>> import torch
        >>> weight, x = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0]])
        >>> DenseOperator().product(weight, x)
        tensor([[3., 1.]])
    """

    @property
    def closed(self) -> bool:
        """True: the inverse of a matrix is a matrix."""
        return True

    def product(self, weight: Tensor, x: Tensor, plus: Tensor | None = None, times: float = 1.0) -> Tensor:
        """W x + times · plus."""
        return functional.linear(x, weight) if plus is None else torch.addmm(plus, x, weight.mT, beta=times)

    def transposed_product(self, weight: Tensor, v: Tensor, plus: Tensor | None = None, times: float = 1.0) -> Tensor:
        """Wᵀ v + times · plus."""
        return v @ weight if plus is None else torch.addmm(plus, v, weight, beta=times)

    def weight_gradient(self, weight: Tensor, x: Tensor, v: Tensor) -> Tensor:
        """Σ_b v_b x_bᵀ."""
        return v.mT @ x

    def transpose(self, weight: Tensor) -> Tensor:
        """Wᵀ."""
        return weight.mT

    def trace_gradient(self, other: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """∂/∂W tr(W rᵀ) = r."""
        return other

    def add_trace_gradient(self, into: Tensor, other: Tensor, scale: Tensor, event_shape: tuple[int, ...]) -> None:
        """Into += scale · r."""
        add_scaled(into, other, scale)

    def block(self, weight: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """W itself."""
        return weight

    def factor(self, weight: Tensor, event_shape: tuple[int, ...], owner: str) -> Factor:
        """P W = L U."""
        return LUFactor.of(weight, owner)

    def log_abs_det(self, weight: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """log|det W|."""
        log_abs_det: Tensor = torch.linalg.slogdet(weight)[1]
        return log_abs_det

    def copies(self, event_shape: tuple[int, ...]) -> int:
        """One."""
        return 1

    def to_rows(self, x: Tensor) -> Tensor:
        """Events are rows already."""
        return x

    def from_rows(self, rows: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """Rows are events already."""
        return rows

    def matrices(self, weight: Tensor) -> Tensor:
        """Wᵀ ``(1, D, D)``."""
        return weight.mT[None]

    def from_matrices(self, matrices: Tensor) -> Tensor:
        """Undo :meth:`matrices`."""
        return matrices[0].mT


@final
class TransposedDenseOperator(DenseOperator):
    """z = rᵀ x: the inverse of a :class:`DenseOperator`, parameterized by its transpose r ≈ W⁻ᵀ.

    Since ∂log|det W|/∂W = W⁻ᵀ, the self-normalized gradient adds r itself. If R were stored instead, it would have to
    be read column by column; for a matrix that does not fit into the caches, this takes longer than a product with a
    hundred rows.

    Example:
        >>> import torch
        >>> r, x = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0]])
        >>> TransposedDenseOperator().product(r, x)
        tensor([[1., 3.]])
    """

    def product(self, weight: Tensor, x: Tensor, plus: Tensor | None = None, times: float = 1.0) -> Tensor:
        """rᵀ x + times · plus."""
        return x @ weight if plus is None else torch.addmm(plus, x, weight, beta=times)

    def transposed_product(self, weight: Tensor, v: Tensor, plus: Tensor | None = None, times: float = 1.0) -> Tensor:
        """r v + times · plus."""
        return functional.linear(v, weight) if plus is None else torch.addmm(plus, v, weight.mT, beta=times)

    def weight_gradient(self, weight: Tensor, x: Tensor, v: Tensor) -> Tensor:
        """Σ_b x_b v_bᵀ."""
        return x.mT @ v

    def block(self, weight: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """rᵀ."""
        return weight.mT

    def factor(self, weight: Tensor, event_shape: tuple[int, ...], owner: str) -> Factor:
        """P rᵀ = L U."""
        return LUFactor.of(weight.mT, owner)

    def matrices(self, weight: Tensor) -> Tensor:
        """The transpose of rᵀ: r, as ``(1, D, D)``."""
        return weight[None]

    def from_matrices(self, matrices: Tensor) -> Tensor:
        """Undo :meth:`matrices`."""
        return matrices[0]


def relative_gradient(weight: Tensor, s: Tensor, grad_s: Tensor) -> Tensor:
    """(Σ_b δ_b x_bᵀ) Wᵀ W = Σ_b δ_b (Wᵀ s_b)ᵀ: the relative gradient of the likelihood, in O(batch · D²).

    Args:
        weight: W, with shape ``(features, features)``.
        s: W x, with shape ``(batch, features)``.
        grad_s: δ = ∂L/∂s, with shape ``(batch, features)``.

    Returns:
        The relative gradient, with the shape of the weight.

    References:
        Gresele, Fissore, Javaloy, Schölkopf, Hyvärinen (2020), Relative gradient optimization of the Jacobian term in
        unsupervised deep learning, eq. 9.

    Example:
        >>> import torch
        >>> relative_gradient(2 * torch.eye(2), torch.ones(1, 2), torch.ones(1, 2))
        tensor([[2., 2.],
                [2., 2.]])
    """
    return torch.mm(grad_s.mT, s @ weight)
