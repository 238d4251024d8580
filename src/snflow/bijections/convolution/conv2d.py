"""Convolutions with exact determinants: unconstrained kernels, PLU 1×1 kernels and Woodbury transformations."""

from __future__ import annotations

from functools import partial
from typing import Literal, final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.linear import LinearMap, initial_kernel, initial_matrix
from snflow.errors import ShapeError, check_choice, check_count, check_kernel
from snflow.numerics.factorization import check_invertible
from snflow.numerics.kept_factor import KeptAccuracy, linear_condition_number
from snflow.numerics.operators.conv import ConvOperator

ConvRule = Literal["exact", "exact_by_rows"]
"""From the full matrix, the usual baseline in the literature, or by image rows: the same values at a lower cost."""


@final
class Conv2d(LinearMap):
    """z = w ⋆ x + b, log|det T(w)|, for an unconstrained kernel w with zero padding that keeps the image size.

    T(w) is the matrix of the convolution, of size C·H·W: its determinant and its inverse cost O((C·H·W)³) per training
    step, or O(H (C·W)³) by image rows. For a 1×1 kernel log|det| = H·W · log|det w|, O(C³).

    Args:
        channels: C, the number of input and output channels.
        kernel_size: k, odd.
        bias: whether to add b, one number per channel.
        log_det_rule: how training computes the log-determinant: ``"exact"``, from the full matrix, or
            ``"exact_by_rows"``, by block elimination over image rows in float64 if this is stable; both are exact in
            value and gradient. :class:`~snflow.SelfNormalizingConv2d` learns an inverse instead.

    Shapes:
        x, z: ``(batch, channels, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one channel, an even kernel, or an unknown rule.
        NotInvertibleError: T(w) is singular or not finite, except in ``encode``.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.Conv2d(2).eval()
        >>> x = torch.randn(3, 2, 4, 4)
        >>> z, log_det = layer(x)
        >>> torch.allclose(layer.inverse(z)[0], x)
        True
    """

    def __init__(
        self, channels: int, kernel_size: int = 3, *, bias: bool = True, log_det_rule: ConvRule = "exact"
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

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if not self.training:
            return self._exact_forward(x)
        event_shape = tuple(x.shape[1:])
        if self.log_det_rule == "exact":
            log_abs_det = torch.linalg.slogdet(self.operator.block(self.weight, event_shape))[1]
            log_det = self.operator.copies(event_shape) * log_abs_det
        else:
            log_det = self.operator.log_abs_det(self.weight, event_shape)
        check_invertible(log_det, self.label, self.weight)
        return self._encode(x, context), log_det.expand(x.shape[0])

    def extra_repr(self) -> str:
        """Return the text shown by ``print(layer)``."""
        rule = "" if self.log_det_rule == "exact" else f", log_det_rule={self.log_det_rule!r}"
        return f"{self.weight.shape[0]}, kernel_size={self.weight.shape[-1]}, bias={self.bias is not None}{rule}"


@final
class PLUConv2d(Bijection):
    """z = P L (U + diag(s)) x at each pixel, log|det| = H·W · Σ log|s|.

    L is unit lower triangular, U strictly upper triangular; the permutation P and the signs of s are fixed.
    The log-determinant costs O(C); the inverse is two triangular solves, O(C²) per pixel.

    Args:
        channels: C, the number of input and output channels.

    Shapes:
        x, z: ``(batch, C, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one channel.
        NotInvertibleError: an entry of s is zero, or a weight is not finite, except in ``encode``.

    References:
        Kingma & Dhariwal (2018), Glow, eq. 10–11.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.PLUConv2d(3)
        >>> x = torch.randn(2, 3, 4, 4)
        >>> z, log_det = layer(x)
        >>> torch.allclose(layer.inverse(z)[0], x), bool((log_det.abs() < 1e-6).all())
        (True, True)
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        check_count("PLUConv2d", "channels", channels)
        self.event_shape = (channels, None, None)
        permutation, lower, upper = torch.linalg.lu(initial_matrix(channels, "orthogonal"))
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(diagonal.abs().log())
        self._accuracy = KeptAccuracy(self.label)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._encode(x, context), self._log_det(x)

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        z: Tensor = torch.einsum("oi,nihw->nohw", self._weight(), x)
        return z

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._decode(z, context), -self._log_det(z)

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        self._log_det(z)  # raises if there is no inverse
        weights = self.lower, self.upper, self.log_diagonal
        self._accuracy.check(weights, (len(self.sign), 1, 1), z.dtype, self._condition)
        return self._solve(z)

    def _solve(self, z: Tensor) -> Tensor:
        lower, upper = self._factors()
        columns = self.permutation.mT @ z.movedim(1, 0).flatten(1)
        columns = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        columns = torch.linalg.solve_triangular(upper, columns, upper=True)
        x: Tensor = columns.reshape(z.shape[1], z.shape[0], *z.shape[2:]).movedim(1, 0)
        return x

    def _condition(self) -> float:
        pixel = torch.empty_like(self.log_diagonal)[None, :, None, None]
        return linear_condition_number(partial(self._encode, context=None), self._solve, pixel)

    def _weight(self) -> Tensor:
        lower, upper = self._factors()
        weight: Tensor = self.permutation @ lower @ upper
        return weight

    def _factors(self) -> tuple[Tensor, Tensor]:
        one = torch.eye(len(self.sign), dtype=self.sign.dtype, device=self.sign.device)
        diagonal = torch.diag(self.sign * self.log_diagonal.exp())
        return self.lower.tril(-1) + one, self.upper.triu(1) + diagonal

    def _log_det(self, x: Tensor) -> Tensor:
        log_abs_det = x.shape[2] * x.shape[3] * self.log_diagonal.sum()
        weight = self._weight()  # finite factors may have a product that overflows
        check_invertible(log_abs_det + weight.sum(), self.label, weight, self.log_diagonal)
        return log_abs_det.expand(x.shape[0])

    def extra_repr(self) -> str:
        """Show the number of channels."""
        return str(len(self.sign))


@final
class Woodbury(Bijection):
    """Z = (I + U_c V_c) X (I + U_s V_s), log|det| = P log|det(I + V_c U_c)| + C log|det(I + V_s U_s)|, X (C, P pixels).

    By Sylvester's determinant identity and the Woodbury identity, (I + U V)⁻¹ = I − U (I + V U)⁻¹ V, only determinants
    and inverses of r×r matrices are needed: O(C P r) for each direction. The inverse is computed in float64.

    Args:
        event_shape: ``(C, height, width)``.
        channel_rank: r of the update that mixes channels; values above C are reduced to C.
        spatial_rank: r of the update that mixes pixels; values above P are reduced to P.

    Shapes:
        x, z: ``(batch, C, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ShapeError: the event is not an image.
        ConfigError: a rank below one.
        NotInvertibleError: a matrix is singular or not finite, except in ``encode``.

    References:
        Lu & Huang (2020), Woodbury transformations for deep generative flows, eq. 7–10.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.Woodbury((2, 4, 4), 1, 3)
        >>> x = torch.randn(3, 2, 4, 4)
        >>> torch.allclose(layer.inverse(layer(x)[0])[0], x)
        True
    """

    def __init__(self, event_shape: Shape, channel_rank: int = 16, spatial_rank: int = 16) -> None:
        super().__init__()
        if len(event_shape) != 3:
            raise ShapeError("Woodbury", expected="images, (channels, height, width)", got=str(event_shape))
        check_count("Woodbury", "channel_rank", channel_rank)
        check_count("Woodbury", "spatial_rank", spatial_rank)
        self.event_shape = tuple(event_shape)
        channels, pixels = event_shape[0], event_shape[1] * event_shape[2]
        self.channel_u, self.channel_v = _low_rank(channels, min(channel_rank, channels))
        self.spatial_u, self.spatial_v = _low_rank(pixels, min(spatial_rank, pixels))
        self._accuracy = KeptAccuracy(self.label)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._encode(x, context), self._log_det().expand(x.shape[0])

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self._product(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._decode(z, context), -self._log_det().expand(z.shape[0])

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        self._log_det()  # raises if there is no inverse
        self._accuracy.check(tuple(self.parameters()), tuple(z.shape[1:]), z.dtype, lambda: self._condition(z[:1]))
        return self._solve(z.double()).to(z.dtype)

    def _product(self, x: Tensor) -> Tensor:
        channel_u, channel_v, spatial_u, spatial_v = self._factors(x.dtype)
        rows = x.flatten(2)
        rows = rows + channel_u @ (channel_v @ rows)
        rows = rows + (rows @ spatial_u) @ spatial_v
        return rows.reshape(x.shape)

    def _solve(self, z: Tensor) -> Tensor:
        channel_u, channel_v, spatial_u, spatial_v = self._factors(z.dtype)
        rows: Tensor = z.flatten(2)
        rows = rows - torch.linalg.solve(_small(spatial_v, spatial_u), rows @ spatial_u, left=False) @ spatial_v
        rows = rows - channel_u @ torch.linalg.solve(_small(channel_v, channel_u), channel_v @ rows)
        return rows.reshape(z.shape)

    def _factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channel_u, channel_v, spatial_u, spatial_v = (p.to(dtype) for p in self.parameters())
        return channel_u, channel_v, spatial_u, spatial_v

    def _condition(self, image: Tensor) -> float:
        return linear_condition_number(self._product, self._solve, torch.empty_like(image, dtype=torch.float64))

    def _log_det(self) -> Tensor:
        by_channels: Tensor = torch.linalg.slogdet(_small(self.channel_v, self.channel_u)).logabsdet
        by_pixels: Tensor = torch.linalg.slogdet(_small(self.spatial_v, self.spatial_u)).logabsdet
        log_abs_det = len(self.spatial_u) * by_channels + len(self.channel_u) * by_pixels
        check_invertible(log_abs_det, self.label, *self.parameters())
        return log_abs_det

    def extra_repr(self) -> str:
        """Return the text shown by ``print(layer)``."""
        return f"channel_rank={len(self.channel_v)}, spatial_rank={len(self.spatial_v)}"


def _low_rank(size: int, rank: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Small U ``(size, rank)`` and V ``(rank, size)``, so that the layer is initially close to the identity."""
    return nn.Parameter(0.05 * torch.randn(size, rank)), nn.Parameter(0.05 * torch.randn(rank, size))


def _small(v: Tensor, u: Tensor) -> Tensor:
    """I + V U."""
    return v @ u + torch.eye(len(v), dtype=v.dtype, device=v.device)
