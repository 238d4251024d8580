"""The block neural autoregressive layer: one monotone network for the whole vector."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snflow.arguments import check_count
from snflow.bijections.base import Bijection
from snflow.numerics.root_finding import implicit_inverse

_SPREAD = 2.0
"""Hidden units begin with slopes of up to exp(2), down to exp(−2),"""
_REACH = 4.0
"""and with biases of up to 4, so that they bend all over standardised data."""


@final
class BlockAutoregressive(Bijection):
    """z = α ⊙ net(x) + (1 − α) ⊙ x, log|det| = Σ log ∂zᵢ/∂xᵢ: a network of triangular blocks.

    Each feature has B hidden units in each layer. Weights between the units of a feature are exponentials, weights from
    the features before it are free, others are zero, so that ∂z/∂x is triangular with a positive diagonal, which is
    multiplied up in log space beside the values. The gate α, one number a feature, keeps z unbounded.

    ``forward`` costs one pass. ``inverse`` is a root search for one feature after another, D searches in all, with
    implicit gradients.

    Args:
        features: D.
        block: B.
        depth: hidden layers.
        context_features: size of a context that the first layer sees; 0 for none.

    Shapes:
        x, z: ``(batch, D)``; context: ``(batch, context_features)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a count below one.
        ConvergenceError: in the inverse, elements found no root.

    References:
        De Cao et al. (2019), Block neural autoregressive flow, eq. 8-13.

    Example:
        >>> import torch, snflow
        >>> layer, x = snflow.BlockAutoregressive(3), torch.randn(4, 3)
        >>> torch.allclose(layer.decode(layer(x)[0]), x, atol=1e-4)
        True
    """

    def __init__(self, features: int, block: int = 8, depth: int = 1, context_features: int = 0) -> None:
        super().__init__()
        for option, count in (("features", features), ("block", block), ("depth", depth)):
            check_count("BlockAutoregressive", option, count)
        self.event_shape = (features,)
        self.context_shape = (context_features,) if context_features else None
        self.features = features
        sizes = [1, *[block] * depth, 1]
        last = len(sizes) - 2
        self.layers = nn.ModuleList(
            _Blocks(features, i, o, hidden=number < last) for number, (i, o) in enumerate(pairwise(sizes))
        )
        self.context = nn.Linear(context_features, features * block, bias=False) if context_features else None
        self.gate = nn.Parameter(torch.zeros(features))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_slope = self._value_and_log_slope(x, context)
        return z, log_slope.sum(1)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        known, slopes = z.new_zeros(z.shape[0], 0), []
        for index in range(self.features):
            rest = z.new_zeros(z.shape[0], self.features - index - 1)
            before = known

            def own(x: Tensor, at: int = index, left: Tensor = before, right: Tensor = rest) -> tuple[Tensor, Tensor]:
                value, log_slope = self._value_and_log_slope(torch.cat([left, x, right], 1), context)
                return value[:, at : at + 1], log_slope[:, at : at + 1]

            target = z[:, index : index + 1]
            x, log_slope = implicit_inverse(own, target, target - 1, target + 1, where="BlockAutoregressive inverse")
            known = torch.cat([known, x], 1)
            slopes.append(log_slope)
        return known, torch.cat(slopes, 1).sum(1)

    def _value_and_log_slope(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        h, log_slope = x, torch.zeros_like(x).unsqueeze(2)
        for number, layer in enumerate(self.layers):
            h, log_slope = layer(h, log_slope)
            if number == 0 and self.context is not None:
                h = h + self.context(context)
            if number < len(self.layers) - 1:
                # log tanh' without cancellation: 2 (log 2 − u − softplus(−2u))
                log_slope = log_slope + 2 * (math.log(2) - h - F.softplus(-2 * h)).unflatten(1, (self.features, -1))
                h = torch.tanh(h)
        z = torch.lerp(x, h, torch.sigmoid(self.gate))
        log_share, log_rest = F.logsigmoid(self.gate), F.logsigmoid(-self.gate)
        return z, torch.logaddexp(log_share + log_slope.squeeze(2), log_rest.expand_as(x))

    def extra_repr(self) -> str:
        """Show the number of features."""
        return str(self.features)


class _Blocks(nn.Module):
    """y = W x + b, W of D × D blocks, lower triangular, exponentials on the diagonal, each row of norm exp(s)."""

    diagonal: Tensor
    lower: Tensor

    def __init__(self, features: int, inputs: int, outputs: int, *, hidden: bool) -> None:
        super().__init__()
        self.features, self.inputs, self.outputs = features, inputs, outputs
        block = torch.ones(outputs, inputs)
        self.register_buffer("diagonal", torch.kron(torch.eye(features), block), persistent=False)
        self.register_buffer("lower", torch.kron(torch.ones(features, features).tril(-1), block), persistent=False)
        bound = 1 / math.sqrt(inputs)
        weight = torch.empty(features * outputs, features * inputs).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        # Units of one feature that all begin with one slope, near one place, are one unit many times.
        spread, reach = (_SPREAD, _REACH) if hidden else (0.0, bound)
        self.log_norm = nn.Parameter(torch.empty(features * outputs, 1).uniform_(-spread, spread))
        self.bias = nn.Parameter(torch.empty(features * outputs).uniform_(-reach, reach))

    def forward(self, x: Tensor, log_slope: Tensor) -> tuple[Tensor, Tensor]:
        """Map values ``(batch, D·inputs)`` and log-slopes ``(batch, D, inputs)`` of each feature's own units."""
        raw = self.weight.exp() * self.diagonal + self.weight * self.lower
        log_scale = self.log_norm - torch.linalg.vector_norm(raw, dim=1, keepdim=True).log()
        y = F.linear(x, raw * log_scale.exp(), self.bias)
        d, o, i = self.features, self.outputs, self.inputs
        own = (self.weight + log_scale).reshape(d, o, d, i).diagonal(dim1=0, dim2=2).movedim(2, 0)
        return y, torch.logsumexp(own + log_slope.unsqueeze(2), 3)
