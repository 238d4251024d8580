"""Mixtures of sigmoids: Flow++'s and the neural autoregressive flow's."""

from __future__ import annotations

from functools import partial
from typing import final

import torch
from torch import Tensor

from snflow.arguments import check_count
from snflow.bijections.transformers.base import Transformer
from snflow.numerics.monotone.sigmoidal import sigmoidal
from snflow.numerics.root_finding import implicit_inverse

_LARGEST = 5.0


@final
class LogisticMixtureTransformer(Transformer):
    """z = exp(a) logit(Σₖ πₖ σ((x − μₖ)/sₖ)) + b: the CDF of a mixture of logistics, opened by a logit (Flow++).

    hᵢ are K log-weights, K means, K log-scales, a and b. With zeros the means lie between −1 and 1, so that the
    components are not all the same. The inverse is a root search with implicit gradients.

    Args:
        components: K.

    Raises:
        ConfigError: fewer than one component.
        ConvergenceError: in the inverse, elements found no root.

    References:
        Ho et al. (2019), Flow++, eq. 13-15.

    Example:
        >>> import torch
        >>> LogisticMixtureTransformer(2)(torch.zeros(1, 1), torch.zeros(8, 1, 1))[0].item()
        0.0
    """

    spread: Tensor

    def __init__(self, components: int = 8) -> None:
        super().__init__()
        check_count("LogisticMixtureTransformer", "components", components)
        self.components = components
        self.parameters_per_element = 3 * components + 2
        first = torch.linspace(-1, 1, components) if components > 1 else torch.zeros(1)
        self.register_buffer("spread", first, persistent=False)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = exp(a) logit(F(x)) + b."""
        k = self.components
        logits, means, scales, last = h.split([k, k, k, 2])
        means = means + self.spread.reshape(-1, *[1] * (h.dim() - 1))
        log_slopes = -bounded(scales)
        z, log_slope = sigmoidal(x, torch.log_softmax(logits, 0), log_slopes, -means * log_slopes.exp())
        a = bounded(last[0])
        return torch.addcmul(last[1], z, a.exp()), log_slope + a

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x by bracketing."""
        return implicit_inverse(partial(self.forward, h=h), z, z - 1, z + 1, where="LogisticMixtureTransformer inverse")


@final
class SigmoidalTransformer(Transformer):
    """z = τ_L(… τ₁(x)), τ(x) = logit(Σₖ wₖ σ(aₖ x + bₖ)): a monotone network that the conditioner writes.

    hᵢ are K log-weights, K log-slopes and K shifts for each of the L layers. With zeros the shifts lie between −1 and
    1. The inverse is a root search with implicit gradients.

    Args:
        units: K.
        layers: L.

    Raises:
        ConfigError: a count below one.
        ConvergenceError: in the inverse, elements found no root.

    References:
        Huang et al. (2018), Neural autoregressive flows, eq. 8, the deep sigmoidal flow.

    Example:
        >>> import torch
        >>> SigmoidalTransformer(2, layers=1)(torch.zeros(1, 1), torch.zeros(6, 1, 1))[0].item()
        0.0
    """

    spread: Tensor

    def __init__(self, units: int = 8, layers: int = 2) -> None:
        super().__init__()
        check_count("SigmoidalTransformer", "units", units)
        check_count("SigmoidalTransformer", "layers", layers)
        self.units, self.layers = units, layers
        self.parameters_per_element = 3 * units * layers
        first = torch.linspace(-1, 1, units) if units > 1 else torch.zeros(1)
        self.register_buffer("spread", first, persistent=False)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = τ_L(… τ₁(x))."""
        total = torch.zeros_like(x)
        for layer in h.chunk(self.layers):
            logits, slopes, shifts = layer.chunk(3)
            shifts = shifts + self.spread.reshape(-1, *[1] * (h.dim() - 1))
            x, log_slope = sigmoidal(x, torch.log_softmax(logits, 0), bounded(slopes), shifts)
            total = total + log_slope
        return x, total

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x by bracketing."""
        return implicit_inverse(partial(self.forward, h=h), z, z - 1, z + 1, where="SigmoidalTransformer inverse")


def bounded(log_scale: Tensor) -> Tensor:
    """c tanh(h/c), c = 5: a log-scale that no input can drive to overflow."""
    return _LARGEST * torch.tanh(log_scale / _LARGEST)
