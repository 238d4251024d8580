"""Linear maps with a bounded spectral norm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snflow.errors import ConfigError, check_count, check_kernel
from snflow.numerics.krylov import leading_direction
from snflow.numerics.transforms import outside_transforms, refuse_transforms, stands_for_many, value_of

_MOST_CYCLES = 100
"""The maximum number of Krylov spaces per weight in ``eval()``; iteration stops at a relative error of √ε."""


class _Spectral(nn.Module, ABC):
    """W / max(1, σ(W)/c), with the largest singular value from power iteration and the Lanczos method.

    In ``train()`` the singular vector is updated by one power iteration for each new weight; in ``eval()`` it is
    computed once per weight, by the Lanczos method so that the bound holds up to √ε, or exactly for matrices and 1×1
    convolutions. As long as the weight does not
    change, the layer is a fixed map, as iterative solvers require.

    Raises:
        ConfigError: the weight is batched by ``vmap``.
    """

    direction: Tensor

    def __init__(self, weight: Tensor, outputs: int, direction: Tensor, bound: float) -> None:
        super().__init__()
        if not 0 < bound <= 1:
            raise ConfigError(type(self).__name__, expected="0 < bound ≤ 1", got=str(bound), fix="use 0.97")
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.bound = bound
        self.register_buffer("direction", direction / direction.norm())
        self._known: dict[bool, tuple[Tensor, Tensor]] = {}
        with torch.no_grad():
            if not weight.is_meta:
                self.direction.copy_(self._leading(self.weight, cycles=1, tolerance=0.0))

    @abstractmethod
    def _map(self, weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """W x + b."""

    @abstractmethod
    def _transposed(self, weight: Tensor, y: Tensor) -> Tensor:
        """Wᵀ y."""

    def forward(self, x: Tensor) -> Tensor:
        """y = W x / max(1, σ/c) + b."""
        # scales the weight rather than the output, which is larger
        return self._map(self.weight / (self.norm() / self.bound).clamp_min(1), x, self.bias)

    def norm(self) -> Tensor:
        """σ(W) ≈ uᵀ W v, a scalar, with its gradient u vᵀ."""
        v = self._direction()
        image = self._map(self.weight, v)
        u = (image / image.norm().clamp_min(torch.finfo(image.dtype).tiny)).detach()
        size: Tensor = (u * image).sum()
        return size

    def _turned(self, weight: Tensor, v: Tensor) -> Tensor:
        turned = self._transposed(weight, self._map(weight, v))
        size = turned.norm()
        return torch.where(size > 0, turned / size.clamp_min(torch.finfo(v.dtype).tiny), v)

    @torch.no_grad()
    def _direction(self) -> Tensor:
        if stands_for_many(self.weight):
            refuse_transforms(type(self).__name__, "its norm depends on the weight: evaluate the flows one by one")
        weight = value_of(self.weight.detach())
        with outside_transforms():
            return self._kept_direction(weight)

    def _kept_direction(self, weight: Tensor) -> Tensor:
        seen, v = self._known.get(self.training, (None, self.direction))
        alike = seen is not None and seen.dtype == weight.dtype and seen.device == weight.device
        if seen is not None and alike and torch.equal(seen, weight):
            return v
        if self.training:
            self.direction.copy_(self._turned(weight, self.direction))
            v = self.direction.clone()
        else:
            v = self._settled(weight)
        self._known[self.training] = (weight.clone(), v)
        return v

    def _settled(self, weight: Tensor) -> Tensor:
        """The leading right singular vector of W."""
        if weight[0, 0].numel() > 1:
            return self._leading(weight, cycles=_MOST_CYCLES, tolerance=torch.finfo(weight.dtype).eps ** 0.5)
        if not bool(weight.isfinite().all()):
            return self.direction
        # a matrix; a 1×1 convolution reaches the norm of its matrix on images of a single pixel
        right: Tensor = torch.linalg.svd(weight.flatten(1), full_matrices=False)[2]
        return right[0].view(1, *weight.shape[1:])

    def _leading(self, weight: Tensor, cycles: int, tolerance: float) -> Tensor:
        def gram(v: Tensor) -> Tensor:
            return self._transposed(weight, self._map(weight, v))

        def gram_of_outputs(u: Tensor) -> Tensor:
            return self._map(weight, self._transposed(weight, u))

        image = self._map(weight, self.direction)
        if image.numel() >= self.direction.numel() or not bool(image.norm() > 0):
            return leading_direction(gram, self.direction, cycles=cycles, tolerance=tolerance)
        # WWᵀ has the same eigenvalues as WᵀW, and shorter vectors
        u = leading_direction(gram_of_outputs, image, cycles=cycles, tolerance=tolerance)
        v = self._transposed(weight, u)
        direction: Tensor = v / v.norm()
        return direction

    def __getstate__(self) -> dict[str, object]:
        """Exclude the cached norms from copies and pickles: they are recomputed on demand."""
        return {**self.__dict__, "_known": {}}


@final
class SpectralLinear(_Spectral):
    """y = W x / max(1, σ(W)/c) + b: a linear map with a Lipschitz constant of at most c.

    Args:
        features: D of x.
        outputs: O of y.
        bound: c, in (0, 1].

    Shapes:
        x: ``(batch, D)``; y: ``(batch, O)``.

    Raises:
        ConfigError: a count below one, or a bound out of range.

    References:
        Miyato et al. (2018), Spectral normalization for generative adversarial networks, algorithm 1; Behrmann et al.
        (2019), Invertible residual networks, section 2.1.

    Example:
        >>> import torch
        >>> layer = SpectralLinear(3, 5, bound=0.9).eval()
        >>> _ = torch.nn.init.normal_(layer.weight, std=7.0)
        >>> image = (layer(torch.eye(3)) - layer.bias).detach()
        >>> round(float(torch.linalg.matrix_norm(image, 2)), 4)
        0.9
    """

    def __init__(self, features: int, outputs: int, *, bound: float = 1.0) -> None:
        for option, count in (("features", features), ("outputs", outputs)):
            check_count("SpectralLinear", option, count)
        weight = nn.init.orthogonal_(torch.empty(outputs, features))
        super().__init__(weight, outputs, torch.randn(1, features), bound)

    def _map(self, weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x, weight, bias)

    def _transposed(self, weight: Tensor, y: Tensor) -> Tensor:
        return y @ weight


@final
class SpectralConv2d(_Spectral):
    """y = w ⋆ x / max(1, σ(A(w))/c) + b: a zero-padded convolution with a Lipschitz constant of at most c.

    σ is the norm of the map on images of the given size, not that of the kernel flattened to a matrix; the two may
    differ by a factor of up to the side length of the kernel.

    Args:
        channels: C of x.
        outputs: O of y.
        image_size: height and width.
        kernel_size: side length of the kernel, odd.
        bound: c, in (0, 1].

    Shapes:
        x: ``(batch, C, height, width)``; y: ``(batch, O, height, width)``.

    Raises:
        ConfigError: a count below one, an even kernel, or a bound out of range.

    References:
        Gouk et al. (2021), Regularisation of neural networks by enforcing Lipschitz continuity, section 4; Chen et al.
        (2019), Residual flows for invertible generative modeling, appendix E.

    Example:
        >>> import torch
        >>> SpectralConv2d(1, 4, (6, 6))(torch.randn(2, 1, 6, 6)).shape
        torch.Size([2, 4, 6, 6])
    """

    def __init__(
        self, channels: int, outputs: int, image_size: tuple[int, int], *, kernel_size: int = 3, bound: float = 1.0
    ) -> None:
        for option, count in (("channels", channels), ("outputs", outputs), ("image_size", min(image_size))):
            check_count("SpectralConv2d", option, count)
        check_kernel("SpectralConv2d", kernel_size)
        weight = nn.init.orthogonal_(torch.empty(outputs, channels, kernel_size, kernel_size))
        super().__init__(weight, outputs, torch.randn(1, channels, *image_size), bound)

    def _map(self, weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    def _transposed(self, weight: Tensor, y: Tensor) -> Tensor:
        return F.conv_transpose2d(y, weight, padding=weight.shape[-1] // 2)


def spectral_layer(
    event_shape: tuple[int, ...], outputs: int, kernel_size: int, bound: float
) -> SpectralLinear | SpectralConv2d:
    """Return the layer for vectors ``(D,)`` or for images ``(C, height, width)``.

    Example:
        >>> type(spectral_layer((3,), 4, 1, 0.9)).__name__
        'SpectralLinear'
    """
    if len(event_shape) == 1:
        return SpectralLinear(event_shape[0], outputs, bound=bound)
    channels, height, width = event_shape
    return SpectralConv2d(channels, outputs, (height, width), kernel_size=kernel_size, bound=bound)
