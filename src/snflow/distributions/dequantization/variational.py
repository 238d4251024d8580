"""Dequantization by a flow that sees the image."""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from snflow.bijections.base import Bijection
from snflow.distributions.dequantization.base import Dequantization
from snflow.errors import ConfigError
from snflow.numerics.events import sum_event


@final
class VariationalDequantization(Dequantization):
    """x = k + u, u = σ(v), v = f(ε; k), ε ~ N(0, I); log q = log N(ε) − log|det ∂f/∂ε| − Σ log σ'(v).

    The noise is drawn where it makes the bound log P(k) ≥ E_q[log p(k + u) − log q(u | k)] tight, which uniform noise
    cannot do: its flow is trained with the other one, by the same objective.

    Args:
        levels: L, the number of levels; data run from 0 to L − 1.
        bijection: f, which sees the image, scaled to [−1, 1], as its context.

    Raises:
        ConfigError: fewer than two levels, or a bijection that takes no context.

    References:
        Ho et al. (2019), Flow++, section 3.1, eq. 12.

    Example:
        >>> import torch, snflow
        >>> from snflow.bijections.coupling import checkerboard
        >>> net = snflow.nets.AttentionConvNet(1, 8, 2, (4, 4), 1, context_channels=1)
        >>> layer = snflow.Coupling(checkerboard(4, 4), snflow.AffineTransformer(), net, (1, 4, 4))
        >>> dequantize = VariationalDequantization(16, layer)
        >>> x, log_q = dequantize(torch.randint(16, (3, 1, 4, 4)))
        >>> x.shape, log_q.shape
        (torch.Size([3, 1, 4, 4]), torch.Size([3]))
    """

    def __init__(self, levels: int, bijection: Bijection) -> None:
        super().__init__(levels)
        if bijection.context_shape is None:
            raise ConfigError(
                "VariationalDequantization",
                expected="a bijection that takes the image as its context",
                got=f"{bijection.label}, which takes none",
                fix="build it with the image's shape as context_features",
            )
        self.bijection = bijection

    def _noise(self, k: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        if generator is None:  # as in UniformDequantization
            noise = torch.randn_like(k, memory_format=torch.contiguous_format)
        else:
            noise = torch.randn(k.shape, dtype=k.dtype, device=k.device, generator=generator)
        v, log_det = self.bijection(noise, 2 * k / (self.levels - 1) - 1)
        log_normal = -0.5 * sum_event(noise.square() + math.log(2 * math.pi))
        log_slope = sum_event(F.logsigmoid(v) + F.logsigmoid(-v))
        return torch.sigmoid(v), log_normal - log_det - log_slope
