"""The self-normalizing convolution."""

from __future__ import annotations

from typing import Unpack, final

from snflow.arguments import check_count, check_kernel
from snflow.bijections.linear.initialization import initial_kernel
from snflow.errors import ConfigError
from snflow.numerics.operators import ConvOperator, resized
from snflow.selfnorm.gradient import Operators
from snflow.selfnorm.options import LearnedInverse, LearnedInverseArguments
from snflow.selfnorm.self_normalizing import SelfNormalizingMap


@final
class SelfNormalizingConv2d(SelfNormalizingMap):
    """z = w ⋆ x + b, log|det T(w)|, trained with a learned inverse kernel r in place of T(w)⁻¹: no determinant.

    The gradient of log|det T(w)| is flip(r) ⊙ m, where the multiplicity m counts the pixels at which each tap of the
    zero-padded kernel meets the image; for a 1×1 kernel m = H·W. A training step costs six convolutions.

    Args:
        channels: C, in and out.
        kernel_size: k, odd.
        bias: whether b, one number a channel, is there.
        inverse_kernel_size: the size of r, odd, k or larger; k when ``None``. The inverse of a convolution reaches
            further than the convolution, so that a larger r comes nearer to it. The gradients by w and r see the part
            that their kernels share: flip(r) is cut to the centre for w, flip(w) padded with zeros for r.
        dilation: distance between two taps of w and of r, in pixels.
        groups: number of groups of channels that do not see each other.
        learned: how r is kept near the inverse, the fields of :class:`~snflow.LearnedInverse`:
            ``penalty_weight=1.0``, ``inverse_tracking="penalty"`` and others.

    Shapes:
        x, z: ``(batch, channels, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one channel, an even kernel, an inverse kernel smaller than the kernel, groups that
            do not divide the channels, or an option of the learned inverse out of its range.

    References:
        Keller et al. (2021), Self Normalizing Flows, eq. 12–16, 27–30, A.2, A.4.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.SelfNormalizingConv2d(2)
        >>> z, log_det = layer(torch.randn(5, 2, 4, 4))
        >>> (0.5 * z.square().flatten(1).sum(1) - log_det).mean().backward()
        >>> layer.inverse_weight.grad.shape
        torch.Size([2, 2, 3, 3])
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        bias: bool = True,
        *,
        inverse_kernel_size: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        **learned: Unpack[LearnedInverseArguments],
    ) -> None:
        for option, count in (("channels", channels), ("dilation", dilation), ("groups", groups)):
            check_count("SelfNormalizingConv2d", option, count)
        inverse_size = kernel_size if inverse_kernel_size is None else inverse_kernel_size
        check_kernel("SelfNormalizingConv2d", kernel_size)
        check_kernel("SelfNormalizingConv2d", inverse_size)
        if channels % groups:
            raise ConfigError(
                "SelfNormalizingConv2d", expected=f"groups that divide {channels} channels", got=str(groups)
            )
        if inverse_size < kernel_size:
            raise ConfigError(
                "SelfNormalizingConv2d",
                expected=f"an inverse kernel of at least {kernel_size}, the size of the kernel",
                got=str(inverse_size),
                fix="leave inverse_kernel_size out, or make it larger",
            )
        forward, inverse = (ConvOperator(size, dilation, groups) for size in (kernel_size, inverse_size))
        weight = initial_kernel(channels, kernel_size, groups)
        super().__init__(
            Operators(forward, inverse),
            weight,
            resized(forward.transpose(weight), inverse_size),
            bias=bias,
            event_shape=(channels, None, None),
            learned=LearnedInverse(**learned),
        )
