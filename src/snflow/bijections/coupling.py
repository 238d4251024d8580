"""Coupling layers: one part of an event is transformed conditioned on the other part."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Shape
from snflow.bijections.transformers.affine import AffineTransformer
from snflow.bijections.transformers.transformer import TransformedElements, Transformer
from snflow.errors import ConfigError, ShapeError, check_context_shape
from snflow.nets.convnet import ConvNet
from snflow.nets.mlp import clamped
from snflow.numerics.devices import structure_device
from snflow.numerics.probes import sum_event


def alternating(features: int, first: int = 0) -> Tensor:
    """mᵢ = [(i + first) even]: keeps every second of D features, with shape ``(D,)``.

    Raises:
        ConfigError: fewer than two features.

    Example:
        >>> alternating(4).tolist(), alternating(4, 1).tolist()
        ([True, False, True, False], [False, True, False, True])
    """
    _check_size("alternating", features)
    return (torch.arange(features, device=structure_device()) + first) % 2 == 0


def halves(features: int, first: int = 0) -> Tensor:
    """mᵢ = [i < ⌊D/2⌋], or its complement for ``first=1``: keeps half of D features or channels, with shape ``(D,)``.

    Raises:
        ConfigError: fewer than two features.

    Example:
        >>> halves(5).tolist(), halves(2, 1).tolist()
        ([True, True, False, False, False], [False, True])
    """
    _check_size("halves", features)
    low = torch.arange(features, device=structure_device()) < features // 2
    return ~low if first % 2 else low


def checkerboard(height: int, width: int, first: int = 0) -> Tensor:
    """mᵢⱼ = [(i + j + first) even]: keeps every second pixel, with shape ``(1, height, width)`` (Dinh et al. 2017).

    Raises:
        ConfigError: the image has fewer than two pixels.

    Example:
        >>> checkerboard(2, 2).tolist()
        [[[True, False], [False, True]]]
    """
    _check_size("checkerboard", height * width)
    device = structure_device()
    rows, columns = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    return ((rows + columns + first) % 2 == 0)[None]


def _check_size(where: str, count: int) -> None:
    if count < 2:
        raise ConfigError(
            where,
            expected="at least two elements, so that a coupling can keep some and transform the others",
            got=str(count),
            fix="for one feature use Autoregressive(1, …), an element-wise map conditioned on the context",
        )


@final
class Coupling(TransformedElements):
    """z_a = x_a, z_c = τ(x_c; h), h = net(x_a, context); log|det| = Σ log dz_c/dx_c.

    Both directions cost one pass through the conditioner, which may be any module. With a mask over features or
    channels, the conditioner receives only the kept elements; with a mask over pixels, it receives the whole image with
    the transformed pixels set to zero.

    Args:
        mask: a boolean mask of the kept elements: ``(D,)`` for features or for the channels of an image; or a mask
            over pixels, such as the ``(1, height, width)`` of :func:`~snflow.bijections.coupling.checkerboard`.
        transformer: τ.
        conditioner: the network, called with the kept elements, and with the context if the layer takes one. For a
            mask with K of D elements kept: ``(batch, K, …)`` → ``(batch, P·(D − K), …)``, ordered by parameter, then by
            element; for pixels: ``(batch, C, height, width)`` → ``(batch, P·C, height, width)``.
        context_shape: C of context vectors, or the shape of one sample's context; ``None`` for no context.
        image: whether a one-dimensional mask selects channels.
        input_bound: bound to which the kept elements are clamped for the conditioner, on both sides, so that h does not
            grow without bound at distant points; ``None`` for no bound.

    Shapes:
        x, z: ``(batch, D)`` or ``(batch, C, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: the mask is not boolean, or keeps all elements or none.
        ShapeError: at the first call, if the conditioner returns the wrong shape.

    References:
        Dinh et al. (2015), NICE; Dinh et al. (2017), Density estimation using Real NVP; Durkan et al. (2019).

    Example:
        >>> import torch, snflow
        >>> from snflow.bijections.coupling import alternating
        >>> layer = snflow.Coupling(alternating(3), snflow.AffineTransformer(), snflow.nets.MLP(2, 2))
        >>> x = torch.randn(4, 3)
        >>> torch.equal(layer(x)[0][:, ::2], x[:, ::2])  # the mask keeps these
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
        input_bound: float | None = None,
    ) -> None:
        super().__init__()
        if mask.numel() == 1:
            _check_size("Coupling", 1)
        if mask.dtype != torch.bool or mask.dim() not in (1, 3) or bool(mask.all()) or not bool(mask.any()):
            raise ConfigError(
                "Coupling",
                expected="a boolean mask with one or three dimensions that keeps some elements but not all",
                got=f"{mask.dtype} of shape {tuple(mask.shape)}, {int(mask.sum())} kept",
                fix="use alternating, halves or checkerboard from snflow.bijections.coupling",
            )
        self.by_pixel = mask.dim() == 3
        self.register_buffer("mask", mask.clone(), persistent=False)
        self.register_buffer("kept", torch.nonzero(mask.flatten()).flatten(), persistent=False)
        self.register_buffer("mapped", torch.nonzero(~mask.flatten()).flatten(), persistent=False)
        # if the kept elements come first, an event can be split without copying it
        self._cut = len(self.kept) if not self.by_pixel and bool(mask[: len(self.kept)].all()) else None
        if self.by_pixel:
            self.event_shape = tuple(None if size == 1 else size for size in mask.shape)
        else:
            self.event_shape = (len(mask), None, None) if image else (len(mask),)
        self.context_shape = check_context_shape("Coupling", context_shape)
        self.transformer, self.conditioner, self.input_bound = transformer, conditioner, input_bound

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._map(x, context, backwards=False)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._map(z, context, backwards=True)

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        kept, c = self._parts(z)
        return self._joined(z, kept, self.transformer.decode(c, self._conditioned(kept, c, context)))

    def _map(self, x: Tensor, context: Tensor | None, *, backwards: bool) -> tuple[Tensor, Tensor]:
        direction = self.transformer.inverse if backwards else self.transformer
        kept, c = self._parts(x)
        y, log_slope = direction(c, self._conditioned(kept, c, context))
        if self.by_pixel:
            log_slope = torch.where(self.mask, 0.0, log_slope)
        return self._joined(x, kept, y), sum_event(log_slope)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The input of the conditioner, and the elements to transform: all of x if the mask is over pixels."""
        if self.by_pixel:
            return torch.where(self.mask, x, 0.0), x
        if self._cut is not None:
            kept, c = x.tensor_split((self._cut,), 1)
            return kept, c
        return x.index_select(1, self.kept), x.index_select(1, self.mapped)

    def _joined(self, x: Tensor, kept: Tensor, y: Tensor) -> Tensor:
        if self.by_pixel:
            return torch.where(self.mask, x, y)
        return torch.cat([kept, y], 1) if self._cut is not None else x.index_copy(1, self.mapped, y)

    def _conditioned(self, kept: Tensor, c: Tensor, context: Tensor | None) -> Tensor:
        """h for the elements c, ``(P, batch, …)``, from the conditioner."""
        seen = clamped(kept, self.input_bound)
        h: Tensor = self.conditioner(seen) if self.context_shape is None else self.conditioner(seen, context)
        count = self.transformer.parameters_per_element
        expected = (c.shape[0], count * c.shape[1], *c.shape[2:])
        if tuple(h.shape) != expected:
            raise ShapeError(
                "Coupling",
                expected=f"a conditioner that returns shape {expected}",
                got=f"{tuple(h.shape)}",
                fix=f"return {count} parameters for each transformed element",
            )
        by_parameter: Tensor = h.unflatten(1, (count, c.shape[1]))
        return by_parameter.transpose(0, 1)

    def extra_repr(self) -> str:
        """Show the number of kept elements."""
        return f"kept={len(self.kept)} of {self.mask.numel()}"


_LARGEST_LOG_SCALE = 2.0


def affine_coupling(
    channels: int,
    *,
    width: int = 512,
    conditioner: nn.Module | None = None,
    context_shape: int | Shape | None = None,
    input_bound: float | None = None,
) -> Coupling:
    """z = (a, exp(s) ⊙ c + t) for x = (a, c), s = 2 tanh(h/2), (h, t) = net(a): Glow's coupling, log|det| = Σ s.

    A :class:`Coupling` of images with an affine transformer, where a consists of the first ⌊C/2⌋ channels. The bound
    s ∈ (−2, 2), which is not in Glow, keeps each factor within [e⁻², e²].

    Args:
        channels: C, at least two.
        width: number of channels of the hidden layers of the network; 512 in Glow.
        conditioner: a network to use instead, from a ``(batch, ⌊C/2⌋, height, width)`` to twice the channels of c:
            first h, then t.
        context_shape: as in :class:`Coupling`; the default network takes no context.
        input_bound: as in :class:`Coupling`.

    Returns:
        A layer for x and z ``(batch, C, height, width)``, with log_det ``(batch,)`` in nats; initially the identity.

    Raises:
        ConfigError: fewer than two channels, or a context without a conditioner.
        ShapeError: at the first call, if the conditioner returns the wrong shape.

    References:
        Dinh et al. (2017), Density estimation using Real NVP, eq. 7; Kingma & Dhariwal (2018), Glow, table 1.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.affine_coupling(4, width=8)
        >>> x = torch.randn(3, 4, 5, 5)
        >>> torch.equal(layer(x)[0], x)  # the last layer of the network is initialized to zero
        True
    """
    if channels < 2:
        raise ConfigError(
            "affine_coupling", expected="at least two channels", got=str(channels), fix="put a Squeeze before it"
        )
    mask = halves(channels)
    if conditioner is None:
        if context_shape is not None:
            raise ConfigError(
                "affine_coupling", expected="a conditioner that takes the context", got="none", fix="pass conditioner="
            )
        kept = int(mask.sum())
        conditioner = ConvNet(kept, 2 * (channels - kept), width=width)
    transformer = AffineTransformer(_LARGEST_LOG_SCALE)
    return Coupling(mask, transformer, conditioner, context_shape=context_shape, image=True, input_bound=input_bound)
