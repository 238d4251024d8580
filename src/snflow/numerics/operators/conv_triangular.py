"""Convolutions whose matrix is triangular, as linear operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from snflow.numerics.convolution_matrices import SparseTriangular, convolution_matrix
from snflow.numerics.factorization import Factor
from snflow.numerics.operators.conv import ConvOperator


@final
@dataclass(frozen=True)
class TriangularConvOperator(ConvOperator):
    """z = w ⋆ x for a kernel w whose matrix is triangular, with elements ordered by row, column and channel.

    Example:
        >>> import torch
        >>> kernel = torch.zeros(1, 1, 3, 3)
        >>> kernel[0, 0, 1, 0], kernel[0, 0, 1, 1] = 5.0, 2.0
        >>> TriangularConvOperator(3).block(kernel, (1, 1, 2))
        tensor([[2., 0.],
                [5., 2.]])
    """

    def block(self, weight: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """T(w), for any kernel size."""
        channels, height, width = event_shape
        size = channels * height * width
        units = torch.eye(size, dtype=weight.dtype, device=weight.device)
        return self.to_rows(self.product(weight, self.from_rows(units, event_shape))).mT

    def factor(self, weight: Tensor, event_shape: tuple[int, ...], owner: str) -> Factor:
        """T(w) as a sparse triangular matrix."""
        return SparseTriangular.of(convolution_matrix(weight, *event_shape[1:]), owner)

    def copies(self, event_shape: tuple[int, ...]) -> int:
        """One."""
        return 1

    def to_rows(self, x: Tensor) -> Tensor:
        """Flatten images by row, column and channel."""
        return x.movedim(1, -1).flatten(1)

    def from_rows(self, rows: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """Undo :meth:`to_rows`."""
        channels, height, width = event_shape
        return rows.reshape(-1, height, width, channels).movedim(-1, 1)
