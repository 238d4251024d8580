"""Convolution exponentials."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from snflow.bijections.base import Bijection
from snflow.bijections.convolution.conv2d import Conv2d
from snflow.errors import ConfigError, check_count, check_kernel
from snflow.numerics.factorization import check_invertible

FIRST_ITERATIONS = 30
"""Number of power iterations at construction; each training step performs one more."""


@final
class ConvExponential(Bijection):
    """z = exp(T(w)) W x + b = Σₙ T(w)ⁿ W x / n! + b, log|det| = H·W · (Σ_c w[c, c, center] + log|det W|).

    The determinant of a matrix exponential is the exponential of the trace, hence exact and almost free, with zero
    padding too. The inverse is the series for −w. W is a 1×1 convolution. The series is truncated: with a norm of 0.9
    the first omitted term is at most 10⁻⁴ of the data after 6 terms, the default in training, and 10⁻¹¹ after 13 terms,
    the default in evaluation.

    The kernel is scaled such that ‖T(w)‖ ≤ 0.9. The norm is that of the same kernel on a torus, estimated by one power
    iteration per training step: its singular vector does not depend on the image size, and the norm on a large torus
    bounds that on zero-padded images of any size.

    Args:
        channels: C, the number of input and output channels.
        kernel_size: k, odd.
        train_terms: number of terms of the series in ``train()``.
        eval_terms: number of terms in ``eval()`` and in the inverse.
        spectral_coefficient: the upper bound on the norm of the convolution.

    Shapes:
        x, z: ``(batch, C, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one channel or term, an even kernel, or a coefficient that is not positive.
        NotInvertibleError: W is singular, or a weight is not finite, except in ``encode``.

    References:
        Hoogeboom, Satorras, Tomczak, Welling (2020), The convolution exponential and generalized Sylvester flows.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.ConvExponential(2).eval()
        >>> x = torch.randn(3, 2, 4, 4)
        >>> torch.allclose(layer.inverse(layer(x)[0])[0], x)
        True
    """

    direction: Tensor

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        *,
        train_terms: int = 6,
        eval_terms: int = 13,
        spectral_coefficient: float = 0.9,
    ) -> None:
        super().__init__()
        for option, count in (("channels", channels), ("train_terms", train_terms), ("eval_terms", eval_terms)):
            check_count("ConvExponential", option, count)
        check_kernel("ConvExponential", kernel_size)
        if not spectral_coefficient > 0:
            raise ConfigError(
                "ConvExponential", expected="spectral_coefficient > 0", got=str(spectral_coefficient), fix="use 0.9"
            )
        self.event_shape = (channels, None, None)
        self.train_terms, self.eval_terms = train_terms, eval_terms
        self.spectral_coefficient = spectral_coefficient
        self.pointwise = Conv2d(channels, 1, bias=False)
        weight = torch.empty(channels, channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(nn.init.xavier_normal_(weight, gain=0.01))
        self.bias = nn.Parameter(torch.zeros(channels))
        side = max(8, 4 * kernel_size)
        self.register_buffer("direction", _unit(torch.randn(1, channels, side, side)))
        self._turn(FIRST_ITERATIONS)

    @property
    def kernel(self) -> Tensor:
        """w with shape ``(C, C, k, k)``, scaled down if its norm exceeds the bound."""
        norm = self._on_torus(self.direction).square().sum().clamp_min(torch.finfo(self.weight.dtype).tiny).sqrt()
        return self.weight * (self.spectral_coefficient / norm.clamp_min(self.spectral_coefficient))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.training:
            self._turn(1)
        x, log_det = self.pointwise(x)
        return self._exponential(x), log_det + self._trace(self.kernel, x)

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self._exponential(self.pointwise.encode(x))

    def _exponential(self, x: Tensor) -> Tensor:
        z = _series(self.kernel, x, self.train_terms if self.training else self.eval_terms)
        return z + self.bias[:, None, None]

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        kernel = self.kernel
        x, log_det = self.pointwise.inverse(_series(-kernel, z - self.bias[:, None, None], self.eval_terms))
        return x, log_det - self._trace(kernel, z)

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        return self.pointwise.decode(_series(-self.kernel, z - self.bias[:, None, None], self.eval_terms))

    def _trace(self, kernel: Tensor, x: Tensor) -> Tensor:
        check_invertible(kernel.sum(), self.label, self.weight)
        center = kernel.shape[-1] // 2
        return x.shape[2] * x.shape[3] * kernel[:, :, center, center].trace()

    def _on_torus(self, u: Tensor) -> Tensor:
        margin = self.weight.shape[-1] // 2
        return functional.conv2d(functional.pad(u, (margin, margin, margin, margin), mode="circular"), self.weight)

    @torch.no_grad()
    def _turn(self, iterations: int) -> None:
        """Run power iterations for TᵀT on the torus."""
        transposed = self.weight.flip(2, 3).transpose(0, 1)
        margin = self.weight.shape[-1] // 2
        u = self.direction
        for _ in range(iterations):
            image = functional.pad(self._on_torus(u), (margin, margin, margin, margin), mode="circular")
            u = _unit(functional.conv2d(image, transposed))
        # a zero or non-finite kernel has no leading singular vector
        known = torch.isfinite(u).all() & (u.square().sum() > 0.5)
        self.direction = torch.where(known, u, self.direction)

    def extra_repr(self) -> str:
        """Show the size and the number of terms."""
        return (
            f"{self.weight.shape[0]}, kernel_size={self.weight.shape[-1]}, terms={self.train_terms}/{self.eval_terms}"
        )


def _unit(u: Tensor) -> Tensor:
    unit: Tensor = u / u.norm().clamp_min(torch.finfo(u.dtype).tiny)
    return unit


def _series(kernel: Tensor, x: Tensor, terms: int) -> Tensor:
    """Σₙ≤N T(w)ⁿ x / n!, with the shape of x."""
    total = term = x
    for n in range(1, terms + 1):
        term = functional.conv2d(term, kernel, padding=kernel.shape[-1] // 2) / n
        total = total + term
    return total
