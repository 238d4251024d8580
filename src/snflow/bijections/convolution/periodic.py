"""Periodic convolutions, inverted in Fourier space."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.linear import initial_kernel
from snflow.errors import check_count, check_kernel
from snflow.numerics.factorization import check_invertible
from snflow.numerics.kept_factor import KeptAccuracy, linear_condition_number


@final
class PeriodicConv2d(Bijection):
    """ẑ(f) = ŵ(f) x̂(f) at each frequency f, log|det| = Σ_f log|det ŵ(f)|: a convolution with periodic boundaries.

    ŵ(f) is a complex C×C matrix: the exact log-determinant and the inverse cost O(C³) per frequency, and z costs
    O(C² H W + C H W log(H W)).

    Args:
        channels: C, the number of input and output channels.
        kernel_size: k, odd; a kernel larger than the image wraps around it.
        bias: whether to add b, one number per channel.

    Shapes:
        x, z: ``(batch, C, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one channel, or an even kernel.
        NotInvertibleError: ŵ is singular at some frequency or not finite, except in ``encode``.

    References:
        Hoogeboom, van den Berg, Welling (2019), Emerging convolutions for generative normalizing flows, section 3.3.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.PeriodicConv2d(2)
        >>> x = torch.randn(3, 2, 4, 5)
        >>> torch.allclose(layer.inverse(layer(x)[0])[0], x)
        True
    """

    def __init__(self, channels: int, kernel_size: int = 3, *, bias: bool = True) -> None:
        super().__init__()
        check_count("PeriodicConv2d", "channels", channels)
        check_kernel("PeriodicConv2d", kernel_size)
        self.event_shape = (channels, None, None)
        self.weight = nn.Parameter(initial_kernel(channels, kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self._accuracy = KeptAccuracy(self.label)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        size = tuple(x.shape[2:])
        return self._encode(x, context), self._log_det(self._matrices(size), size).expand(x.shape[0])

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        z = _product(self._matrices(tuple(x.shape[2:])), x)
        return z if self.bias is None else z + self.bias[:, None, None]

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        size = tuple(z.shape[2:])
        log_det = self._log_det(self._matrices(size), size)
        return self._decode(z, context), -log_det.expand(z.shape[0])

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        matrices = self._matrices(tuple(z.shape[2:])).to(torch.complex128)
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrices)
        # −∞ where a pivot is zero, NaN where an entry is
        check_invertible(factors.diagonal(dim1=-2, dim2=-1).abs().log().sum(), self.label, self.weight)

        def solve(y: Tensor) -> Tensor:
            return _by_frequency(y, lambda spectrum: torch.linalg.lu_solve(factors, pivots, spectrum))

        def condition() -> float:
            like = torch.empty_like(z[:1], dtype=torch.float64)
            return linear_condition_number(partial(_product, matrices), solve, like)

        self._accuracy.check((self.weight,), tuple(z.shape[1:]), z.dtype, condition)
        y = z if self.bias is None else z - self.bias[:, None, None]
        return solve(y.double()).to(z.dtype)

    def _matrices(self, size: Shape) -> Tensor:
        """ŵ(f) at the frequencies of a real-valued transform, with shape ``(H, W // 2 + 1, C, C)``."""
        height, width = size
        offset = torch.arange(self.weight.shape[-1], device=self.weight.device) - self.weight.shape[-1] // 2
        places = (offset[:, None] % height) * width + offset[None, :] % width
        torus = self.weight.new_zeros(*self.weight.shape[:2], height * width)
        torus = torus.index_add(2, places.flatten(), self.weight.flatten(2)).unflatten(2, (height, width))
        # torch's convolution is a correlation, hence the conjugate
        matrices: Tensor = torch.fft.rfft2(torus).conj().permute(2, 3, 0, 1)
        return matrices

    def _log_det(self, matrices: Tensor, size: Shape) -> Tensor:
        """Sum over all frequencies; those omitted by the real-valued transform are counted by symmetry."""
        by_frequency = torch.linalg.slogdet(matrices).logabsdet
        times = torch.full((size[1] // 2 + 1,), 2.0, dtype=by_frequency.dtype, device=by_frequency.device)
        times[0] = 1.0
        if size[1] % 2 == 0:
            times[-1] = 1.0
        log_det: Tensor = (by_frequency * times).sum()
        check_invertible(log_det, self.label, self.weight)
        return log_det

    def extra_repr(self) -> str:
        """Show the size."""
        return f"{self.weight.shape[0]}, kernel_size={self.weight.shape[-1]}, bias={self.bias is not None}"


def _product(matrices: Tensor, x: Tensor) -> Tensor:
    """The images with the spectrum ŵ(f) x̂(f)."""
    return _by_frequency(x, lambda spectrum: matrices @ spectrum)


def _by_frequency(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a linear function to the spectrum ``(H, W // 2 + 1, C, batch)`` of images."""
    if not x.shape[0]:  # torch has no Fourier transform of an empty batch
        return x
    spectrum = function(torch.fft.rfft2(x).permute(2, 3, 1, 0))
    images: Tensor = torch.fft.irfft2(spectrum.permute(3, 2, 0, 1), s=x.shape[2:])
    return images
