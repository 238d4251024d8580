"""Masked residual convolutions (MintNet)."""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snflow.bijections.base import Bijection, Shape
from snflow.errors import check_context_vector, check_count, check_kernel
from snflow.numerics.compilation import ITERATION
from snflow.numerics.devices import structure_device
from snflow.numerics.fixed_point import picard
from snflow.numerics.implicit import implicit_solution
from snflow.numerics.jacobian import pulled
from snflow.numerics.monotone import SOFTPLUS_ONE
from snflow.numerics.probes import sum_event

_SHARE = 0.55
"""Steps of the inverse divide by at least this fraction of the largest possible slope; above ½, they contract."""


@final
class MaskedResidualConv2d(Bijection):
    """z = t ⊙ x + w₃ ⋆ φ(w₂ ⋆ φ(w₁ ⋆ x + b₁) + b₂), masked: a triangular Jacobian, log|det| = Σ log of its diagonal.

    The hidden layers have K copies of the channels. With elements ordered by row, column and channel, each element of
    each copy depends on earlier elements with unconstrained weights and on the same element with a positive weight.
    t > 0, and φ is the ELU, whose slope lies in (0, 1], so that the diagonal is positive: it is bounded below by t, and
    above by its value for slopes of one.

    The inverse is MintNet's iteration x ← x − (f(x) − z)/s, where s is the diagonal at x, but at least 0.55 times its
    upper bound. Then the iteration is a contraction in each element once the earlier elements have converged, and it
    converges from any starting point. It stops at an error of 64 machine epsilons, relative to max(1, |x|) of the row,
    or of 1e-9 if it no longer improves; gradients are those of the exact solution.

    Args:
        channels: C of images.
        groups: K.
        kernel_size: side length of the kernels, odd.
        reverse: whether to order pixels and channels from last to first.
        context_shape: S, the size of a context vector that shifts the first hidden layer; ``None`` for no context.

    Shapes:
        x, z: ``(batch, C, height, width)``; context: ``(batch, S)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a count below one, or an even kernel.
        ConvergenceError: the inverse did not converge for some rows.

    References:
        Song, Meng, Ermon (2019), MintNet: building invertible neural networks with masked convolutions, eq. 4-6 and
        algorithm 1.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.MaskedResidualConv2d(2, groups=3)
        >>> x = torch.randn(4, 2, 5, 5)
        >>> torch.allclose(layer.decode(layer(x)[0]), x, atol=1e-4)
        True
    """

    before: Tensor
    itself: Tensor

    uncompiled = ITERATION

    def __init__(
        self,
        channels: int,
        *,
        groups: int = 16,
        kernel_size: int = 3,
        reverse: bool = False,
        context_shape: int | Shape | None = None,
    ) -> None:
        super().__init__()
        for option, count in (("channels", channels), ("groups", groups)):
            check_count("MaskedResidualConv2d", option, count)
        check_kernel("MaskedResidualConv2d", kernel_size)
        self.event_shape = (channels, None, None)
        context_size = check_context_vector("MaskedResidualConv2d", context_shape)
        self.context_shape = (context_size,) if context_size else None
        self.channels, self.groups, self.reverse = channels, groups, reverse
        inner = groups * channels
        fans = ((inner, channels), (inner, inner), (channels, inner))
        self.weights = nn.ParameterList(
            torch.randn(a, b, kernel_size, kernel_size) * (0.5 / (b * kernel_size**2)) ** 0.5 for a, b in fans
        )
        # their softplus is the weight of an element on itself, initially 1 / (number of summed groups)
        self.diagonals = nn.ParameterList(
            torch.full((a // channels, b // channels, channels), math.log(math.expm1(channels / b))) for a, b in fans
        )
        self.biases = nn.ParameterList(torch.randn(inner) for _ in range(2))
        self.raw_scale = nn.Parameter(torch.full((channels,), SOFTPLUS_ONE))
        self.context = nn.Linear(context_size, inner, bias=False) if context_size else None
        with structure_device():
            before = torch.zeros(channels, channels, kernel_size * kernel_size)
            middle = kernel_size * kernel_size // 2
            before[:, :, :middle] = 1
            before[:, :, middle] = torch.ones(channels, channels).tril(-1)
            itself = torch.zeros_like(before)
            itself[:, :, middle] = torch.eye(channels)
        self.register_buffer("before", before.unflatten(2, (kernel_size, kernel_size)), persistent=False)
        self.register_buffer("itself", itself.unflatten(2, (kernel_size, kernel_size)), persistent=False)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, diagonal = self._through(self._ordered(x), context, self._kernels())
        return self._ordered(z), sum_event(diagonal.log())

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self._decode(z, context)
        return x, -self._forward(x, context)[1]

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        z = self._ordered(z)
        kernels = self._kernels()
        with torch.no_grad():
            least = _SHARE * self._largest_slope()[:, None, None]

            # rounding errors of a steep f exceed this in float64, up to 1e-10, varying by machine
            tolerance = 64 * torch.finfo(z.dtype).eps

            def step(x: Tensor) -> Tensor:
                image, diagonal = self._through(x, context, kernels)
                return x - (image - z) / torch.maximum(diagonal, least)

            start = z / (self._scale()[:, None, None] + least) if len(z) else z
            solution = picard(
                step, start, where="MaskedResidualConv2d", tolerance=tolerance, accepted=1e-9, iterations=2000
            )
        if not (torch.is_grad_enabled() and len(z)):
            return self._ordered(solution)
        residual = z - self._through(solution, context, kernels)[0]

        def solve_transposed(v: Tensor) -> Tensor:
            diagonal = self._through(solution, context, kernels)[1].detach()
            _, pull = pulled(lambda x: self._through(x, context, kernels)[0], solution)
            # without its diagonal the matrix is strictly triangular, hence nilpotent: the iteration terminates
            return picard(lambda u: u + (v - pull(u)) / diagonal, v / diagonal, where="MaskedResidualConv2d, backward")

        return self._ordered(implicit_solution(solution, residual, solve_transposed))

    def _through(self, x: Tensor, context: Tensor | None, kernels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """f(x) and the diagonal of its Jacobian, with the shape of x."""
        shape = (x.shape[0], self.groups, self.channels, *x.shape[2:])
        padding = kernels[0].shape[-1] // 2
        hidden = F.conv2d(x, kernels[0], self.biases[0], padding=padding)
        if self.context is not None:
            bias: Tensor = self.context(context)
            hidden = hidden + bias[:, :, None, None]
        first, second, third = (F.softplus(d) for d in self.diagonals)
        slope = _elu_slope(hidden).view(shape) * first.view(1, self.groups, self.channels, 1, 1)
        hidden = F.conv2d(F.elu(hidden), kernels[1], self.biases[1], padding=padding)
        slope = _elu_slope(hidden).view(shape) * torch.einsum("ghc,bhcij->bgcij", second, slope)
        diagonal = self._scale()[:, None, None] + torch.einsum("gc,bgcij->bcij", third[0], slope)
        z = self._scale()[:, None, None] * x + F.conv2d(F.elu(hidden), kernels[2], padding=padding)
        return z, diagonal

    def _kernels(self) -> list[Tensor]:
        kernels = []
        for weight, diagonal in zip(self.weights, self.diagonals, strict=True):
            blocks = (weight.shape[0] // self.channels, weight.shape[1] // self.channels)
            own = torch.einsum("ghc,cdij->gchdij", F.softplus(diagonal), self.itself)
            kernels.append(weight * self.before.repeat(*blocks, 1, 1) + own.reshape(weight.shape))
        return kernels

    def _scale(self) -> Tensor:
        return F.softplus(self.raw_scale)

    def _largest_slope(self) -> Tensor:
        first, second, third = (F.softplus(d) for d in self.diagonals)
        return self._scale() + torch.einsum("gc,ghc,hc->c", third[0], second, first[:, 0])

    def _ordered(self, x: Tensor) -> Tensor:
        return x.flip((1, 2, 3)) if self.reverse else x

    def extra_repr(self) -> str:
        """Show the size and the order."""
        return f"{self.channels}, groups={self.groups}, reverse={self.reverse}"


def _elu_slope(x: Tensor) -> Tensor:
    return x.clamp_max(0).exp()
