"""Convolutions as linear operators."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from snflow.numerics.factorization import Factor, LUFactor
from snflow.numerics.operators.conv_rows import RowFactor, conv_log_abs_det, shifts
from snflow.numerics.probes import rademacher
from snflow.numerics.transforms import add_scaled


@dataclass(frozen=True)
class ConvOperator:
    """z = w ⋆ x for a kernel w ``(C, C/groups, k, k)``, k odd, and events ``(C, height, width)``.

    The matrix T(w) of a k×k convolution is a single block of size C·H·W; a 1×1 convolution has one C×C block per pixel.

    Args:
        kernel_size: k.
        dilation: distance between two taps, in pixels.
        groups: number of groups of channels; channels of different groups do not interact.

    Example:
        >>> import torch
        >>> kernel = torch.zeros(1, 1, 3, 3)
        >>> kernel[0, 0, 1, 1] = 2.0
        >>> ConvOperator(3).product(kernel, torch.ones(1, 1, 1, 2))
        tensor([[[[2., 2.]]]])
    """

    kernel_size: int
    dilation: int = 1
    groups: int = 1

    @property
    def padding(self) -> int:
        """The number of padded pixels on each side, such that the image keeps its size."""
        return self.dilation * (self.kernel_size // 2)

    @property
    def closed(self) -> bool:
        """The inverse of a 1×1 convolution is a 1×1 convolution; that of a larger kernel is not a convolution."""
        return self.kernel_size == 1

    def product(self, weight: Tensor, x: Tensor, plus: Tensor | None = None, times: float = 1.0) -> Tensor:
        """w ⋆ x + times · plus."""
        z = functional.conv2d(x, weight, padding=self.padding, dilation=self.dilation, groups=self.groups)
        return z if plus is None else z.add(plus, alpha=times)

    def transposed_product(self, weight: Tensor, v: Tensor, plus: Tensor | None = None, times: float = 1.0) -> Tensor:
        """T(w)ᵀ v + times · plus."""
        u = functional.conv_transpose2d(v, weight, padding=self.padding, dilation=self.dilation, groups=self.groups)
        return u if plus is None else u.add(plus, alpha=times)

    def weight_gradient(self, weight: Tensor, x: Tensor, v: Tensor) -> Tensor:
        """∂/∂w Σ_b ⟨v_b, w ⋆ x_b⟩."""
        size = tuple(weight.shape)
        gradient: Tensor = conv2d_weight(x, size, v, padding=self.padding, dilation=self.dilation, groups=self.groups)
        return gradient

    def transpose(self, weight: Tensor) -> Tensor:
        """flip(w), with T(flip(w)) = T(w)ᵀ: the kernel rotated by 180°, with its two channel axes swapped per group."""
        blocks: Tensor = weight.flip(2, 3).unflatten(0, (self.groups, -1))
        return blocks.transpose(1, 2).flatten(0, 1)

    def trace_gradient(self, other: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """∂/∂w tr(T(w) T(r)) = flip(r) ⊙ m, with flip(r) cropped or zero-padded to the size of w (A.2; eq. 28–30).

        The multiplicity m counts the pixels at which each tap acts.
        """
        return resized(self.transpose(other), self.kernel_size) * self.multiplicity(other, event_shape)

    def add_trace_gradient(self, into: Tensor, other: Tensor, scale: Tensor, event_shape: tuple[int, ...]) -> None:
        """Into += scale · flip(r) ⊙ m."""
        add_scaled(into, self.trace_gradient(other, event_shape), scale)

    def multiplicity(self, like: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """m[a, b] = (H − d|a − p|)(W − d|b − p|): the number of output pixels for which each tap lies in the image.

        It is the convolution of an image of ones with itself, evaluated at the taps (eq. 27).

        Args:
            like: a tensor that provides the dtype and the device.
            event_shape: ``(channels, height, width)``.

        Returns:
            The counts, with shape ``(k, k)``; H·W for a 1×1 kernel.

        References:
            Keller et al. (2021), Self Normalizing Flows, appendix A.2.

        Example:
            >>> import torch
            >>> ConvOperator(3).multiplicity(torch.zeros(()), (1, 4, 5))
            tensor([[12., 15., 12.],
                    [16., 20., 16.],
                    [12., 15., 12.]])
        """
        taps = torch.arange(self.kernel_size, dtype=like.dtype, device=like.device)
        offset = self.dilation * (taps - self.kernel_size // 2).abs()
        rows, columns = ((size - offset).clamp(min=0) for size in event_shape[1:])
        return torch.outer(rows, columns)

    def block(self, weight: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """T(w), or for a 1×1 kernel the C×C matrix that acts on each pixel."""
        full = self._ungrouped(weight)
        if self.kernel_size == 1:
            return full[:, :, 0, 0]
        channels, height, width = event_shape
        rows, columns = (shifts(full, size, self.dilation) for size in (height, width))
        across = torch.einsum("oiab,bxu->oiaxu", full, columns)
        matrix: Tensor = torch.einsum("oiaxu,ayv->oyxivu", across, rows)
        size = channels * height * width
        return matrix.reshape(size, size)

    def factor(self, weight: Tensor, event_shape: tuple[int, ...], owner: str) -> Factor:
        """P A = L U of the C×C matrix of a 1×1 kernel; else of T(w), by image rows or, if unstable, as a whole."""
        if self.kernel_size > 1:
            by_rows = RowFactor.of(self._ungrouped(weight), self.dilation, event_shape, owner)
            if by_rows is not None:
                return by_rows
        return LUFactor.of(self.block(weight, event_shape), owner)

    def log_abs_det(self, weight: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """H·W log|det w| of a 1×1 kernel; else log|det T(w)|, by image rows or, if unstable, from the full matrix."""
        if self.kernel_size > 1:
            by_rows = conv_log_abs_det(self._ungrouped(weight), self.dilation, event_shape)
            if by_rows is not None:
                return by_rows
        log_abs_det: Tensor = torch.linalg.slogdet(self.block(weight, event_shape))[1]
        return self.copies(event_shape) * log_abs_det

    def copies(self, event_shape: tuple[int, ...]) -> int:
        """H·W for a 1×1 kernel, which acts on each pixel separately; else one."""
        return event_shape[1] * event_shape[2] if self.kernel_size == 1 else 1

    def to_rows(self, x: Tensor) -> Tensor:
        """Split images into pixels for a 1×1 kernel, else flatten them."""
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

    def matrices(self, weight: Tensor) -> Tensor:
        """The transposed ``(groups, C / groups, C / groups)`` matrices of a 1×1 kernel."""
        blocks: Tensor = weight[:, :, 0, 0].unflatten(0, (self.groups, -1))
        return blocks.mT

    def from_matrices(self, matrices: Tensor) -> Tensor:
        """Undo :meth:`matrices`."""
        return matrices.mT.flatten(0, 1)[:, :, None, None]

    def _ungrouped(self, weight: Tensor) -> Tensor:
        """The kernel of the same map without groups, with zeros between different groups."""
        if self.groups == 1:
            return weight
        apart = torch.eye(self.groups, dtype=weight.dtype, device=weight.device)
        full: Tensor = torch.einsum("goiab,gh->gohiab", weight.unflatten(0, (self.groups, -1)), apart)
        return full.flatten(2, 3).flatten(0, 1)


def resized(kernel: Tensor, kernel_size: int) -> Tensor:
    """Crop a kernel ``(…, k, k)`` to its center, or pad it with zeros, to the size ``kernel_size``; both sizes are odd.

    Example:
        >>> import torch
        >>> resized(torch.arange(9.0).view(1, 1, 3, 3), 1)
        tensor([[[[4.]]]])
    """
    margin = (kernel_size - kernel.shape[-1]) // 2
    return functional.pad(kernel, (margin, margin, margin, margin)) if margin else kernel


_OVERSAMPLING = 8
"""Number of equations per unknown in :func:`least_squares_inverse`, to avoid overfitting to the random images."""


def least_squares_inverse(
    weight: Tensor, start: Tensor, forward: ConvOperator, inverse: ConvOperator, event_shape: tuple[int, ...]
) -> Tensor:
    """argmin_r E_ν ‖r ⋆ w ⋆ ν − ν‖²: the best zero-padded inverse kernel on white noise.

    The normal equations have C/groups · k² unknowns for each output channel. The expectation is a mean over random
    images, with eight equations per unknown. Undetermined directions keep the values of ``start``.

    Args:
        weight: w, with shape ``(C, C/groups, k, k)``.
        start: the current r, with shape ``(C, C/groups, k', k')``.
        forward: the convolution of w.
        inverse: the convolution of r.
        event_shape: ``(C, height, width)``.

    Returns:
        The new r, with the shape of ``start``.

    Example:
        >>> import torch
        >>> kernel = torch.zeros(1, 1, 3, 3)
        >>> kernel[0, 0, 1, 1] = 2.0
        >>> conv = ConvOperator(3)
        >>> least_squares_inverse(kernel, kernel / 5, conv, conv, (1, 8, 8))[0, 0, 1, 1]
        tensor(0.5000)
    """
    _, height, width = event_shape
    unknowns = start[0].numel()
    images = max(1, math.ceil(_OVERSAMPLING * unknowns / (height * width)))
    noise = rademacher(images, event_shape, weight)
    patches = functional.unfold(
        forward.product(weight, noise), inverse.kernel_size, dilation=inverse.dilation, padding=inverse.padding
    )
    # One system per group: rows are the pixels of all images, columns are the unknowns.
    rows = patches.unflatten(1, (inverse.groups, unknowns)).permute(1, 0, 3, 2).flatten(1, 2)
    target = noise.flatten(2).unflatten(1, (inverse.groups, -1)).permute(1, 0, 3, 2).flatten(1, 2)
    present: Tensor = start.flatten(1).unflatten(0, (inverse.groups, -1)).mT
    gram = rows.mT @ rows
    size = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    gram.diagonal(dim1=-2, dim2=-1).add_(10 * unknowns * torch.finfo(gram.dtype).eps * size[:, None])
    factor, _ = torch.linalg.cholesky_ex(gram)
    change = torch.cholesky_solve(rows.mT @ (target - rows @ present), factor)
    return (present + change).mT.reshape(start.shape)
