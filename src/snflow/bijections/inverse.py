"""The inverse of a bijection."""

from __future__ import annotations

from typing import final

from torch import Tensor
from torch.distributions.constraints import Constraint

from snflow.bijections.base import Bijection, Shape, ShapePattern
from snflow.errors import NotInvertibleError


@final
class Inverse(Bijection):
    """f = b⁻¹ with log|det ∂f| = −log|det ∂b|: the bijection b with its two directions swapped.

    The forward direction is the exact inverse of b. Both directions are exact, so there is no choice of inversion
    methods.

    Args:
        bijection: b; it must have an inverse.

    Raises:
        NotInvertibleError: the bijection has no inverse.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.LeakyReLU(0.5)
        >>> x = torch.tensor([[-2.0, 3.0]])
        >>> torch.equal(snflow.Inverse(layer)(layer(x)[0])[0], x)
        True
    """

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        if not bijection.has_inverse:
            raise NotInvertibleError(
                "Inverse",
                expected="a bijection with an inverse",
                got=f"{bijection.label}, which has none",
                fix="use its forward direction only",
            )
        self.bijection = bijection
        self.event_shape = _latent_pattern(bijection)
        self.context_shape = bijection.context_shape
        self.log_det_kind = bijection.log_det_kind

    @property
    def domain(self) -> Constraint:
        """The latents of b."""
        return self.bijection.codomain

    @property
    def codomain(self) -> Constraint:
        """The data of b."""
        return self.bijection.domain

    def _preimage(self, latents: Constraint) -> Constraint:
        return self.bijection.image(latents)

    def _image(self, data: Constraint) -> Constraint:
        return self.bijection.preimage(data)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(x, context)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z_and_log_det: tuple[Tensor, Tensor] = self.bijection(z, context)
        return z_and_log_det

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.bijection.decode(x, context)

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        return self.bijection.encode(z, context)

    def _latent_shape(self, event_shape: Shape) -> Shape:
        return self.bijection.data_shape(event_shape)

    def _data_shape(self, latent_shape: Shape) -> Shape:
        return self.bijection.latent_shape(latent_shape)


def _latent_pattern(bijection: Bijection) -> ShapePattern | None:
    """The event shape of the latents; ``None`` for any, or where it depends on that of the data."""
    pattern = bijection.event_shape
    if pattern is None or type(bijection)._latent_shape is Bijection._latent_shape:
        return pattern
    known = tuple(size for size in pattern if size is not None)
    return bijection.latent_shape(known) if len(known) == len(pattern) else None
