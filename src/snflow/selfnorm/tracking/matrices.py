"""Steps that bring a matrix R nearer to W⁻¹: Newton–Schulz, secant, and the exact inverse."""

from __future__ import annotations

import torch
from torch import Tensor

CONTRACTING = 0.7
"""The residual ‖I − WR‖_F/√n up to which a Newton–Schulz step is trusted: it squares the residual, if below one."""


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
    residual = _residual(weight, inverse)
    return torch.baddbmm(inverse, inverse, residual)


def contracted(weight: Tensor, inverse: Tensor) -> Tensor:
    """R + R (I − W R) where ‖I − W R‖_F/√n < 0.7, else R: :func:`newton`, decided on the device.

    A large step of an optimizer may leave a residual that Newton–Schulz would blow up; there R waits for somebody who
    can look at it and take a factorisation.

    Args:
        weight: W, with shape ``(m, n, n)``.
        inverse: R, with the same shape.

    Returns:
        The new R, with the same shape.

    Example:
        >>> contracted(torch.tensor([[[2.0]]]), torch.tensor([[[0.45]]]))
        tensor([[[0.4950]]])
        >>> contracted(torch.tensor([[[2.0]]]), torch.tensor([[[5.0]]]))
        tensor([[[5.]]])
    """
    residual = _residual(weight, inverse)
    trusted = residual.square().mean((-2, -1), keepdim=True) * weight.shape[-1] < CONTRACTING**2
    return torch.where(trusted, torch.baddbmm(inverse, inverse, residual), inverse)


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


def _residual(weight: Tensor, inverse: Tensor) -> Tensor:
    """I − W R."""
    residual = -(weight @ inverse)
    residual.diagonal(dim1=-2, dim2=-1).add_(1)
    return residual
