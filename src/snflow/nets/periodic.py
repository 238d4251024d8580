"""A network on angles."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.nets.mlp import MLP
from snflow.nets.options import Activation


@final
class PeriodicMLP(nn.Module):
    """y = MLP(cos x, sin x, context): a network without a seam where the circle closes.

    Args:
        features: D of x, angles in radians.
        outputs: O of y.
        width: features inside.
        depth: number of hidden layers.
        context_features: size of a context that is seen beside x; 0 for none.
        activation: ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.

    Shapes:
        x: ``(batch, D)``; context: ``(batch, context_features)``; y: ``(batch, O)``.

    Raises:
        ConfigError: a count below one, or an unknown activation.

    Example:
        >>> import torch
        >>> PeriodicMLP(2, 3)(torch.randn(4, 2)).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        width: int = 64,
        depth: int = 2,
        context_features: int = 0,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.net = MLP(2 * features, outputs, width, depth, context_features, activation=activation)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """y = net(x, context)."""
        y: Tensor = self.net(torch.cat([x.cos(), x.sin()], 1), context)
        return y
