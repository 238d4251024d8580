"""z = W x + b for a W that is held as factors: products, solves and determinants cost what the factors cost."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from snflow.arguments import check_count
from snflow.bijections.base import Bijection


class FactoredLinear(Bijection):
    """z = W x + b, log|det W| from the factors of W: abstract parent of the linear layers that need no factorisation.

    **To write one**, give the product, the solve and the log-determinant; the bias is here.

    Args:
        features: D.
        bias: whether there is a b.

    Shapes:
        x, z: ``(batch, D)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one feature.
    """

    bias: nn.Parameter | None

    def __init__(self, features: int, bias: bool) -> None:
        super().__init__()
        check_count(self.label, "features", features)
        self.features = features
        self.event_shape = (features,)
        self.bias = nn.Parameter(torch.zeros(features)) if bias else None

    @abstractmethod
    def _product(self, x: Tensor) -> Tensor:
        """W x for rows x ``(batch, D)``."""

    @abstractmethod
    def _solve(self, y: Tensor) -> Tensor:
        """W⁻¹ y for rows y ``(batch, D)``."""

    @abstractmethod
    def _log_abs_det(self) -> Tensor:
        """log|det W| in nats, a scalar."""

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z = self._product(x)
        return z if self.bias is None else z + self.bias, self._log_abs_det().expand(x.shape[0])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._solve(z if self.bias is None else z - self.bias), -self._log_abs_det().expand(z.shape[0])

    def extra_repr(self) -> str:
        """Show the size."""
        return f"{self.features}, bias={self.bias is not None}"
