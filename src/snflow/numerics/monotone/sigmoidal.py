"""The logit of a mixture of sigmoids: the CDF of a mixture of logistics, opened to the whole line."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoidal(x: Tensor, log_weights: Tensor, log_slopes: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor]:
    """z = logit(Σₖ wₖ σ(aₖ x + bₖ)) and log dz/dx, Σ w = 1, a > 0: increasing from −∞ to ∞, every tail in log space.

    Args:
        x: with shape ``(batch, *event)``.
        log_weights: log w, with shape ``(K, batch, *event)`` or broadcastable to it.
        log_slopes: log a, likewise.
        shifts: b, likewise.

    Returns:
        z and the log-slope in nats, both with the shape of x.

    References:
        Huang et al. (2018), Neural autoregressive flows, eq. 8; Ho et al. (2019), Flow++, eq. 13-15.

    Example:
        >>> import torch
        >>> one = torch.zeros(1, 1)
        >>> z, log_slope = sigmoidal(torch.tensor([30.0]), one, one, one)
        >>> z.tolist(), log_slope.tolist()
        ([30.0], [0.0])
    """
    u = log_slopes.exp() * x + shifts
    log_below, log_above = F.logsigmoid(u), F.logsigmoid(-u)
    log_cdf = torch.logsumexp(log_weights + log_below, 0)
    log_rest = torch.logsumexp(log_weights + log_above, 0)
    log_density = torch.logsumexp(log_weights + log_slopes + log_below + log_above, 0)
    return log_cdf - log_rest, log_density - log_cdf - log_rest
