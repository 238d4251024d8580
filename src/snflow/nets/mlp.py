"""A plain network on vectors."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.arguments import check_count
from snflow.nets.activation import activation_module
from snflow.nets.options import Activation


@final
class MLP(nn.Module):
    """h₀ = W₀ (x, context), hᵢ = Wᵢ φ(hᵢ₋₁), y = V φ(hₙ).

    Args:
        features: D of x.
        outputs: O of y.
        width: features inside.
        depth: number n + 1 of hidden layers.
        context_features: size of a context that is seen beside x; 0 for none.
        residual: whether each hidden layer behind the first adds to the one before it.
        activation: φ, ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.
        input_bound: the network sees x clamped to ±this, so that points far outside get what the nearest point inside
            gets: a network of ReLUs would tell them ever larger numbers. ``None`` for no bound.

    Shapes:
        x: ``(batch, D)``; context: ``(batch, context_features)``; y: ``(batch, O)``.

    Raises:
        ConfigError: a count below one, or an unknown activation.

    Example:
        >>> import torch
        >>> MLP(3, 4)(torch.randn(2, 3)).shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        width: int = 64,
        depth: int = 2,
        context_features: int = 0,
        residual: bool = False,
        activation: Activation = "relu",
        input_bound: float | None = None,
    ) -> None:
        super().__init__()
        for option, count in (("features", features), ("outputs", outputs), ("width", width), ("depth", depth)):
            check_count("MLP", option, count)
        self.first = nn.Linear(features + context_features, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.last = nn.Linear(width, outputs)
        self.activation = activation_module("MLP", activation)
        self.residual, self.input_bound = residual, input_bound

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """y = net(x, context)."""
        if self.input_bound is not None:
            x = x.clamp(-self.input_bound, self.input_bound)
        h = self.first(x if context is None else torch.cat([x, context], 1))
        for layer in self.hidden:
            further = layer(self.activation(h))
            h = h + further if self.residual else further
        y: Tensor = self.last(self.activation(h))
        return y
