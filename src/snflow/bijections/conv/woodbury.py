"""Low-rank mixing of all channels and of all pixels."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.arguments import check_count
from snflow.bijections.base import Bijection, Shape
from snflow.errors import ShapeError


@final
class Woodbury(Bijection):
    """Z = (I + U_c V_c) X (I + U_s V_s), log|det| = P log|det(I + V_c U_c)| + C log|det(I + V_s U_s)|, X (C, P pixels).

    By Sylvester's identity the determinants are those of r×r matrices, and by Woodbury's identity so are the inverses,
    (I + U V)⁻¹ = I − U (I + V U)⁻¹ V: O(C P r) for each direction.

    Args:
        event_shape: ``(C, height, width)``.
        channel_rank: r of the mixing of channels; at most C is used.
        spatial_rank: r of the mixing of pixels; at most P is used.

    Shapes:
        x, z: ``(batch, C, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ShapeError: the event is no image.
        ConfigError: a rank below one.

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

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        rows = x.flatten(2)
        rows = rows + self.channel_u @ (self.channel_v @ rows)
        rows = rows + (rows @ self.spatial_u) @ self.spatial_v
        return rows.view_as(x), self._log_det().expand(len(x))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._decode(z, context), -self._log_det().expand(len(z))

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        rows: Tensor = z.flatten(2)
        inner = _small(self.spatial_v, self.spatial_u)
        rows = rows - torch.linalg.solve(inner, rows @ self.spatial_u, left=False) @ self.spatial_v
        inner = _small(self.channel_v, self.channel_u)
        rows = rows - self.channel_u @ torch.linalg.solve(inner, self.channel_v @ rows)
        return rows.reshape(z.shape)

    def _log_det(self) -> Tensor:
        by_channels: Tensor = torch.linalg.slogdet(_small(self.channel_v, self.channel_u)).logabsdet
        by_pixels: Tensor = torch.linalg.slogdet(_small(self.spatial_v, self.spatial_u)).logabsdet
        return len(self.spatial_u) * by_channels + len(self.channel_u) * by_pixels

    def extra_repr(self) -> str:
        """What ``print(layer)`` shows."""
        return f"channel_rank={len(self.channel_v)}, spatial_rank={len(self.spatial_v)}"


def _low_rank(size: int, rank: int) -> tuple[nn.Parameter, nn.Parameter]:
    """U (size, rank) and V (rank, size), small: the layer begins near the identity."""
    return nn.Parameter(0.05 * torch.randn(size, rank)), nn.Parameter(0.05 * torch.randn(rank, size))


def _small(v: Tensor, u: Tensor) -> Tensor:
    """I + V U."""
    return v @ u + torch.eye(len(v), dtype=v.dtype, device=v.device)
