"""A 1×1 convolution that is kept factorised."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.arguments import check_count
from snflow.bijections.base import Bijection
from snflow.bijections.linear.initialization import initial_matrix


@final
class PLUConv2d(Bijection):
    """z = P L (U + diag(s)) x at each pixel, log|det| = H·W · Σ log|s|.

    L is unit lower triangular, U strictly upper triangular; the permutation P and the signs of s stay as they were
    drawn. The log-determinant costs O(C), the inverse two triangular solves, O(C²) a pixel.

    Args:
        channels: C, in and out.

    Shapes:
        x, z: ``(batch, C, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one channel.

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

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        lower, upper = self._factors()
        z = torch.einsum("oi,nihw->nohw", self.permutation @ lower @ upper, x)
        return z, self._log_det(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        lower, upper = self._factors()
        columns = self.permutation.mT @ z.movedim(1, 0).flatten(1)
        columns = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        columns = torch.linalg.solve_triangular(upper, columns, upper=True)
        x: Tensor = columns.reshape(z.shape[1], z.shape[0], *z.shape[2:]).movedim(1, 0)
        return x, -self._log_det(z)

    def _factors(self) -> tuple[Tensor, Tensor]:
        one = torch.eye(len(self.sign), dtype=self.sign.dtype, device=self.sign.device)
        diagonal = torch.diag(self.sign * self.log_diagonal.exp())
        return self.lower.tril(-1) + one, self.upper.triu(1) + diagonal

    def _log_det(self, x: Tensor) -> Tensor:
        return (x.shape[2] * x.shape[3] * self.log_diagonal.sum()).expand(x.shape[0])

    def extra_repr(self) -> str:
        """Show the number of channels."""
        return str(len(self.sign))
