"""Products of Householder reflections."""

from __future__ import annotations

import torch
from torch import Tensor


def reflect(x: Tensor, vectors: Tensor, *, transposed: bool = False) -> Tensor:
    """x H₁ … H_K for rows x, with Hₖ = I − 2 vₖ vₖᵀ/‖vₖ‖²: an orthogonal map, whatever the vectors.

    Args:
        x: rows, with shape ``(batch, D)``.
        vectors: v, with shape ``(K, D)``; none of them zero.
        transposed: whether to apply the transpose, which is the inverse, H_K … H₁.

    Returns:
        Rows with the shape and the norms of x.

    References:
        Tomczak & Welling (2016), Improving variational auto-encoders using Householder flow, eq. 6.

    Example:
        >>> import torch
        >>> reflect(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0]]))
        tensor([[-1.,  2.]])
    """
    unit = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    for v in reversed(unit) if transposed else unit:
        x = x - 2 * torch.outer(x @ v, v)
    return x
