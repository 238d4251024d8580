"""Secant: the learned inverse is updated by least-change steps on random vectors."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from snflow.numerics.probes import rademacher
from snflow.selfnorm.tracking import DirectTracking, WeightPair


@final
class Secant(DirectTracking):
    """R ← R + (N − R S)(SᵀS)⁻¹Sᵀ, S = W N, for random N: the smallest change of R such that R W N = N; R is a buffer.

    A step on p vectors costs O(p D²), less than the O(D³) of :class:`~snflow.Newton`; p grows with the residual.
    Whenever the weights have changed, the residual is estimated with a few random vectors before the training step. If
    it is not below 0.7, R is set to the exact inverse. The inverse of a k×k convolution is not a convolution: in this
    case r is refitted by least squares in every step.

    The options are those of :class:`~snflow.selfnorm.tracking.DirectTracking`.

    References:
        Broyden (1965), A class of methods for solving nonlinear simultaneous equations: the least-change update, here
        in several directions at once.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.SelfNormalizingDense(3, tracking=snflow.Secant(tolerance=0.05))
        >>> with torch.no_grad():
        ...     _ = layer.weight.mul_(1.2)
        >>> _ = layer(torch.randn(5, 3))
        >>> bool((layer.inverse_matrix @ layer.weight - torch.eye(3)).norm() < 0.1)
        True
    """

    def update(self, pair: WeightPair) -> Tensor | None:
        """Return r after a secant step, the exact inverse, or a least-squares fit."""
        if not pair.operators.inverse.closed:
            return self.best(pair)
        residual = pair.residual(self.probes)
        if not residual.contracts:
            return self.best(pair)
        if residual.size <= self.tolerance:
            return None
        transposed_weight, transposed_inverse = pair.matrices()
        blocks, size, _ = transposed_weight.shape
        count = min(size, math.ceil(residual.size / self.tolerance * self.probes))
        vectors = rademacher(blocks, (size, count), transposed_weight)
        moved = secant_step(transposed_weight.mT, transposed_inverse.mT, vectors)
        return self._accepted(pair, moved.mT)


def secant_step(weight: Tensor, inverse: Tensor, vectors: Tensor) -> Tensor:
    """R + (N − R S)(SᵀS)⁻¹Sᵀ, S = W N: the matrix closest to R that inverts W on the given vectors, in O(p n²).

    Args:
        weight: W, with shape ``(m, n, n)``.
        inverse: R, with shape ``(m, n, n)``.
        vectors: N, with shape ``(m, n, p)``, p ≤ n.

    Returns:
        The new R, with R W N = N.

    References:
        Broyden (1965), A class of methods for solving nonlinear simultaneous equations.

    Example:
        >>> secant_step(torch.tensor([[[2.0]]]), torch.tensor([[[0.45]]]), torch.ones(1, 1, 1))
        tensor([[[0.5000]]])
    """
    images = weight @ vectors
    gram = images.mT @ images
    # Regularized, since rounding may make the Gram matrix of nearly dependent vectors indefinite.
    jitter = 10 * torch.finfo(gram.dtype).eps * gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    gram.diagonal(dim1=-2, dim2=-1).add_(jitter[:, None])
    factor, _ = torch.linalg.cholesky_ex(gram)
    return torch.baddbmm(inverse, vectors - inverse @ images, torch.cholesky_solve(images.mT, factor))
