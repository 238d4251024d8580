"""Smooth activations of Lipschitz constant one."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snflow.arguments import check_choice
from snflow.nets.options import LipschitzActivation

_SWISH_SLOPE = 1.1
"""No slope of x σ(βx) is larger (1.0998…), whatever β is."""
_PAIR_SLOPE = 1.004
"""Of the pair (LipSwish(x), LipSwish(−x)): √(1.0998² + 0.0998²) / 1.1."""


@final
class LipSwish(nn.Module):
    """y = x σ(βx) / 1.1, β > 0 learned: slopes between −0.1 and 1, and second derivatives that do not vanish.

    A residual flow's loss holds first derivatives of its networks, so that its gradient holds second ones: a ReLU's are
    zero, those of saturating activations are small where their slope is near one.

    References:
        Chen, Behrmann, Duvenaud, Jacobsen (2019), Residual flows for invertible generative modeling, section 3.3.

    Example:
        >>> import torch
        >>> bool(LipSwish()(torch.tensor(100.0)) < 100 / 1.09)
        True
    """

    factor = 1
    """How many numbers come out for one."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """y, with the shape of x."""
        sharpness = F.softplus(self.sharpness)
        return F.silu(sharpness * x) * (1 / (_SWISH_SLOPE * sharpness))


@final
class CLipSwish(nn.Module):
    """y = (LipSwish(x), LipSwish(−x)) / 1.004: twice the channels, and a slope that stays near one on both sides.

    References:
        Perugachi-Diaz, Tomczak, Bhulai (2021), Invertible DenseNets with concatenated LipSwish, section 3.3.

    Example:
        >>> import torch
        >>> CLipSwish()(torch.randn(3, 5)).shape
        torch.Size([3, 10])
    """

    factor = 2
    """How many numbers come out for one."""

    def __init__(self) -> None:
        super().__init__()
        self.swish = LipSwish()

    def forward(self, x: Tensor) -> Tensor:
        """y, the channels (dimension 1) doubled."""
        return torch.cat([self.swish(x), self.swish(-x)], 1) / _PAIR_SLOPE


def lipschitz_activation(where: str, name: LipschitzActivation) -> LipSwish | CLipSwish:
    """Make the activation of this name.

    Args:
        where: the caller, for the error.
        name: ``"lipswish"`` or ``"clipswish"``.

    Raises:
        ConfigError: there is none of that name.

    Example:
        >>> lipschitz_activation("net", "clipswish").factor
        2
    """
    check_choice(where, "activation", name, LipschitzActivation)
    return LipSwish() if name == "lipswish" else CLipSwish()
