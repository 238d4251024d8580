"""Contexts that a network embeds before a bijection is conditioned on them."""

from __future__ import annotations

from typing import Self, final

from torch import Tensor, nn
from torch.distributions.constraints import Constraint

from snflow.bijections.base import Bijection, InverseMethod, Shape
from snflow.bijections.elementwise import Affine
from snflow.errors import CheckedConstructor, ConfigError, ShapeError, check_event_shape


@final
class ContextEmbedding(Bijection):
    """z = f(x; net(c)): a bijection conditioned on features that a network computes from the context.

    The network may be any module, such as a convolutional or recurrent one for images or time series. It is trained
    with the flow.

    Args:
        bijection: f, conditioned on features with shape ``bijection.context_shape``.
        net: maps contexts ``(batch, *context_shape)`` to features ``(batch, *bijection.context_shape)``.
        context_shape: C for vectors, or the shape of one context c.

    Shapes:
        x, z: those of f; context: ``(batch, *context_shape)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: the bijection takes no context.
        ShapeError: the network returns features of another shape.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.maf(2, context_shape=3)
        >>> layer = snflow.ContextEmbedding(flow.bijection, torch.nn.Linear(10, 3), 10)
        >>> layer(torch.randn(5, 2), torch.randn(5, 10))[0].shape
        torch.Size([5, 2])
    """

    def __init__(self, bijection: Bijection, net: nn.Module, context_shape: int | Shape) -> None:
        super().__init__()
        if bijection.context_shape is None:
            raise ConfigError(
                "ContextEmbedding",
                expected="a bijection that is conditioned on a context",
                got=f"{bijection.label}, which is unconditional",
                fix="build it with context_shape=…, the shape of the features",
            )
        self.bijection, self.net = bijection, net
        self.event_shape = bijection.event_shape
        self.context_shape = check_event_shape("ContextEmbedding", context_shape)
        self.has_inverse = bijection.has_inverse
        self.has_inversion_methods = bijection.has_inversion_methods
        self.log_det_kind = bijection.log_det_kind

    @property
    def domain(self) -> Constraint:
        """The domain of the bijection."""
        return self.bijection.domain

    @property
    def codomain(self) -> Constraint:
        """The codomain of the bijection."""
        return self.bijection.codomain

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z_and_log_det: tuple[Tensor, Tensor] = self.bijection(x, self._features(context))
        return z_and_log_det

    def _inverse(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(z, self._features(context), inverse=inverse)

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.bijection.encode(x, self._features(context))

    def _decode(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> Tensor:
        return self.bijection.decode(z, self._features(context), inverse=inverse)

    def _features(self, context: Tensor | None) -> Tensor:
        if context is None:
            raise TypeError("expected a context, which the base class checks")
        features: Tensor = self.net(context)
        wanted = (len(context), *(self.bijection.context_shape or ()))
        if tuple(features.shape) != wanted:
            raise ShapeError(
                "ContextEmbedding",
                expected=f"a network that returns features of shape {wanted}",
                got=f"{tuple(features.shape)}",
                fix="change its last layer, or the context_shape of the flow",
            )
        return features

    def _latent_shape(self, event_shape: Shape) -> Shape:
        return self.bijection.latent_shape(event_shape)

    def _data_shape(self, latent_shape: Shape) -> Shape:
        return self.bijection.data_shape(latent_shape)


@final
class Standardization(nn.Module, metaclass=CheckedConstructor):
    """(c − mean)/σ: fixed, the network of a :class:`ContextEmbedding` for contexts of any scale.

    Args:
        mean: the mean, with the shape of one context.
        scale: σ, with the same shape.

    Example:
        >>> import torch
        >>> Standardization.of(torch.tensor([[1.0], [5.0]]))(torch.tensor([[5.0]]))
        tensor([[1.]])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    @classmethod
    def of(cls, contexts: Tensor, floor: float = 1e-6) -> Self:
        """The moments of contexts ``(N, *context_shape)``, as :meth:`snflow.Affine.standardizing`, with its floor."""
        moments = Affine.standardizing(contexts, floor)
        return cls(moments.shift.detach(), moments.scale.detach())

    def forward(self, context: Tensor) -> Tensor:
        """Map contexts ``(batch, *context_shape)`` to contexts of mean zero and standard deviation one."""
        return (context - self.mean) / self.scale

    def extra_repr(self) -> str:
        """Show the shape of one context."""
        return str(tuple(self.mean.shape))
