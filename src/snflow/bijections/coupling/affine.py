"""The affine coupling of Glow."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection
from snflow.errors import ConfigError, ShapeError
from snflow.nets import ConvNet
from snflow.numerics.events import sum_event


@final
class AffineCoupling(Bijection):
    """z = (a, exp(s) ⊙ c + t) for x = (a, c), s = 2 tanh(h/2), (h, t) = net(a); log|det| = Σ s.

    a is the first half of the channels, the smaller one where their number is odd. Both directions cost one pass
    through the network. The tanh keeps each factor within [e⁻², e²].

    Args:
        channels: C, two or more.
        width: channels inside of the network; 512 in Glow.
        conditioner: another network for a ``(batch, ⌊C/2⌋, height, width)``, with twice the channels of c out: h first,
            then t.

    Shapes:
        x, z: ``(batch, C, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than two channels.
        ShapeError: the conditioner returns another shape; it shows at the first call.

    References:
        Dinh et al. (2017), Density estimation using Real NVP, eq. 7; Kingma & Dhariwal (2018), Glow, table 1; Keller
        et al. (2021), Self Normalizing Flows, A.5, for the tanh.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.AffineCoupling(4, width=8)
        >>> x = torch.randn(3, 4, 5, 5)
        >>> torch.equal(layer(x)[0], x)  # the network begins with zeros
        True
    """

    def __init__(self, channels: int, width: int = 512, conditioner: nn.Module | None = None) -> None:
        super().__init__()
        if channels < 2:
            raise ConfigError(
                "AffineCoupling", expected="two channels or more", got=str(channels), fix="put a Squeeze before it"
            )
        self.event_shape = (channels, None, None)
        self.kept = channels // 2
        self.conditioner = ConvNet(self.kept, width, 2 * (channels - self.kept)) if conditioner is None else conditioner

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        a, c = x.tensor_split((self.kept,), 1)
        s, t = self._scale_and_shift(a, c)
        return torch.cat([a, torch.addcmul(t, s.exp(), c)], 1), sum_event(s)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        a, c = z.tensor_split((self.kept,), 1)
        s, t = self._scale_and_shift(a, c)
        return torch.cat([a, (c - t) * (-s).exp()], 1), -sum_event(s)

    def _scale_and_shift(self, a: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        said = self.conditioner(a)
        wanted = (c.shape[0], 2 * c.shape[1], *c.shape[2:])
        if tuple(said.shape) != wanted:
            raise ShapeError(
                "AffineCoupling",
                expected=f"a conditioner that returns shape {wanted}",
                got=f"{tuple(said.shape)}",
                fix="it has to give h and t, each with the shape of the channels that are mapped",
            )
        h, t = said.tensor_split(2, 1)
        return 2 * torch.tanh(h / 2), t
