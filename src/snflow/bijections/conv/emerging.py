"""Two masked convolutions that together see every pixel around."""

from __future__ import annotations

from typing import final

from torch import Tensor

from snflow.bijections.base import Bijection
from snflow.bijections.chain import Chain
from snflow.bijections.conv.autoregressive import AutoregressiveConv2d
from snflow.bijections.conv.dense_kernel import Conv2d


@final
class EmergingConv2d(Bijection):
    """z = w₂ ⋆ (w₁ ⋆ (W x)) + b: a 1×1 convolution W, then one masked k×k convolution forwards and one backwards.

    The product of the two triangular matrices sees all of the k×k pixels around each one, as a free convolution does,
    and a few more. log|det| = H·W · (log|det W| + Σ s₁ + Σ s₂): exact, O(C³). The inverse is two sparse triangular
    solves.

    Args:
        channels: C, in and out.
        kernel_size: k of each masked convolution, odd.

    Shapes:
        x, z: ``(batch, C, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one channel, or an even kernel.

    References:
        Hoogeboom, van den Berg, Welling (2019), Emerging convolutions for generative normalizing flows, section 3.2.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.EmergingConv2d(2)
        >>> x = torch.randn(3, 2, 4, 4)
        >>> torch.allclose(layer.inverse(layer(x)[0])[0], x)
        True
    """

    def __init__(self, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.event_shape = (channels, None, None)
        self.layers = Chain(
            [
                Conv2d(channels, 1, bias=False),
                AutoregressiveConv2d(channels, kernel_size, "forward", bias=False),
                AutoregressiveConv2d(channels, kernel_size, "backward"),
            ]
        )

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z_and_log_det: tuple[Tensor, Tensor] = self.layers(x)
        return z_and_log_det

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.layers.inverse(z)

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        return self.layers.decode(z)
