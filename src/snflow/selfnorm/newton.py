"""Newton: the learned inverse is updated by Newton–Schulz steps."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from snflow.selfnorm.tracking import CONTRACTING, DirectTracking, WeightPair


@final
class Newton(DirectTracking):
    """R ← R + (I − RW) R when ‖I − RW‖_F/√D exceeds a tolerance; R is a buffer, W gets the full likelihood gradient.

    A step costs two D×D products and squares I − RW. Whenever the weights have changed, the residual is estimated with
    a few random vectors before the training step. If it is too large for a step to contract, R is set to the exact
    inverse. The inverse of a k×k convolution is not a convolution: in this case r is refitted by least squares when the
    residual exceeds both the tolerance and 1.2 times the residual after the last fit.

    The options are those of :class:`~snflow.selfnorm.tracking.DirectTracking`.

    References:
        Schulz (1933), Iterative Berechnung der reziproken Matrix.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.SelfNormalizingDense(3, tracking=snflow.Newton(tolerance=0.05))
        >>> with torch.no_grad():
        ...     _ = layer.weight.mul_(1.2)
        >>> _ = layer(torch.randn(5, 3))
        >>> bool((layer.inverse_matrix @ layer.weight - torch.eye(3)).norm() < 0.1)
        True
    """

    def update(self, pair: WeightPair) -> Tensor | None:
        """Return r after a Newton–Schulz step, the exact inverse, or a least-squares fit."""
        residual = pair.residual(self.probes)
        if not pair.operators.inverse.closed:
            return None if self._at_floor(residual, self.tolerance) else self.best(pair)
        if not residual.contracts:
            return self.best(pair)
        return None if residual.size <= self.tolerance else self._accepted(pair, newton_schulz(*pair.matrices()))

    def update_on_device(self, pair: WeightPair) -> Tensor | None:
        """Return r after a step of only those blocks for which ‖I − RW‖_F/√n < 0.7.

        After a large optimizer step, the residual of a block may be so large that the iteration would diverge; such a
        block is left to :meth:`update`.
        """
        if not pair.operators.inverse.closed:
            return None
        weight, inverse = pair.matrices()
        residual = _residual(weight, inverse)
        contracts = residual.square().mean((-2, -1), keepdim=True) * weight.shape[-1] < CONTRACTING**2
        moved = torch.where(contracts, torch.baddbmm(inverse, inverse, residual), inverse)
        return pair.operators.inverse.from_matrices(moved)


def newton_schulz(weight: Tensor, inverse: Tensor) -> Tensor:
    """Q + Q (I − M Q) for Q ≈ M⁻¹, which squares the residual I − MQ: two products, O(n³).

    Args:
        weight: M, with shape ``(m, n, n)``; for a layer this is Wᵀ, so that I − MQ is the transpose of I − RW.
        inverse: Q, with the same shape and ‖I − MQ‖ < 1; for a layer this is Rᵀ.

    Returns:
        The new Q, with the same shape.

    References:
        Schulz (1933), Iterative Berechnung der reziproken Matrix.

    Example:
        >>> newton_schulz(torch.tensor([[[2.0]]]), torch.tensor([[[0.45]]]))
        tensor([[[0.4950]]])
    """
    return torch.baddbmm(inverse, inverse, _residual(weight, inverse))


def _residual(weight: Tensor, inverse: Tensor) -> Tensor:
    """I − M Q."""
    residual = -(weight @ inverse)
    residual.diagonal(dim1=-2, dim2=-1).add_(1)
    return residual
