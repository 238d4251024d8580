"""What a free square linear operator A(w) must be able to do: the algebra under every dense and convolutional layer."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from snflow.numerics.factorization import Factor


class Operator(Protocol):
    """A(w): a square linear operator on events that is itself linear in its weight w.

    The matrix of A(w) is block-diagonal with equal blocks: one block for a dense layer or a k×k convolution, one for
    each pixel for a 1×1 convolution. Events enter and leave as ``(batch, *event)``.
    """

    @property
    def closed(self) -> bool:
        """Whether A(w)⁻¹ is A(r) for some r, so that :meth:`matrices` can be inverted in place of the operator."""
        ...

    def product(self, weight: Tensor, x: Tensor, plus: Tensor | None = None, times: float = 1.0) -> Tensor:
        """A(w) x + times · plus, with the shape of x ``(batch, *event)``, in one go where the backend can."""
        ...

    def transposed_product(self, weight: Tensor, v: Tensor, plus: Tensor | None = None, times: float = 1.0) -> Tensor:
        """A(w)ᵀ v + times · plus, with the shape of v ``(batch, *event)``."""
        ...

    def weight_gradient(self, weight: Tensor, x: Tensor, v: Tensor) -> Tensor:
        """∂/∂w Σ_b ⟨v_b, A(w) x_b⟩, with the shape of the weight; x and v have shape ``(batch, *event)``."""
        ...

    def transpose(self, weight: Tensor) -> Tensor:
        """Return the weight whose operator is A(w)ᵀ."""
        ...

    def trace_gradient(self, other: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """∂/∂w tr(A(w) A(r)) for r = ``other``: what stands in for ∂log|det A(w)|/∂w when A(r) ≈ A(w)⁻¹."""
        ...

    def add_trace_gradient(self, into: Tensor, other: Tensor, scale: Tensor, event_shape: tuple[int, ...]) -> None:
        """Add scale · :meth:`trace_gradient` to ``into``, in place; the scale has no dimensions."""
        ...

    def block(self, weight: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """Return one diagonal block of the matrix of A(w), with shape ``(n, n)``, differentiable in the weight."""
        ...

    def factor(self, weight: Tensor, event_shape: tuple[int, ...], owner: str) -> Factor:
        """Factorise one diagonal block in float64, in the cheapest way that is stable; ``owner`` is for errors."""
        ...

    def log_abs_det(self, weight: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """log|det A(w)| of all blocks in nats, a scalar, exact and differentiable in the weight, in that same way."""
        ...

    def copies(self, event_shape: tuple[int, ...]) -> int:
        """Count the equal diagonal blocks."""
        ...

    def to_rows(self, x: Tensor) -> Tensor:
        """Cut events ``(batch, *event)`` into the parts that one block acts on: ``(batch · copies, n)``."""
        ...

    def from_rows(self, rows: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """Undo :meth:`to_rows`."""
        ...

    def matrices(self, weight: Tensor) -> Tensor:
        """Matrices ``(m, n, n)`` of a closed operator's weight; A(r) = A(w)⁻¹ where those of r are their inverses."""
        ...

    def from_matrices(self, matrices: Tensor) -> Tensor:
        """Undo :meth:`matrices`."""
        ...
