"""A plain network on vectors."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.arguments import check_count


@final
class MLP(nn.Module):
    """h₀ = W₀ (x, context), hᵢ = Wᵢ SiLU(hᵢ₋₁), y = V SiLU(hₙ): smooth, and zero at first.

    Args:
        features: D of x.
        outputs: O of y.
        width: features inside.
        depth: number n + 1 of hidden layers.
        context_features: size of a context that is seen beside x; 0 for none.
        residual: whether each hidden layer behind the first adds to the one before it.

    Shapes:
        x: ``(batch, D)``; context: ``(batch, context_features)``; y: ``(batch, O)``.

    Raises:
        ConfigError: a count below one.

    Example:
        >>> import torch
        >>> MLP(3, 4)(torch.randn(2, 3)).tolist()
        [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        width: int = 64,
        depth: int = 2,
        context_features: int = 0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        for option, count in (("features", features), ("outputs", outputs), ("width", width), ("depth", depth)):
            check_count("MLP", option, count)
        self.first = nn.Linear(features + context_features, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.last = nn.Linear(width, outputs)
        self.residual = residual
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """y = net(x, context)."""
        h = self.first(x if context is None else torch.cat([x, context], 1))
        for layer in self.hidden:
            further = layer(nn.functional.silu(h))
            h = h + further if self.residual else further
        y: Tensor = self.last(nn.functional.silu(h))
        return y
