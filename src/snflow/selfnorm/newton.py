"""Newton: the learned inverse takes Newton–Schulz steps."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from snflow.selfnorm.tracking import CONTRACTING, DirectTracking, WeightPair


@final
class Newton(DirectTracking):
    """R ← R + (I − RW) R when ‖I − RW‖_F/√D is above a tolerance; R is a buffer, W has the whole likelihood gradient.

    A step costs two D×D products and squares I − RW. Before each training forward whose weights have changed, a few
    random vectors estimate the residual. If it is too large for a step to contract, R becomes the exact inverse. The
    inverse of a k×k convolution is not a convolution: there r is fitted by least squares, when the residual is above
    the tolerance and above 1.2 times what the last fit left.

    Args:
        tolerance: residual ‖I − RW‖_F/√D that is left alone.
        probes: number of random vectors by which the residual is estimated.
        pull: weight of the penalty's gradient on w; it keeps f among the maps that a learned inverse can invert.
        neumann_terms: number of terms k ≥ 1 of W⁻ᵀ ≈ Rᵀ Σₖ (I − WᵀRᵀ)ᵏ in the gradient of the log-determinant.
            ``None`` is 1 for a k×k convolution, else 0.
        neumann_probes: number of random vectors by which these terms are estimated.

    Raises:
        ConfigError: an option is out of its range.

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

    def __init__(
        self,
        *,
        tolerance: float = 0.1,
        probes: int = 8,
        pull: float = 0.0,
        neumann_terms: int | None = None,
        neumann_probes: int = 8,
    ) -> None:
        super().__init__(
            tolerance=tolerance, probes=probes, pull=pull, neumann_terms=neumann_terms, neumann_probes=neumann_probes
        )

    def update(self, pair: WeightPair) -> Tensor | None:
        """Return the r of one Newton–Schulz step, of the exact inverse, or of a least-squares fit."""
        residual = pair.residual(self.probes)
        if not pair.operators.inverse.closed:
            return None if self._at_floor(residual, self.tolerance) else self.best(pair)
        if not residual.contracts:
            return self.best(pair)
        return None if residual.size <= self.tolerance else self._accepted(pair, newton_schulz(*pair.matrices()))

    def update_on_device(self, pair: WeightPair) -> Tensor | None:
        """Return the r of one step, taken by the blocks for which ‖I − RW‖_F/√n < 0.7 and by no others.

        After a large step of an optimizer the residual of a block may be so large that Newton–Schulz would diverge;
        such a block waits for :meth:`update`.
        """
        if not pair.operators.inverse.closed:
            return None
        weight, inverse = pair.matrices()
        residual = _residual(weight, inverse)
        contracts = residual.square().mean((-2, -1), keepdim=True) * weight.shape[-1] < CONTRACTING**2
        moved = torch.where(contracts, torch.baddbmm(inverse, inverse, residual), inverse)
        return pair.operators.inverse.from_matrices(moved)


def newton_schulz(weight: Tensor, inverse: Tensor) -> Tensor:
    """Q + Q (I − M Q) for Q ≈ M⁻¹: the residual I − MQ becomes its square. O(n³), two products.

    Args:
        weight: M, with shape ``(m, n, n)``; Wᵀ of a layer, so that I − MQ is the transpose of I − RW.
        inverse: Q, with the same shape; ‖I − MQ‖ < 1 is needed. Rᵀ of a layer.

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
