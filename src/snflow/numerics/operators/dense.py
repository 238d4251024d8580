"""A(w) = W: a free square matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from snflow.numerics.factorization import Factor, LUFactor

_STRIPS_FROM, _STRIP = 2048, 128
"""A large matrix read down its columns misses the processor's caches at every number. Copied strip by strip first, it
does not: adding Rᵀ took a quarter of the time for D = 3072 and half of it for 2048, and longer for 1568 and fewer."""


@dataclass(frozen=True)
class DenseOperator:
    """z = W x for a free matrix W ``(features, features)`` and events ``(features,)``.

    Example:
        >>> import torch
        >>> weight, x = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0]])
        >>> DenseOperator().product(weight, x)
        tensor([[3., 1.]])
    """

    @property
    def closed(self) -> bool:
        """The inverse of a matrix is a matrix."""
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
        """∂/∂W tr(W R) = Rᵀ."""
        return other.mT

    def add_trace_gradient(self, into: Tensor, other: Tensor, scale: Tensor, event_shape: tuple[int, ...]) -> None:
        """Into += scale · Rᵀ."""
        size = len(other)
        if size < _STRIPS_FROM or other.device.type != "cpu":
            into.addcmul_(other.mT, scale)
            return
        for first in range(0, size, _STRIP):
            strip = slice(first, first + _STRIP)
            into[strip].addcmul_(other[:, strip].contiguous().mT, scale)

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
        """W, as one matrix ``(1, D, D)``."""
        return weight[None]

    def from_matrices(self, matrices: Tensor) -> Tensor:
        """Undo :meth:`matrices`."""
        return matrices[0]


def relative_gradient(weight: Tensor, s: Tensor, grad_s: Tensor) -> Tensor:
    """(Σ_b δ_b x_bᵀ) Wᵀ W = Σ_b δ_b (Wᵀ s_b)ᵀ: the likelihood gradient made relative, in O(batch · D²).

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
