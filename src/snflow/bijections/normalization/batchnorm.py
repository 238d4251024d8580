"""Batch normalization that can be undone."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection
from snflow.errors import ConfigError
from snflow.numerics.events import sum_event


@final
class BatchNorm(Bijection):
    """z = γ (x − μ)/√(v + ε) + β, log|det| = HW Σ (log γ − ½ log(v + ε)), a number a feature or a channel.

    In ``train()`` μ and v are those of the batch, in the gradient too, and the running averages follow; the rows of a
    batch depend on each other. In ``eval()``, and in the inverse always, μ and v are the running averages.

    Args:
        features: D, features or channels.
        image: whether they are channels.
        momentum: share by which the running averages move to the batch's moments.
        eps: ε.

    Shapes:
        x, z: ``(batch, D)`` or ``(batch, D, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one feature, a momentum outside of (0, 1], or ε ≤ 0.

    References:
        Dinh et al. (2017), Density estimation using Real NVP, section 3.7 and appendix E; Papamakarios et al. (2017).

    Example:
        >>> import torch, snflow
        >>> z, _ = snflow.BatchNorm(2)(torch.tensor([[0.0, 5.0], [2.0, 9.0]]))
        >>> z.mean(0).abs().max().item() < 1e-6
        True
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, features: int, image: bool = False, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        if features < 1 or not 0 < momentum <= 1 or not eps > 0:
            raise ConfigError(
                "BatchNorm",
                expected="features ≥ 1, 0 < momentum ≤ 1 and eps > 0",
                got=f"{features}, {momentum} and {eps}",
            )
        self.event_shape = (features, None, None) if image else (features,)
        self.momentum, self.eps = momentum, eps
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.shift = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_variance", torch.ones(features))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, variance = self.running_mean, self.running_variance
        if self.training and x.shape[0] > 1:
            dims = [0, *range(2, x.dim())]
            mean, variance = x.mean(dims), x.var(dims, correction=0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_variance.lerp_(variance, self.momentum)
        log_factor = self.log_scale - 0.5 * (variance + self.eps).log()
        z = (x - _like(mean, x)) * _like(log_factor.exp(), x) + _like(self.shift, x)
        return z, self._log_det(log_factor, x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_factor = self.log_scale - 0.5 * (self.running_variance + self.eps).log()
        x = (z - _like(self.shift, z)) * _like((-log_factor).exp(), z) + _like(self.running_mean, z)
        return x, -self._log_det(log_factor, z)

    def _log_det(self, log_factor: Tensor, x: Tensor) -> Tensor:
        return sum_event(_like(log_factor, x).expand(1, *x.shape[1:])).expand(x.shape[0])

    def extra_repr(self) -> str:
        """Show the size."""
        return f"{len(self.shift)}, momentum={self.momentum}, eps={self.eps}"


def _like(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(1, -1, *[1] * (x.dim() - 2))
