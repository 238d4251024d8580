"""Additive, affine and gated transformers, and sums of tanh units."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from snflow.bijections.transformers.monotone import bounded
from snflow.bijections.transformers.transformer import Transformer
from snflow.errors import ConfigError, check_count
from snflow.numerics.compilation import ROOT_SEARCH
from snflow.numerics.monotone import SOFTPLUS_ONE
from snflow.numerics.root_finding import implicit_inverse

_LARGEST_GATE = 5.0


@final
class AdditiveTransformer(Transformer):
    """z = x + t, log dz/dx = 0, t = h₀: preserves volume (Dinh et al. 2015, NICE, eq. 8).

    Example:
        >>> import torch
        >>> z, log_slope = AdditiveTransformer()(torch.tensor([[1.0]]), torch.tensor([[[2.0]]]))
        >>> z.item(), log_slope.item()
        (3.0, 0.0)
    """

    parameters_per_element = 1

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = x + t."""
        z = x + h[0]
        return z, torch.zeros_like(z)

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x = z − t."""
        x = z - h[0]
        return x, torch.zeros_like(x)


@final
class AffineTransformer(Transformer):
    """z = x exp(s) + t, log dz/dx = s = c tanh(h₀/c), t = h₁ (Dinh et al. 2017, eq. 7).

    Args:
        largest_log_scale: c, the bound on |s| in nats; without it exp(s) may overflow far from the training data.

    Raises:
        ConfigError: the bound is not a positive number.

    Example:
        >>> import torch
        >>> z, log_slope = AffineTransformer()(torch.ones(1, 1), torch.zeros(2, 1, 1))
        >>> z.item(), log_slope.item()
        (1.0, 0.0)
    """

    parameters_per_element = 2

    def __init__(self, largest_log_scale: float = 5.0) -> None:
        super().__init__()
        if not 0 < largest_log_scale < float("inf"):
            raise ConfigError(
                "AffineTransformer",
                expected="largest_log_scale > 0",
                got=str(largest_log_scale),
                fix="use 5, for scaling factors from 1/148 to 148",
            )
        self.largest_log_scale = largest_log_scale

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = x exp(s) + t."""
        s, shift = self._scale_and_shift(h)
        return torch.addcmul(shift, x, s.exp()), s.expand_as(x)

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x = (z − t) exp(−s)."""
        s, shift = self._scale_and_shift(h)
        return (z - shift) * (-s).exp(), (-s).expand_as(z)

    def decode(self, z: Tensor, h: Tensor) -> Tensor:
        """x = (z − t) exp(−s), without the log-slope."""
        s, shift = self._scale_and_shift(h)
        return (z - shift) * (-s).exp()

    def _scale_and_shift(self, h: Tensor) -> tuple[Tensor, Tensor]:
        # unbind is a single graph node, whose gradient is a stack; those of h[0] and h[1] would be padded and summed
        free, shift = h.unbind()
        return self.largest_log_scale * torch.tanh(free / self.largest_log_scale), shift

    def extra_repr(self) -> str:
        """Show the bound."""
        return f"largest_log_scale={self.largest_log_scale}"


@final
class GatedTransformer(Transformer):
    """z = σ x + (1 − σ) m, log dz/dx = log σ, σ = sigmoid(c tanh(h₀/c) + bias), m = h₁ (Kingma et al. 2016).

    The LSTM-style update: since σ < 1, z interpolates between x and m and cannot explode. Initially σ is near one, so
    that the layer is close to the identity. The transformer is meant for the fast direction of an inverse
    autoregressive flow. The bound c = 5 is not in the paper; it keeps the gradient of a closed gate from vanishing.

    Args:
        bias: constant added to the log-odds of the gate; the paper recommends 1 or 2.

    Example:
        >>> import torch
        >>> z, log_slope = GatedTransformer(bias=0.0)(torch.ones(1, 1), torch.zeros(2, 1, 1))
        >>> z.item(), round(log_slope.item(), 4)
        (0.5, -0.6931)
    """

    parameters_per_element = 2

    def __init__(self, bias: float = 2.0) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = σ x + (1 − σ) m."""
        log_slope = self._log_gate(h)
        gate = log_slope.exp()
        return torch.lerp(h[1].expand_as(x), x, gate.expand_as(x)), log_slope.expand_as(x)

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x = m + (z − m)/σ."""
        log_slope = self._log_gate(h)
        return h[1] + (z - h[1]) * (-log_slope).exp(), (-log_slope).expand_as(z)

    def _log_gate(self, h: Tensor) -> Tensor:
        return torch.nn.functional.logsigmoid(_LARGEST_GATE * torch.tanh(h[0] / _LARGEST_GATE) + self.bias)

    def extra_repr(self) -> str:
        """Show the bias."""
        return f"bias={self.bias}"


@final
class TanhTransformer(Transformer):
    """z = x + Σₖ uₖ tanh(wₖ x + bₖ) + t, uₖ wₖ > −1/K: the scalar map of a Sylvester flow.

    hᵢ consists of K unconstrained parameters for the products uₖ wₖ, K log-weights, K biases and t. The inverse is a
    root search in a bracket of width 2 Σ|uₖ|, with implicit gradients.

    Args:
        units: K.

    Raises:
        ConfigError: fewer than one unit.
        ConvergenceError: in the inverse, no root was found for some elements.

    References:
        Hoogeboom et al. (2020), The convolution exponential and generalized Sylvester flows, section 3.2.

    Example:
        >>> import torch
        >>> x = torch.tensor([[2.0]])
        >>> z, log_slope = TanhTransformer(3)(x, torch.zeros(10, 1, 1))
        >>> torch.allclose(z, x), torch.allclose(log_slope, torch.zeros(1, 1), atol=1e-4)
        (True, True)
    """

    uncompiled = ROOT_SEARCH

    def __init__(self, units: int = 4) -> None:
        super().__init__()
        check_count("TanhTransformer", "units", units)
        self.units = units
        self.parameters_per_element = 3 * units + 1

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z and log dz/dx."""
        products, weights, biases, shift = self._parameters_of(h)
        heights = torch.tanh(weights * x + biases)
        z = x + (products / weights * heights).sum(0) + shift
        return z, torch.log1p((products * (1 - heights.square())).sum(0))

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x and log dx/dz."""
        products, weights, _, shift = self._parameters_of(h)
        reach = (products / weights).abs().sum(0).expand_as(z)
        middle = z - shift
        return implicit_inverse(
            lambda x: self.forward(x, h), z, middle - reach, middle + reach, where="TanhTransformer"
        )

    def _parameters_of(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        k = self.units
        products, weights, biases, shift = h.split([k, k, k, 1])
        return (F.softplus(products + SOFTPLUS_ONE) - 1) / k, bounded(weights).exp(), biases, shift[0]
