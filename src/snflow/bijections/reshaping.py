"""Layers that change the shape of an event: flatten, squeeze and split."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.distributions.constraints import Constraint

from snflow.bijections.base import Bijection, InverseMethod, Shape
from snflow.bijections.domain import beside
from snflow.errors import ConfigError, ShapeError, check_event_shape
from snflow.nets.convnet import ConvNet
from snflow.numerics.probes import sum_event


@final
class Flatten(Bijection):
    """z = vec(x), log|det| = 0: flattens an event to a vector, with the last dimension varying fastest.

    Args:
        event_shape: the shape of one event of x; z has events of shape ``(product of event_shape,)``.

    Raises:
        ConfigError: a size is not a positive integer.

    Example:
        >>> import torch
        >>> from snflow import Flatten
        >>> layer = Flatten((1, 28, 28))
        >>> z, log_det = layer(torch.zeros(5, 1, 28, 28))
        >>> z.shape, layer.decode(z).shape
        (torch.Size([5, 784]), torch.Size([5, 1, 28, 28]))
    """

    rearranges = True
    event_shape: Shape

    def __init__(self, event_shape: int | Shape) -> None:
        super().__init__()
        self.event_shape = check_event_shape("Flatten", event_shape)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        # explicit size, since −1 is ambiguous for an empty batch
        return x.reshape(x.shape[0], math.prod(self.event_shape)), x.new_zeros(x.shape[0])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z.reshape(z.shape[0], *self.event_shape), z.new_zeros(z.shape[0])

    def _latent_shape(self, event_shape: Shape) -> Shape:
        return (math.prod(event_shape),)

    def _data_shape(self, latent_shape: Shape) -> Shape:
        size = math.prod(self.event_shape)
        if latent_shape != (size,):
            raise ShapeError(
                self.label,
                expected=f"latent shape ({size},)",
                got=f"{latent_shape}",
                fix=f"pass latent vectors; the data have the event shape {self.event_shape}",
            )
        return self.event_shape

    def extra_repr(self) -> str:
        """Show the event shape."""
        return f"{self.event_shape}"


@final
class Squeeze(Bijection):
    """z[c·f² + i·f + j, h, w] = x[c, h·f + i, w·f + j], log|det| = 0: f×f blocks to channels (Dinh et al. 2017).

    The pixels of a block are ordered row by row within each channel of x, as in
    :func:`torch.nn.functional.pixel_unshuffle`.

    Args:
        factor: f, the side length of a block.

    Shapes:
        x: ``(batch, C, H, W)``; z: ``(batch, C f², H/f, W/f)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: the factor is not a positive integer.

    Example:
        >>> import torch
        >>> from snflow import Squeeze
        >>> z, log_det = Squeeze()(torch.arange(4.0).reshape(1, 1, 2, 2))
        >>> z.shape, z.flatten().tolist()
        (torch.Size([1, 4, 1, 1]), [0.0, 1.0, 2.0, 3.0])
    """

    rearranges = True

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        if factor < 1 or factor % 1:
            raise ConfigError(self.label, expected="an integer factor of at least 1", got=f"{factor}", fix="use 2")
        self.factor = int(factor)
        self.event_shape = (None, None, None)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        f, (batch, channels, height, width) = self.factor, x.shape
        # Not pixel_unshuffle, which does not reshape an empty batch.
        blocks = x.reshape(batch, channels, height // f, f, width // f, f)
        z = blocks.permute(0, 1, 3, 5, 2, 4).reshape(batch, channels * f * f, height // f, width // f)
        return z, x.new_zeros(batch)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        f, (batch, channels, height, width) = self.factor, z.shape
        blocks = z.reshape(batch, channels // (f * f), f, f, height, width)
        x = blocks.permute(0, 1, 4, 2, 5, 3).reshape(batch, channels // (f * f), height * f, width * f)
        return x, z.new_zeros(batch)

    def _latent_shape(self, event_shape: Shape) -> Shape:
        channels, height, width = event_shape
        if height % self.factor or width % self.factor:
            raise ShapeError(
                self.label,
                expected=f"a height and a width divisible by {self.factor}",
                got=f"{height} x {width}",
                fix="pad or crop the images, or remove this squeeze",
            )
        return channels * self.factor**2, height // self.factor, width // self.factor

    def _data_shape(self, latent_shape: Shape) -> Shape:
        if len(latent_shape) != 3 or latent_shape[0] % self.factor**2:
            raise ShapeError(
                self.label,
                expected=f"latents (channels, height, width) with channels divisible by {self.factor**2}",
                got=f"{latent_shape}",
                fix="pass latents as the forward direction returns them",
            )
        channels, height, width = latent_shape
        return channels // self.factor**2, height * self.factor, width * self.factor

    def extra_repr(self) -> str:
        """Show the factor."""
        return f"factor={self.factor}"


@final
class Split(Bijection):
    """z = (rest(a), (c − μ)/σ) for x = (a, c), log σ = 2 tanh(h/2), (h, μ) = prior(a); log|det rest| − Σ log σ.

    Half of the channels are factored out, and the other half pass through ``rest``. The latents of both parts form one
    vector, so that the image can be reconstructed from z alone. Under the Gaussian prior N(c; μ(a), σ(a)) with learned
    moments, (c − μ)/σ is standard normal, so that the base distribution can be standard normal.

    Args:
        event_shape: ``(C, height, width)`` of x, with C at least two.
        rest: the bijection of a, which has shape ``(⌊C/2⌋, height, width)``; it may contain another Split.
        prior: a network from a to h and μ, with twice the channels of c; ``None`` for a 3×3 convolution initialized to
            zero.

    Shapes:
        x: ``(batch, C, height, width)``; z: ``(batch, C·height·width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than two channels.
        ShapeError: ``rest`` does not accept the shape of a, or ``prior`` returns the wrong shape.

    References:
        Dinh et al. (2017), Density estimation using Real NVP, section 3.6; Kingma & Dhariwal (2018), Glow.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.Split((4, 2, 2), snflow.LeakyReLU())
        >>> z, log_det = layer(torch.randn(3, 4, 2, 2))
        >>> z.shape
        torch.Size([3, 16])
    """

    def __init__(self, event_shape: Shape, rest: Bijection, *, prior: nn.Module | None = None) -> None:
        super().__init__()
        if len(event_shape) != 3 or event_shape[0] < 2:
            raise ConfigError(
                "Split",
                expected="images with at least two channels, (channels, height, width)",
                got=str(event_shape),
                fix="put a Squeeze before it",
            )
        channels, *size = event_shape
        self.kept = channels // 2
        self._kept_shape: Shape = (self.kept, *size)
        self._gone_shape: Shape = (channels - self.kept, *size)
        self._rest_shape = rest.latent_shape(self._kept_shape)
        self.event_shape = tuple(event_shape)
        self.rest = rest
        self.prior = (
            ConvNet(self.kept, 2 * (channels - self.kept), width=1, kernel_sizes=(3,)) if prior is None else prior
        )
        self.context_shape = rest.context_shape
        self.has_inverse = rest.has_inverse
        self.has_inversion_methods = rest.has_inversion_methods
        self.log_det_kind = rest.log_det_kind

    @property
    def domain(self) -> Constraint:
        """The domain of ``rest`` for its channels, real numbers for the others."""
        return beside(self.rest.domain, -3, [self.kept, self._gone_shape[0]])

    @property
    def codomain(self) -> Constraint:
        """The codomain of ``rest`` for its latents, real numbers for the others."""
        return beside(self.rest.codomain, -1, [math.prod(self._rest_shape), math.prod(self._gone_shape)])

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        a, c = x.tensor_split((self.kept,), 1)
        log_sigma, mean = self._moments(a, c.shape)
        z, log_det = self.rest(a, context)
        noise = (c - mean) * (-log_sigma).exp()
        return torch.cat([z.flatten(1), noise.flatten(1)], 1), log_det - sum_event(log_sigma)

    def _inverse(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> tuple[Tensor, Tensor]:
        kept, noise = self._latents(z)
        a, log_det = self.rest.inverse(kept, context, inverse=inverse)
        log_sigma, mean = self._moments(a, noise.shape)
        return torch.cat([a, noise * log_sigma.exp() + mean], 1), log_det + sum_event(log_sigma)

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        a, c = x.tensor_split((self.kept,), 1)
        log_sigma, mean = self._moments(a, c.shape)
        noise = (c - mean) * (-log_sigma).exp()
        return torch.cat([self.rest.encode(a, context).flatten(1), noise.flatten(1)], 1)

    def _decode(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> Tensor:
        kept, noise = self._latents(z)
        a = self.rest.decode(kept, context, inverse=inverse)
        log_sigma, mean = self._moments(a, noise.shape)
        return torch.cat([a, noise * log_sigma.exp() + mean], 1)

    def _latents(self, z: Tensor) -> tuple[Tensor, Tensor]:
        kept, noise = z.tensor_split((math.prod(self._rest_shape),), 1)
        return kept.reshape(z.shape[0], *self._rest_shape), noise.reshape(z.shape[0], *self._gone_shape)

    def _moments(self, a: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
        moments = self.prior(a)
        wanted = (shape[0], 2 * shape[1], *shape[2:])
        if tuple(moments.shape) != wanted:
            raise ShapeError(
                "Split",
                expected=f"a prior that returns shape {wanted}",
                got=f"{tuple(moments.shape)}",
                fix="return h and μ, each with the shape of the channels that are factored out",
            )
        h, mean = moments.tensor_split(2, 1)
        return 2 * torch.tanh(h / 2), mean

    def _latent_shape(self, event_shape: Shape) -> Shape:
        return (math.prod(event_shape),)

    def _data_shape(self, latent_shape: Shape) -> Shape:
        size = math.prod(self._kept_shape) + math.prod(self._gone_shape)
        if latent_shape != (size,):
            raise ShapeError(
                "Split",
                expected=f"latents with shape ({size},)",
                got=str(latent_shape),
                fix="pass latents as the forward direction returns them",
            )
        return self.kept + self._gone_shape[0], *self._kept_shape[1:]
