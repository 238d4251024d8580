"""A free k×k convolution with the exact log-determinant of its matrix."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor

from snflow.arguments import check_choice, check_count, check_kernel
from snflow.bijections.linear.initialization import initial_kernel
from snflow.bijections.linear.linear_map import LinearMap
from snflow.numerics.operators import ConvOperator

ConvRule = Literal["exact", "exact_by_rows"]
"""From the whole matrix, as the baseline of the literature, or by rows of the image: the same numbers, for less."""


@final
class Conv2d(LinearMap):
    """z = w ⋆ x + b, log|det T(w)|, for a free kernel w with zero padding that keeps the image size.

    T(w) is the matrix of the convolution, of size C·H·W: its determinant and its inverse cost O((C·H·W)³) a training
    step, or O(H (C·W)³) by rows of the image. For a 1×1 kernel log|det| = H·W · log|det w|, O(C³).

    Args:
        channels: C, in and out.
        kernel_size: k, odd.
        bias: whether b, one number a channel, is there.
        log_det_rule: how training finds the log-determinant: ``"exact"``, from the whole matrix, or
            ``"exact_by_rows"``, by block elimination in float64 where that is stable; both exact in value and
            gradient. See :class:`~snflow.SelfNormalizingConv2d` for the learned one.

    Shapes:
        x, z: ``(batch, channels, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one channel, an even kernel, or an unknown rule.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.Conv2d(2).eval()
        >>> x = torch.randn(3, 2, 4, 4)
        >>> z, log_det = layer(x)
        >>> torch.allclose(layer.inverse(z)[0], x)
        True
    """

    def __init__(
        self, channels: int, kernel_size: int = 3, bias: bool = True, log_det_rule: ConvRule = "exact"
    ) -> None:
        check_count("Conv2d", "channels", channels)
        check_kernel("Conv2d", kernel_size)
        check_choice("Conv2d", "log_det_rule", log_det_rule, ConvRule)
        super().__init__(
            ConvOperator(kernel_size),
            initial_kernel(channels, kernel_size),
            bias=bias,
            event_shape=(channels, None, None),
        )
        self.log_det_rule: ConvRule = log_det_rule

    def _training_forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        event_shape = tuple(x.shape[1:])
        if self.log_det_rule == "exact":
            log_abs_det = torch.linalg.slogdet(self.operator.block(self.weight, event_shape))[1]
            log_det = self.operator.copies(event_shape) * log_abs_det
        else:
            log_det = self.operator.log_abs_det(self.weight, event_shape)
        return self.operator.product(self.weight, x), log_det.expand(x.shape[0])

    def extra_repr(self) -> str:
        """What ``print(layer)`` shows."""
        rule = "" if self.log_det_rule == "exact" else f", log_det_rule={self.log_det_rule!r}"
        return f"{self.weight.shape[0]}, kernel_size={self.weight.shape[-1]}, bias={self.bias is not None}{rule}"
