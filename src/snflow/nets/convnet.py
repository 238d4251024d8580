"""The convolutional conditioner of a coupling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from snflow.arguments import check_count, check_kernel


@final
class ConvNet(nn.Module):
    """h = w₃ ⋆ ReLU(w₂ ⋆ ReLU(w₁ ⋆ a)): convolutions that keep the image size, zero at first.

    The last convolution begins with zeros, so that a coupling begins as the identity.

    Args:
        in_channels: channels of a.
        width: channels between two convolutions.
        out_channels: channels of h.
        kernel_sizes: side of each kernel, odd; Glow has 3, 1, 3.

    Shapes:
        a: ``(batch, in_channels, height, width)``; h: ``(batch, out_channels, height, width)``.

    Raises:
        ConfigError: a count below one, or an even kernel.

    References:
        Kingma & Dhariwal (2018), Glow, appendix B.

    Example:
        >>> import torch
        >>> ConvNet(2, 8, 6)(torch.randn(5, 2, 4, 4)).abs().sum()
        tensor(0., grad_fn=<SumBackward0>)
    """

    def __init__(
        self, in_channels: int, width: int, out_channels: int, kernel_sizes: Sequence[int] = (3, 1, 3)
    ) -> None:
        super().__init__()
        for option, count in (("in_channels", in_channels), ("width", width), ("out_channels", out_channels)):
            check_count("ConvNet", option, count)
        layers: list[nn.Module] = []
        channels = in_channels
        for position, size in enumerate(kernel_sizes):
            check_kernel("ConvNet", size)
            last = position == len(kernel_sizes) - 1
            layers += [nn.Conv2d(channels, out_channels if last else width, size, padding=size // 2), nn.ReLU()]
            channels = width
        self.layers = nn.Sequential(*layers[:-1])
        for parameter in layers[-2].parameters():
            nn.init.zeros_(parameter)

    def forward(self, a: Tensor) -> Tensor:
        """h = net(a)."""
        h: Tensor = self.layers(a)
        return h
