"""Logit of data in the unit interval."""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from snflow.bijections.base import Bijection
from snflow.errors import ConfigError
from snflow.numerics.events import sum_event


@final
class Logit(Bijection):
    """z = logit(p), p = α + (1 − 2α)x, with log|det| = Σ [log(1 − 2α) − log p − log(1 − p)] (Dinh et al. 2017, §4.1).

    Takes events of any shape with values in [0, 1]; z has the shape of x. Thanks to α both ends are finite. An x
    outside [0, 1] has no density: its row gets a log-determinant of −inf, the z of the nearest end, and a gradient that
    is finite. NaN stays NaN.

    The inverse gives values in [0, 1]: a latent beyond ±logit(1 − α) decodes to the nearest end.

    Args:
        alpha: the share α by which both ends are drawn in, in (0, 0.5).

    Raises:
        ConfigError: α is not in (0, 0.5).

    Example:
        >>> import torch
        >>> from snflow.bijections import Logit
        >>> z, log_det = Logit(alpha=0.25)(torch.tensor([[0.5], [2.0]]))
        >>> z, log_det
        (tensor([[0.0000], [1.0986]]), tensor([0.6931, -inf]))
    """

    def __init__(self, alpha: float = 1e-6) -> None:
        super().__init__()
        if not 0 < alpha < 0.5:
            raise ConfigError(self.label, expected="0 < alpha < 0.5", got=f"{alpha}", fix="the paper takes 1e-6")
        self.alpha = alpha

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        inner = x.clamp(0, 1)
        size = math.prod(x.shape[1:])
        outside = (inner != x).reshape(len(x), size).any(1)
        low, high = x.new_full((), self.alpha), x.new_full((), 1 - self.alpha)
        # each logarithm from its own side: 1 − p has no digits left where p is close to one
        log_p, log_q = torch.lerp(low, high, inner).log(), torch.lerp(high, low, inner).log()
        log_det = size * math.log1p(-2 * self.alpha) - sum_event(log_p + log_q)
        # added, so that what is not a number stays so
        return log_p - log_q, log_det + torch.where(outside, -math.inf, 0.0).to(x.dtype)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = ((torch.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha)).clamp(0, 1)
        log_slope = F.logsigmoid(z) + F.logsigmoid(-z) - math.log1p(-2 * self.alpha)
        return x, sum_event(log_slope)

    def extra_repr(self) -> str:
        """Show α."""
        return f"alpha={self.alpha}"
