"""Log-determinants of convolutions by block elimination over image rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snflow.numerics.convolution_matrices import BlockToeplitz, BlockToeplitzFactor
from snflow.numerics.factorization import Accuracy
from snflow.numerics.transforms import stands_for_many

_FEWEST = 3
"""Number of block rows below which the full matrix is no more expensive."""


def row_matrix(kernel: Tensor, dilation: int, event_shape: tuple[int, ...]) -> BlockToeplitz | None:
    """T(w) as a block-tridiagonal block Toeplitz matrix, with elements ordered by image row, channel and column.

    A block consists of d(k − 1)/2 image rows, so that only neighboring blocks interact through the kernel. Images that
    are wider than they are high are processed by columns, since smaller blocks are cheaper.

    Args:
        kernel: w without groups, with shape ``(C, C, k, k)``, k odd and above one.
        dilation: d.
        event_shape: ``(C, height, width)``.

    Returns:
        The blocks, differentiable in the kernel, or ``None`` for fewer than three block rows, where elimination does
        not pay.

    Example:
        >>> import torch
        >>> matrix = row_matrix(torch.ones(1, 1, 3, 3), 1, (1, 4, 2))
        >>> matrix.diagonal, matrix.size
        (tensor([[1., 1.],
                [1., 1.]]), 8)
    """
    channels, height, width = event_shape
    if width > height:
        kernel, height, width = kernel.mT, width, height
    reach = dilation * (kernel.shape[-1] // 2)
    if height < _FEWEST * reach:
        return None
    within = torch.einsum("oiab,bxu->aoxiu", kernel, shifts(kernel, width, dilation))
    # rows 0 … 3·reach of the image, seen from the middle block
    taps = shifts(kernel, 3 * reach, dilation)[:, reach : 2 * reach].unflatten(2, (3, reach))
    size = reach * channels * width
    blocks = torch.einsum("aoxiu,aysv->syoxviu", within, taps).reshape(3, size, size)
    return BlockToeplitz(blocks[0], blocks[1], blocks[2], height * channels * width)


def conv_log_abs_det(kernel: Tensor, dilation: int, event_shape: tuple[int, ...]) -> Tensor | None:
    """log|det T(w)| in nats, differentiable, in O(H (C W)³) instead of O((C H W)³).

    Args:
        kernel: w without groups, with shape ``(C, C, k, k)``.
        dilation: of the kernel.
        event_shape: ``(C, height, width)``.

    Returns:
        A scalar in the dtype of the kernel, computed in float64; ``None`` if there are too few rows, if the elimination
        is unstable, or under ``vmap``, where stability cannot be checked.

    Example:
        >>> import torch
        >>> kernel = torch.zeros(1, 1, 3, 3)
        >>> kernel[0, 0, 1, 1] = 2.0
        >>> conv_log_abs_det(kernel, 1, (1, 4, 4)) / 16
        tensor(0.6931)
    """
    matrix = None if stands_for_many(kernel) else row_matrix(kernel.double(), dilation, event_shape)
    if matrix is None:
        return None
    detached = BlockToeplitz(matrix.lower.detach(), matrix.diagonal.detach(), matrix.upper.detach(), matrix.size)
    if BlockToeplitzFactor.of(detached) is None:
        return None
    return matrix.log_abs_det().to(kernel.dtype)


@dataclass(frozen=True)
class RowFactor:
    """T(w) factorized by image rows, for events in the usual element order.

    Attributes:
        inner: the factorization.
        event_shape: ``(C, height, width)``.
        accuracy: the condition number.

    Example:
        >>> import torch
        >>> kernel = torch.zeros(1, 1, 3, 3)
        >>> kernel[0, 0, 1, 1] = 2.0
        >>> RowFactor.of(kernel, 1, (1, 4, 2), "an example").solve(torch.ones(1, 8))
        tensor([[0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000]])
    """

    inner: BlockToeplitzFactor
    event_shape: tuple[int, ...]
    accuracy: Accuracy

    @classmethod
    def of(cls, kernel: Tensor, dilation: int, event_shape: tuple[int, ...], owner: str) -> RowFactor | None:
        """Factorize, or return ``None`` if there are too few rows or the elimination is unstable.

        Warns:
            NumericalWarning: as :meth:`snflow.numerics.factorization.LUFactor.of`.
        """
        matrix = row_matrix(kernel.detach().double(), dilation, event_shape)
        inner = None if matrix is None else BlockToeplitzFactor.of(matrix)
        if inner is None:
            return None
        accuracy = Accuracy(inner.condition(), owner)
        accuracy.of_log_det(kernel.dtype)
        return cls(inner, event_shape, accuracy)

    @property
    def log_abs_det(self) -> Tensor:
        """log|det T(w)| in nats, a scalar."""
        return self.inner.log_abs_det

    def solve(self, rows: Tensor) -> Tensor:
        """T(w)⁻¹ y for each flat image y of ``rows`` ``(m, C·H·W)``."""
        self.accuracy.of_solve(rows.dtype)
        return self._usual(self.inner.solve(self._by_rows(rows)))

    def solve_transposed(self, rows: Tensor) -> Tensor:
        """T(w)⁻ᵀ y for each flat image y of ``rows`` ``(m, C·H·W)``."""
        self.accuracy.of_solve(rows.dtype)
        return self._usual(self.inner.solve_transposed(self._by_rows(rows)))

    @property
    def _order(self) -> tuple[int, int, int, int]:
        """Batch, the longer side, channels, the shorter side."""
        _, height, width = self.event_shape
        return (0, 3, 1, 2) if width > height else (0, 2, 1, 3)

    def _by_rows(self, rows: Tensor) -> Tensor:
        images: Tensor = rows.unflatten(1, self.event_shape)
        return images.permute(self._order).flatten(1)

    def _usual(self, rows: Tensor) -> Tensor:
        sizes = (len(rows), *self.event_shape)
        order = self._order
        images: Tensor = rows.unflatten(1, [sizes[axis] for axis in order[1:]])
        back = [order.index(axis) for axis in range(4)]
        return images.permute(back).flatten(1)


def shifts(like: Tensor, size: int, dilation: int) -> Tensor:
    """The 0/1 matrices of the taps along one axis: S[a, y, v] = 1 where pixel v lies at tap a of output y.

    Args:
        like: a kernel, which provides the kernel size, the dtype and the device.
        size: number of pixels along the axis.
        dilation: distance between two taps, in pixels.

    Returns:
        Matrices with shape ``(k, size, size)``.

    Example:
        >>> import torch
        >>> shifts(torch.zeros(1, 1, 3, 3), 2, 1)[0]
        tensor([[0., 0.],
                [1., 0.]])
    """
    taps = dilation * (torch.arange(like.shape[-1], device=like.device) - like.shape[-1] // 2)
    pixels = torch.arange(size, device=like.device)
    return (pixels[None, :, None] + taps[:, None, None] == pixels[None, None, :]).to(like.dtype)
