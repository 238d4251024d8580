"""A residual network on vectors."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.arguments import check_count


@final
class ResidualMLP(nn.Module):
    """h₀ = W x, hᵢ = hᵢ₋₁ + Bᵢ SiLU(Aᵢ SiLU(hᵢ₋₁, context)), y = x + V hₙ: smooth, and the identity at first.

    Args:
        features: D of x and y.
        width: features inside.
        blocks: number of residual blocks.
        context_features: size of a context that is seen beside x; 0 for none.

    Shapes:
        x, y: ``(batch, *event)`` with D elements in each event; context: ``(batch, context_features)``.

    Raises:
        ConfigError: a count below one.

    References:
        He et al. (2016), Identity mappings in deep residual networks.

    Example:
        >>> import torch
        >>> net, x = ResidualMLP(3, 8, 2), torch.randn(4, 3)
        >>> bool((net(x) - x).abs().max() < 0.1)
        True
    """

    def __init__(self, features: int, width: int = 256, blocks: int = 2, context_features: int = 0) -> None:
        super().__init__()
        for option, count in (("features", features), ("width", width), ("blocks", blocks)):
            check_count("ResidualMLP", option, count)
        self.first = nn.Linear(features + context_features, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(blocks)
        )
        self.last = nn.Linear(width, features)
        with torch.no_grad():
            for layer in [block[3] for block in self.blocks] + [self.last]:  # type: ignore[index]
                layer.weight.mul_(0.1)
                layer.bias.zero_()

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """y = x + net(x, context)."""
        flat = x.flatten(1)
        h = self.first(flat if context is None else torch.cat([flat, context], 1))
        for block in self.blocks:
            h = h + block(h)
        y: Tensor = x + self.last(h).view_as(x)
        return y
