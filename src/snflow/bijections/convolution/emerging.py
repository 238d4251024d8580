"""Autoregressive and emerging convolutions: triangular Jacobians."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from snflow.bijections.base import Bijection
from snflow.bijections.chain import Chain
from snflow.bijections.convolution.conv2d import Conv2d
from snflow.errors import check_choice, check_count, check_kernel
from snflow.numerics.devices import structure_device
from snflow.numerics.factorization import check_invertible
from snflow.numerics.kept_factor import KeptFactor
from snflow.numerics.operators.conv_triangular import TriangularConvOperator

Order = Literal["forward", "backward"]


@final
class AutoregressiveConv2d(Bijection):
    """z = (M ⊙ w) ⋆ x + b, log|det| = H·W · Σ_c s_c: the mask M makes the matrix of the convolution triangular.

    With elements ordered by row, column and channel, each output depends on the input at the same position, with the
    factor exp(s_c), and on the inputs before it, or after it for ``"backward"``. The inverse is a sparse triangular
    solve in float64 on the CPU, O(C²k²) per pixel.

    Args:
        channels: C, the number of input and output channels.
        kernel_size: k, odd.
        order: ``"forward"`` or ``"backward"``.
        bias: whether to add b, one number per channel.

    Shapes:
        x, z: ``(batch, C, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one channel, an even kernel, or an unknown order.
        NotInvertibleError: the kernel has a zero on the diagonal or a non-finite entry, except in ``encode``.

    References:
        Hoogeboom, van den Berg, Welling (2019), Emerging convolutions for generative normalizing flows, section 3.1.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.AutoregressiveConv2d(2)
        >>> x = torch.randn(3, 2, 4, 4)
        >>> torch.allclose(layer.inverse(layer(x)[0])[0], x)
        True
    """

    mask: Tensor

    def __init__(self, channels: int, kernel_size: int = 3, *, order: Order = "forward", bias: bool = True) -> None:
        super().__init__()
        check_count("AutoregressiveConv2d", "channels", channels)
        check_kernel("AutoregressiveConv2d", kernel_size)
        check_choice("AutoregressiveConv2d", "order", order, Order)
        self.event_shape = (channels, None, None)
        weight = torch.empty(channels, channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(nn.init.xavier_normal_(weight, gain=0.01))
        self.log_diagonal = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.register_buffer("mask", _before(channels, kernel_size, order), persistent=False)
        self.operator = TriangularConvOperator(kernel_size)
        self._factor = KeptFactor(self.operator, self.label)

    @property
    def kernel(self) -> Tensor:
        """M ⊙ w with exp(s) on the diagonal of its center, with shape ``(C, C, k, k)``."""
        center = self.weight.shape[-1] // 2
        diagonal = torch.diag(self.log_diagonal.exp())[:, :, None, None]
        return self.weight * self.mask + functional.pad(diagonal, (center, center, center, center))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._encode(x, context), self._log_det(x)

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        return functional.conv2d(x, self.kernel, self.bias, padding=self.operator.padding)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._decode(z, context), -self._log_det(z)

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        y = z if self.bias is None else z - self.bias[:, None, None]
        return self._factor.solve(self.kernel, y)

    def _log_det(self, x: Tensor) -> Tensor:
        log_abs_det = x.shape[2] * x.shape[3] * self.log_diagonal.sum()
        check_invertible(log_abs_det + self.weight.sum(), self.label, self.weight, self.log_diagonal)
        return log_abs_det.expand(x.shape[0])

    def extra_repr(self) -> str:
        """Show the size."""
        return f"{self.weight.shape[0]}, kernel_size={self.weight.shape[-1]}, bias={self.bias is not None}"


def _before(channels: int, kernel_size: int, order: Order) -> Tensor:
    """The mask: 1 at the taps before the center and, at the center, for input channels before the output channel."""
    center = kernel_size // 2
    with structure_device():
        mask = torch.zeros(channels, channels, kernel_size, kernel_size)
        mask.flatten(2)[:, :, : kernel_size * center + center] = 1
        mask[:, :, center, center] = torch.ones(channels, channels).tril(-1)
    return mask if order == "forward" else mask.flip(2, 3).transpose(0, 1).contiguous()


@final
class EmergingConv2d(Bijection):
    """z = w₂ ⋆ (w₁ ⋆ (W x)) + b: a 1×1 convolution W, then a forward and a backward masked k×k convolution.

    The receptive field of the composition contains the k×k pixels around each pixel, as that of an ordinary
    convolution. log|det| = H·W · (log|det W| + Σ s₁ + Σ s₂) is exact and costs O(C³). The inverse is two sparse
    triangular solves.

    Args:
        channels: C, the number of input and output channels.
        kernel_size: k of each masked convolution, odd.

    Shapes:
        x, z: ``(batch, C, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one channel, or an even kernel.
        NotInvertibleError: W is singular, or a weight is not finite, except in ``encode``.

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
                AutoregressiveConv2d(channels, kernel_size, order="forward", bias=False),
                AutoregressiveConv2d(channels, kernel_size, order="backward"),
            ]
        )

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z_and_log_det: tuple[Tensor, Tensor] = self.layers(x)
        return z_and_log_det

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.layers.encode(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.layers.inverse(z)

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        return self.layers.decode(z)
