"""How far A(r) is from A(w)⁻¹, seen through a few random vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from snflow.numerics.probes import rademacher
from snflow.selfnorm.gradient import Operators
from snflow.selfnorm.tracking.matrices import CONTRACTING


@dataclass(frozen=True)
class Residual:
    """‖I − A(w) A(r)‖, by its size and by its largest direction.

    Attributes:
        size: ‖I − A(w) A(r)‖_F / √D, estimated.
        growth: ‖E² ν‖ / ‖E ν‖ for E = I − A(w) A(r): near the spectral radius of E where one direction dominates it.
    """

    size: float
    growth: float

    @property
    def contracts(self) -> bool:
        """Whether the powers of E seem to vanish, so that iterations on it converge."""
        return self.size < CONTRACTING and self.growth < CONTRACTING

    @property
    def finite(self) -> bool:
        """Whether both numbers are finite."""
        return math.isfinite(self.size) and math.isfinite(self.growth)


def inverse_residual(
    weight: Tensor, inverse_weight: Tensor, operators: Operators, event_shape: tuple[int, ...], probes: int
) -> Residual:
    """‖I − A(w) A(r)‖_F/√D = √ E ‖ν − A(w) A(r) ν‖²/D, from a few Rademacher ν, and how fast its powers grow.

    Args:
        weight: w.
        inverse_weight: r.
        operators: A of w and A of r.
        event_shape: the shape of one event.
        probes: the number of ν.

    Returns:
        The estimate; reading it waits for the device.

    Example:
        >>> from snflow.numerics.operators import DenseOperator, TransposedDenseOperator
        >>> dense = Operators(DenseOperator(), TransposedDenseOperator())
        >>> round(inverse_residual(2 * torch.eye(3), 0.45 * torch.eye(3), dense, (3,), 2).size, 6)
        0.1
    """

    def error(v: Tensor) -> Tensor:
        return v - operators.forward.product(weight, operators.inverse.product(inverse_weight, v))

    once = error(rademacher(probes, event_shape, weight))
    twice = error(once)
    squares = torch.stack([once.square().mean(), twice.square().mean()])
    first, second = squares.tolist()
    return Residual(math.sqrt(first), math.sqrt(second / first) if first > 0 else 0.0)
