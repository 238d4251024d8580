"""A(w) = T(w): a convolution with zero padding that keeps the image size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_weight


@dataclass(frozen=True)
class ConvOperator:
    """z = w ⋆ x for a kernel w ``(channels, channels, k, k)``, k odd, and events ``(channels, height, width)``.

    The matrix T(w) of a k×k convolution is one block of size C·H·W; a 1×1 convolution has one C×C block a pixel.

    Args:
        kernel_size: k.

    Example:
        >>> import torch
        >>> kernel = torch.zeros(1, 1, 3, 3)
        >>> kernel[0, 0, 1, 1] = 2.0
        >>> ConvOperator(3).product(kernel, torch.ones(1, 1, 1, 2))
        tensor([[[[2., 2.]]]])
    """

    kernel_size: int

    def product(self, weight: Tensor, x: Tensor) -> Tensor:
        """w ⋆ x."""
        return functional.conv2d(x, weight, padding=self.kernel_size // 2)

    def transposed_product(self, weight: Tensor, v: Tensor) -> Tensor:
        """T(w)ᵀ v."""
        return functional.conv_transpose2d(v, weight, padding=self.kernel_size // 2)

    def weight_gradient(self, weight: Tensor, x: Tensor, v: Tensor) -> Tensor:
        """∂/∂w Σ_b ⟨v_b, w ⋆ x_b⟩."""
        size = tuple(weight.shape)
        gradient: Tensor = conv2d_weight(x, size, v, padding=self.kernel_size // 2)
        return gradient

    def transpose(self, weight: Tensor) -> Tensor:
        """flip(w): the kernel turned by 180° with its channels swapped, T(flip(w)) = T(w)ᵀ."""
        return weight.flip(2, 3).transpose(0, 1)

    def trace_gradient(self, other: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """∂/∂w tr(T(w) T(r)) = flip(r) ⊙ m: the multiplicity m counts the pixels at which each tap acts (A.2)."""
        return self.transpose(other) * multiplicity(other, event_shape)

    def block(self, weight: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """T(w), or for a 1×1 kernel the C×C matrix that acts on each pixel."""
        if self.kernel_size == 1:
            return weight[:, :, 0, 0]
        channels, height, width = event_shape
        rows, columns = _shifts(weight, height), _shifts(weight, width)
        across = torch.einsum("oiab,bxu->oiaxu", weight, columns)
        full: Tensor = torch.einsum("oiaxu,ayv->oyxivu", across, rows)
        size = channels * height * width
        return full.reshape(size, size)

    def copies(self, event_shape: tuple[int, ...]) -> int:
        """H·W for a 1×1 kernel, which acts on each pixel alone; else one."""
        return event_shape[1] * event_shape[2] if self.kernel_size == 1 else 1

    def to_rows(self, x: Tensor) -> Tensor:
        """Cut into pixels for a 1×1 kernel, else flatten the image."""
        return x.movedim(1, -1).flatten(0, 2) if self.kernel_size == 1 else x.flatten(1)

    def from_rows(self, rows: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """Undo :meth:`to_rows`."""
        if self.kernel_size > 1:
            images: Tensor = rows.unflatten(1, event_shape)
            return images
        channels, height, width = event_shape
        batch = rows.shape[0] // (height * width)
        pixels = rows.reshape(batch, height, width, channels)
        return pixels.movedim(-1, 1)


def multiplicity(weight: Tensor, event_shape: tuple[int, ...]) -> Tensor:
    """m[a, b] = (H − |a − p|)(W − |b − p|): at how many pixels each tap of a padded kernel meets the image.

    Args:
        weight: a kernel ``(channels, channels, k, k)``; only its size, dtype and device are read.
        event_shape: ``(channels, height, width)``.

    Returns:
        The counts, with shape ``(k, k)``; H·W for a 1×1 kernel.

    References:
        Keller et al. (2021), Self Normalizing Flows, appendix A.2.

    Example:
        >>> import torch
        >>> multiplicity(torch.zeros(1, 1, 3, 3), (1, 4, 5))
        tensor([[12., 15., 12.],
                [16., 20., 16.],
                [12., 15., 12.]])
    """
    taps = torch.arange(weight.shape[-1], dtype=weight.dtype, device=weight.device)
    offset = (taps - weight.shape[-1] // 2).abs()
    rows, columns = ((size - offset).clamp(min=0) for size in event_shape[1:])
    return torch.outer(rows, columns)


def _shifts(weight: Tensor, size: int) -> Tensor:
    """The 0/1 matrices of the taps along one axis: S[a, y, v] = 1 where pixel v lies at tap a of output y."""
    taps = torch.arange(weight.shape[-1], device=weight.device) - weight.shape[-1] // 2
    pixels = torch.arange(size, device=weight.device)
    return (pixels[None, :, None] + taps[:, None, None] == pixels[None, None, :]).to(weight.dtype)
