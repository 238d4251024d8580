"""The self-normalizing convolution whose stride is its kernel size."""

from __future__ import annotations

from typing import Unpack, final

from torch import Tensor

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.reshaping import Squeeze
from snflow.selfnorm.conv import SelfNormalizingConv2d
from snflow.selfnorm.options import LearnedInverseArguments


@final
class SelfNormalizingStridedConv2d(Bijection):
    """z = w ⋆ₛ x + b with stride s = kernel size and C·s² channels out: square, since each patch has C·s² pixels.

    The patches do not overlap, so that the matrix of the map has one C·s² × C·s² block a patch: a squeeze and a 1×1
    convolution. The multiplicity of every tap is the number of patches, (H/s)(W/s).

    Args:
        channels: C, of the data; the latents have C·s².
        stride: s, also the size of the kernel.
        bias: whether b, one number a channel of the latents, is there.
        learned: how the inverse kernel is kept near the inverse, the fields of :class:`~snflow.LearnedInverse`.

    Shapes:
        x: ``(batch, C, H, W)``, both sides multiples of s; z: ``(batch, C·s², H/s, W/s)``; log_det: ``(batch,)``,
        nats.

    Raises:
        ConfigError: fewer than one channel, a stride below 2, or an option of the learned inverse out of its range.
        ShapeError: a side of the image is no multiple of the stride.

    References:
        Keller et al. (2021), Self Normalizing Flows, eq. 27, A.2.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.SelfNormalizingStridedConv2d(3, 2)
        >>> z, log_det = layer(torch.randn(5, 3, 4, 6))
        >>> z.shape, layer.kernel.shape
        (torch.Size([5, 12, 2, 3]), torch.Size([12, 3, 2, 2]))
    """

    def __init__(
        self, channels: int, stride: int = 2, bias: bool = True, **learned: Unpack[LearnedInverseArguments]
    ) -> None:
        super().__init__()
        self.squeeze = Squeeze(stride)
        self.conv = SelfNormalizingConv2d(channels * stride**2, 1, bias, **learned)
        self.event_shape = (channels, None, None)

    @property
    def kernel(self) -> Tensor:
        """w as a strided convolution takes it, with shape ``(C·s², C, s, s)``."""
        factor = self.squeeze.factor
        return self.conv.weight.reshape(len(self.conv.weight), -1, factor, factor)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z_and_log_det: tuple[Tensor, Tensor] = self.conv(self.squeeze(x)[0])
        return z_and_log_det

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_det = self.conv.inverse(z)
        return self.squeeze.decode(x), log_det

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        return self.squeeze.decode(self.conv.decode(z))

    def _latent_shape(self, event_shape: Shape) -> Shape:
        return self.squeeze.latent_shape(event_shape)

    def _data_shape(self, latent_shape: Shape) -> Shape:
        return self.squeeze.data_shape(latent_shape)
