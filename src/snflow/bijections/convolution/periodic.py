"""Periodic convolutions, inverted in Fourier space."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.linear import initial_kernel
from snflow.errors import NotInvertibleError, check_count, check_kernel


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
        NotInvertibleError: in ``eval()`` or in the inverse, ŵ is singular at some frequency.

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

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        size = tuple(x.shape[2:])
        matrices = self._matrices(size)
        # torch has no Fourier transform of an empty batch
        z = x if not len(x) else self._product(matrices, x, size)
        return z if self.bias is None else z + self.bias[:, None, None], self._log_det(matrices, size).expand(len(x))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        size = tuple(z.shape[2:])
        matrices = self._matrices(size)
        log_det = self._log_det(matrices, size)
        self._require(log_det)
        return self._solve(matrices, z, size), -log_det.expand(len(z))

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        size = tuple(z.shape[2:])
        return self._solve(self._matrices(size), z, size)

    def _product(self, matrices: Tensor, x: Tensor, size: Shape) -> Tensor:
        spectrum = torch.einsum("hwoi,nihw->nohw", matrices, torch.fft.rfft2(x))
        z: Tensor = torch.fft.irfft2(spectrum, s=size)
        return z

    def _solve(self, matrices: Tensor, z: Tensor, size: Shape) -> Tensor:
        y = (z if self.bias is None else z - self.bias[:, None, None]).double()
        if not len(z):
            return z
        solved, failed = torch.linalg.solve_ex(matrices.to(torch.complex128), torch.fft.rfft2(y).permute(2, 3, 1, 0))
        if bool(failed.any()):
            self._require(torch.tensor(-torch.inf))
        x: Tensor = torch.fft.irfft2(solved.permute(3, 2, 0, 1), s=size)
        return x.to(z.dtype)

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
        if not self.training:
            self._require(log_det)
        return log_det

    def _require(self, log_det: Tensor) -> None:
        if not bool(torch.isfinite(log_det)):
            raise NotInvertibleError(
                self.label,
                expected="a kernel that is invertible at each frequency",
                got="a singular or non-finite kernel",
                fix="return to an earlier checkpoint, or train with a smaller learning rate",
            )

    def extra_repr(self) -> str:
        """Show the size."""
        return f"{self.weight.shape[0]}, kernel_size={self.weight.shape[-1]}, bias={self.bias is not None}"
