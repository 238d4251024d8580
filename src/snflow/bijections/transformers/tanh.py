"""Sums of bends."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from snflow.arguments import check_count
from snflow.bijections.transformers.base import Transformer
from snflow.bijections.transformers.sigmoidal import bounded
from snflow.numerics.root_finding import implicit_inverse

_ZERO = 0.5413
"""softplus of it is one."""


@final
class TanhTransformer(Transformer):
    """z = x + Σₖ uₖ tanh(wₖ x + bₖ) + t, uₖ wₖ > −1/K: what a Sylvester flow does to one number.

    hᵢ are K products, K log-weights, K biases and t. The inverse is a root search with implicit gradients, in a bracket
    of width 2 Σ|uₖ|.

    Args:
        units: K.

    Raises:
        ConfigError: fewer than one unit.
        ConvergenceError: in the inverse, elements found no root.

    References:
        Hoogeboom et al. (2020), The convolution exponential and generalized Sylvester flows, section 3.2.

    Example:
        >>> import torch
        >>> x = torch.tensor([[2.0]])
        >>> z, log_slope = TanhTransformer(3)(x, torch.zeros(10, 1, 1))
        >>> torch.allclose(z, x), torch.allclose(log_slope, torch.zeros(1, 1), atol=1e-4)
        (True, True)
    """

    def __init__(self, units: int = 4) -> None:
        super().__init__()
        check_count("TanhTransformer", "units", units)
        self.units = units
        self.parameters_per_element = 3 * units + 1

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z and log dz/dx."""
        products, weights, biases, shift = self._told(h)
        heights = torch.tanh(weights * x + biases)
        z = x + (products / weights * heights).sum(0) + shift
        return z, torch.log1p((products * (1 - heights.square())).sum(0))

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x and log dx/dz."""
        products, weights, _, shift = self._told(h)
        reach = (products / weights).abs().sum(0).expand_as(z)
        middle = z - shift
        return implicit_inverse(
            lambda x: self.forward(x, h), z, middle - reach, middle + reach, where="TanhTransformer"
        )

    def _told(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        k = self.units
        products, weights, biases, shift = h.split([k, k, k, 1])
        return (F.softplus(products + _ZERO) - 1) / k, bounded(weights).exp(), biases, shift[0]
