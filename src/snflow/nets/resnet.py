"""A residual convolutional network."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from snflow.arguments import check_count


@final
class ResidualConvNet(nn.Module):
    """h₀ = w₀ ⋆ a, hᵢ = hᵢ₋₁ + uᵢ ⋆ ReLU(vᵢ ⋆ ReLU(hᵢ₋₁)), y = w ⋆ ReLU(hₙ): keeps the image size, zero at first.

    Args:
        in_channels: channels of a.
        width: channels inside.
        out_channels: channels of y.
        blocks: n, of two 3×3 convolutions each.

    Shapes:
        a: ``(batch, in_channels, height, width)``; y: ``(batch, out_channels, height, width)``.

    Raises:
        ConfigError: a count below one.

    References:
        He et al. (2016), Identity mappings in deep residual networks; Dinh et al. (2017), section 4.1.

    Example:
        >>> import torch
        >>> ResidualConvNet(2, 8, 6)(torch.randn(5, 2, 4, 4)).shape
        torch.Size([5, 6, 4, 4])
    """

    def __init__(self, in_channels: int, width: int, out_channels: int, blocks: int = 2) -> None:
        super().__init__()
        counts = {"in_channels": in_channels, "width": width, "out_channels": out_channels, "blocks": blocks}
        for option, count in counts.items():
            check_count("ResidualConvNet", option, count)
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
            )
            for _ in range(blocks)
        )
        self.last = nn.Sequential(nn.ReLU(), nn.Conv2d(width, out_channels, 1))
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, a: Tensor) -> Tensor:
        """y = net(a)."""
        h = self.first(a)
        for block in self.blocks:
            h = h + block(h)
        y: Tensor = self.last(h)
        return y
