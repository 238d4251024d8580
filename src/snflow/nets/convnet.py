"""Convolutional networks: plain, residual and with attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snflow.errors import CheckedConstructor, ConfigError, check_context_shape, check_count, check_kernel


@final
class ConvNet(nn.Module, metaclass=CheckedConstructor):
    """h = w₃ ⋆ ReLU(w₂ ⋆ ReLU(w₁ ⋆ a)): convolutions that keep the image size.

    The last convolution is initialized to zero, so that a coupling starts as the identity.

    Args:
        in_channels: number of channels of a.
        out_channels: number of channels of h.
        width: number of channels of the hidden layers.
        kernel_sizes: side length of each kernel, odd; Glow uses 3, 1, 3.

    Shapes:
        a: ``(batch, in_channels, height, width)``; h: ``(batch, out_channels, height, width)``.

    Raises:
        ConfigError: a count below one, or an even kernel.

    References:
        Kingma & Dhariwal (2018), Glow, appendix B.

    Example:
        >>> import torch
        >>> ConvNet(2, 6, width=8)(torch.randn(5, 2, 4, 4)).abs().sum()
        tensor(0., grad_fn=<SumBackward0>)
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, width: int, kernel_sizes: Sequence[int] = (3, 1, 3)
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


@final
class ResidualConvNet(nn.Module, metaclass=CheckedConstructor):
    """h₀ = w₀ ⋆ a, hᵢ = hᵢ₋₁ + uᵢ ⋆ ReLU(vᵢ ⋆ ReLU(hᵢ₋₁)), y = w ⋆ ReLU(hₙ), initially zero: keeps the image size.

    Args:
        in_channels: number of channels of a.
        out_channels: number of channels of y.
        width: number of channels of the hidden layers.
        blocks: n, the number of residual blocks with two 3×3 convolutions each.

    Shapes:
        a: ``(batch, in_channels, height, width)``; y: ``(batch, out_channels, height, width)``.

    Raises:
        ConfigError: a count below one.

    References:
        He et al. (2016), Identity mappings in deep residual networks; Dinh et al. (2017), section 4.1.

    Example:
        >>> import torch
        >>> ResidualConvNet(2, 6, width=8)(torch.randn(5, 2, 4, 4)).shape
        torch.Size([5, 6, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, *, width: int, blocks: int = 2) -> None:
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


_HEADS = 4


@final
class AttentionConvNet(nn.Module, metaclass=CheckedConstructor):
    """h ← norm(h + gated conv(h)), h ← norm(h + gated attention(h + position)), n times: Flow++'s conditioner.

    Every output pixel depends on the whole image. The last convolution is initialized to zero.

    Args:
        in_channels: number of channels of a.
        out_channels: number of channels of y.
        size: (height, width) of the images, as required by the learned positional embedding.
        width: number of channels of the hidden layers, a multiple of 4, the number of attention heads.
        blocks: n, the number of blocks.
        context_shape: ``(channels, height, width)`` of an image concatenated to a; ``None`` for no context.

    Shapes:
        a: ``(batch, in_channels, height, width)``; context: ``(batch, *context_shape)``; y:
        ``(batch, out_channels, height, width)``.

    Raises:
        ConfigError: a count below one, a width that is not a multiple of 4, or a context whose image size differs.

    References:
        Ho et al. (2019), Flow++, section 3.3; Vaswani et al. (2017), Attention is all you need.

    Example:
        >>> import torch
        >>> AttentionConvNet(2, 6, (4, 4), width=8, blocks=1)(torch.randn(5, 2, 4, 4)).abs().max().item()
        0.0
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: tuple[int, int],
        *,
        width: int,
        blocks: int = 10,
        context_shape: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        counts = {"in_channels": in_channels, "width": width, "out_channels": out_channels, "blocks": blocks}
        for option, count in counts.items():
            check_count("AttentionConvNet", option, count)
        if width % _HEADS:
            raise ConfigError("AttentionConvNet", expected=f"width to be a multiple of {_HEADS}", got=str(width))
        image = check_context_shape("AttentionConvNet", context_shape)
        if image is not None and (len(image) != 3 or image[1:] != tuple(size)):
            raise ConfigError(
                "AttentionConvNet",
                expected=f"context_shape=(channels, {size[0]}, {size[1]}), with the image size of the input",
                got=f"context_shape={image}",
            )
        seen = in_channels + (image[0] if image else 0)
        self.first = nn.Conv2d(seen, width, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(width, size) for _ in range(blocks))
        self.last = nn.Conv2d(width, out_channels, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, a: Tensor, context: Tensor | None = None) -> Tensor:
        """y = net(a, context)."""
        h = self.first(a if context is None else torch.cat([a, context], 1))
        for block in self.blocks:
            h = block(h)
        y: Tensor = self.last(h)
        return y


class _Block(nn.Module):
    """A gated convolution and gated attention, each with a skip connection and normalization over the channels."""

    def __init__(self, width: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * width, width, 3, padding=1)
        self.conv_gate = nn.Conv2d(2 * width, 2 * width, 1)
        self.position = nn.Parameter(0.01 * torch.randn(width, *size))
        self.query_key_value = nn.Conv2d(width, 3 * width, 1)
        self.attention_gate = nn.Conv2d(width, 2 * width, 1)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, h: Tensor) -> Tensor:
        """The new h, with the shape of the input."""
        h = self._normalized(0, h + F.glu(self.conv_gate(_both_signs(self.conv(_both_signs(h)))), 1))
        return self._normalized(1, h + F.glu(self.attention_gate(self._attended(h + self.position)), 1))

    def _attended(self, h: Tensor) -> Tensor:
        heads = self.query_key_value(h).flatten(2).unflatten(1, (3, _HEADS, -1)).transpose(-1, -2)
        query, key, value = heads.unbind(1)
        # written out: on a CPU the kernel of scaled_dot_product_attention has no second derivative
        share = torch.softmax(query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]), -1)
        attended: Tensor = (share @ value).transpose(-1, -2).reshape(h.shape)
        return attended

    def _normalized(self, number: int, h: Tensor) -> Tensor:
        normal: Tensor = self.norms[number](h.movedim(1, -1))
        return normal.movedim(-1, 1)


def _both_signs(h: Tensor) -> Tensor:
    """ELU(h) and ELU(−h), concatenated."""
    return F.elu(torch.cat([h, -h], 1))
