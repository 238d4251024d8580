"""Coupling layers: one part of the event is transformed conditioned on the other part."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.transformers.base import Transformer
from snflow.errors import ConfigError, ShapeError, check_context_shape
from snflow.nets.convnet import ConvNet
from snflow.numerics.probes import sum_event


def alternating(features: int, first: int = 0) -> Tensor:
    """mᵢ = (i + first) even: every second of D features is kept, with shape ``(D,)``.

    Raises:
        ConfigError: fewer than two features.

    Example:
        >>> alternating(4).tolist(), alternating(4, 1).tolist()
        ([True, False, True, False], [False, True, False, True])
    """
    _check_size("alternating", features)
    return (torch.arange(features) + first) % 2 == 0


def halves(features: int, first: int = 0) -> Tensor:
    """mᵢ = i < ⌊D/2⌋, or the other half for ``first=1``: features or channels, with shape ``(D,)``.

    Raises:
        ConfigError: fewer than two features.

    Example:
        >>> halves(5).tolist(), halves(2, 1).tolist()
        ([True, True, False, False, False], [False, True])
    """
    _check_size("halves", features)
    low = torch.arange(features) < features // 2
    return ~low if first % 2 else low


def checkerboard(height: int, width: int, first: int = 0) -> Tensor:
    """mᵢⱼ = (i + j + first) even: pixels, with shape ``(1, height, width)`` (Dinh et al. 2017, figure 3).

    Raises:
        ConfigError: an image of one pixel.

    Example:
        >>> checkerboard(2, 2).tolist()
        [[[True, False], [False, True]]]
    """
    _check_size("checkerboard", height * width)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    return ((rows + columns + first) % 2 == 0)[None]


def _check_size(where: str, count: int) -> None:
    if count < 2:
        raise ConfigError(
            where, expected="two elements or more", got=str(count), fix="a coupling needs one to keep and one to map"
        )


@final
class Coupling(Bijection):
    """z_a = x_a, z_c = τ(x_c; h), h = net(x_a, context); log|det| = Σ log dz_c/dx_c.

    Both directions cost one pass through the network, which may be anything. A mask along the first dimension of the
    event takes the kept elements out: the network sees nothing else. A mask over pixels leaves them in their places,
    the others set to zero.

    Args:
        mask: which elements are kept, of type bool: ``(D,)`` for features, or for the channels of an image; or an
            event's shape, as ``(1, height, width)`` of :func:`~snflow.bijections.coupling.checkerboard`.
        transformer: τ.
        conditioner: the network, called with what is kept, and with the context if there is one. For a mask of D
            elements with K kept: ``(batch, K, …)`` → ``(batch, P·(D − K), …)``, the first parameter of all elements
            first; for pixels: ``(batch, C, height, width)`` → ``(batch, P·C, height, width)``.
        context_shape: C of context vectors, or the shape of one sample's context; ``None`` for no context.
        image: whether a mask of one dimension is that of channels.

    Shapes:
        x, z: ``(batch, D)`` or ``(batch, C, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: the mask is not of type bool, or keeps everything or nothing.
        ShapeError: the conditioner returns another shape; it shows at the first call.

    References:
        Dinh et al. (2015), NICE; Dinh et al. (2017), Density estimation using Real NVP; Durkan et al. (2019).

    Example:
        >>> import torch, snflow
        >>> from snflow.bijections.coupling import alternating
        >>> layer = snflow.Coupling(alternating(3), snflow.AffineTransformer(), snflow.nets.MLP(2, 2))
        >>> x = torch.randn(4, 3)
        >>> torch.equal(layer(x)[0][:, ::2], x[:, ::2])  # what the mask keeps
        True
    """

    mask: Tensor
    kept: Tensor
    mapped: Tensor

    def __init__(
        self,
        mask: Tensor,
        transformer: Transformer,
        conditioner: nn.Module,
        *,
        context_shape: int | Shape | None = None,
        image: bool = False,
    ) -> None:
        super().__init__()
        if mask.dtype != torch.bool or mask.dim() not in (1, 3) or bool(mask.all()) or not bool(mask.any()):
            raise ConfigError(
                "Coupling",
                expected="a mask of type bool with one or three dimensions that keeps some elements",
                got=f"{mask.dtype} of shape {tuple(mask.shape)}, {int(mask.sum())} kept",
                fix="use alternating, halves or checkerboard of snflow.bijections.coupling",
            )
        self.by_pixel = mask.dim() == 3
        self.register_buffer("mask", mask.clone(), persistent=False)
        self.register_buffer("kept", torch.nonzero(mask.flatten()).flatten(), persistent=False)
        self.register_buffer("mapped", torch.nonzero(~mask.flatten()).flatten(), persistent=False)
        if self.by_pixel:
            self.event_shape = tuple(None if size == 1 else size for size in mask.shape)
        else:
            self.event_shape = (len(mask), None, None) if image else (len(mask),)
        self.context_shape = check_context_shape("Coupling", context_shape)
        self.transformer, self.conditioner = transformer, conditioner

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._map(x, context, backwards=False)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._map(z, context, backwards=True)

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        if self.by_pixel:
            h = self._said(torch.where(self.mask, z, 0.0), z, context)
            return torch.where(self.mask, z, self.transformer.decode(z, h))
        c = z.index_select(1, self.mapped)
        x = self.transformer.decode(c, self._said(z.index_select(1, self.kept), c, context))
        return z.index_copy(1, self.mapped, x)

    def _map(self, x: Tensor, context: Tensor | None, *, backwards: bool) -> tuple[Tensor, Tensor]:
        direction = self.transformer.inverse if backwards else self.transformer
        if self.by_pixel:
            h = self._said(torch.where(self.mask, x, 0.0), x, context)
            y, log_slope = direction(x, h)
            return torch.where(self.mask, x, y), sum_event(torch.where(self.mask, 0.0, log_slope))
        c = x.index_select(1, self.mapped)
        y, log_slope = direction(c, self._said(x.index_select(1, self.kept), c, context))
        return x.index_copy(1, self.mapped, y), sum_event(log_slope)

    def _said(self, seen: Tensor, mapped: Tensor, context: Tensor | None) -> Tensor:
        said: Tensor = self.conditioner(seen) if self.context_shape is None else self.conditioner(seen, context)
        count = self.transformer.parameters_per_element
        wanted = (mapped.shape[0], count * mapped.shape[1], *mapped.shape[2:])
        if tuple(said.shape) != wanted:
            raise ShapeError(
                "Coupling",
                expected=f"a conditioner that returns shape {wanted}",
                got=f"{tuple(said.shape)}",
                fix=f"it has to give {count} parameters for each element that is mapped",
            )
        each: Tensor = said.unflatten(1, (count, mapped.shape[1]))
        return each.transpose(0, 1)

    def extra_repr(self) -> str:
        """Show how much is kept."""
        return f"kept={len(self.kept)} of {self.mask.numel()}"


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

    def __init__(self, channels: int, *, width: int = 512, conditioner: nn.Module | None = None) -> None:
        super().__init__()
        if channels < 2:
            raise ConfigError(
                "AffineCoupling", expected="two channels or more", got=str(channels), fix="put a Squeeze before it"
            )
        self.event_shape = (channels, None, None)
        self.kept = channels // 2
        self.conditioner = (
            ConvNet(self.kept, 2 * (channels - self.kept), width=width) if conditioner is None else conditioner
        )

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
