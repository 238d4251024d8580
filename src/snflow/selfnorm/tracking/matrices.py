"""Steps that bring a matrix R nearer to W⁻¹: Newton–Schulz, secant, and the exact inverse."""

from __future__ import annotations

import torch
from torch import Tensor


def newton(weight: Tensor, inverse: Tensor) -> Tensor:
    """R + R (I − W R): the residual I − WR becomes its square. O(n³), two products.

    Args:
        weight: W, with shape ``(m, n, n)``.
        inverse: R, with the same shape; ‖I − WR‖ < 1 is needed.

    Returns:
        The new R, with the same shape.

    References:
        Schulz (1933), Iterative Berechnung der reziproken Matrix.

    Example:
        >>> newton(torch.tensor([[[2.0]]]), torch.tensor([[[0.45]]]))
        tensor([[[0.4950]]])
    """
    residual = -(weight @ inverse)
    residual.diagonal(dim1=-2, dim2=-1).add_(1)
    return torch.baddbmm(inverse, inverse, residual)


def secant(weight: Tensor, inverse: Tensor, probes: Tensor) -> Tensor:
    """R + (N − R S)(SᵀS)⁻¹Sᵀ, S = W N: the matrix nearest to R that undoes W on the probes. O(p n²).

    Args:
        weight: W, with shape ``(m, n, n)``.
        inverse: R, with the same shape.
        probes: N, with shape ``(m, n, p)``, p ≤ n.

    Returns:
        The new R, with R S = N.

    References:
        The least-change update of Broyden (1965), in a block of directions.

    Example:
        >>> secant(torch.tensor([[[2.0]]]), torch.tensor([[[0.45]]]), torch.ones(1, 1, 1))
        tensor([[[0.5000]]])
    """
    seen = weight @ probes
    gram = seen.mT @ seen
    # Rounding must not make the Gram matrix of nearly dependent probes indefinite.
    jitter = 10 * torch.finfo(gram.dtype).eps * gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    gram.diagonal(dim1=-2, dim2=-1).add_(jitter[:, None])
    factor, _ = torch.linalg.cholesky_ex(gram)
    return torch.baddbmm(inverse, probes - inverse @ seen, torch.cholesky_solve(seen.mT, factor))


def exact(weight: Tensor) -> Tensor:
    """W⁻¹ by factorisation, O(n³); not finite where W is singular.

    Args:
        weight: W, with shape ``(m, n, n)``.

    Example:
        >>> exact(torch.tensor([[[2.0]]]))
        tensor([[[0.5000]]])
    """
    inverse: Tensor = torch.linalg.inv_ex(weight).inverse
    return inverse
