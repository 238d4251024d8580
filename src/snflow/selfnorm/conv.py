"""The self-normalizing convolution."""

from __future__ import annotations

from typing import final

from snflow.arguments import check_count, check_kernel
from snflow.bijections.linear.initialization import initial_kernel
from snflow.numerics.operators import ConvOperator
from snflow.selfnorm.self_normalizing import SelfNormalizingMap
from snflow.selfnorm.tracking import TrackingName


@final
class SelfNormalizingConv2d(SelfNormalizingMap):
    """z = w ⋆ x + b, log|det T(w)|, trained with a learned inverse kernel r in place of T(w)⁻¹: no determinant.

    The gradient of log|det T(w)| is flip(r) ⊙ m, where the multiplicity m counts the pixels at which each tap of the
    zero-padded kernel meets the image; for a 1×1 kernel m = H·W. A training step costs six convolutions.

    Args:
        channels: C, in and out.
        kernel_size: k, odd.
        bias: whether b, one number a channel, is there.
        penalty_weight: λ ≥ 0.
        symmetric_penalty: add ‖w ⋆ r ⋆ s − s‖², s = w ⋆ x behind a gradient stop.
        penalty_only_inverse: keep the penalty from w, so that only r follows.
        inverse_tracking: how r is kept near the inverse; ``"penalty"`` is the paper's way.

    Shapes:
        x, z: ``(batch, channels, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one channel, an even kernel, a negative penalty weight, or an unknown word.

    References:
        Keller et al. (2021), Self Normalizing Flows, eq. 12–16, A.2.

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
        penalty_weight: float = 1.0,
        *,
        symmetric_penalty: bool = False,
        penalty_only_inverse: bool = False,
        inverse_tracking: TrackingName = "penalty",
    ) -> None:
        check_count("SelfNormalizingConv2d", "channels", channels)
        check_kernel("SelfNormalizingConv2d", kernel_size)
        super().__init__(
            ConvOperator(kernel_size),
            initial_kernel(channels, kernel_size),
            bias=bias,
            event_shape=(channels, None, None),
            penalty_weight=penalty_weight,
            symmetric_penalty=symmetric_penalty,
            penalty_only_inverse=penalty_only_inverse,
            inverse_tracking=inverse_tracking,
        )
