"""Composition of bijections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import final, overload

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from snflow.bijections.base import Bijection, InverseMethod, Shape
from snflow.errors import ConfigError


@final
class Chain(Bijection):
    """f = fₙ ∘ … ∘ f₁ with log|det| = Σᵢ log|det ∂fᵢ|: data pass through the layers in the order listed.

    The context is passed to the conditional layers, and the inversion method to the layers that distinguish several.
    An empty chain is the identity.

    Args:
        layers: a sequence of bijections, starting with the one applied to the data.

    Raises:
        ConfigError: an element is not a bijection, or two layers take contexts of different shapes.

    Example:
        >>> import torch, snflow
        >>> chain = snflow.Chain([snflow.Flatten((1, 2, 2)), snflow.LeakyReLU()])
        >>> z, log_det = chain(torch.ones(5, 1, 2, 2))
        >>> z.shape, log_det.shape
        (torch.Size([5, 4]), torch.Size([5]))
    """

    def __init__(self, layers: Iterable[Bijection], *others: Bijection) -> None:
        super().__init__()
        if others or not isinstance(layers, Iterable):
            written = ", ".join(type(layer).__name__ for layer in (layers, *others))
            raise ConfigError(
                "Chain", expected="one list of bijections", got=f"Chain({written})", fix=f"write Chain([{written}])"
            )
        listed = list(layers)
        for position, layer in enumerate(listed):
            if not isinstance(layer, Bijection):
                raise ConfigError(
                    f"Chain, layer {position}",
                    expected="a Bijection",
                    got=type(layer).__name__,
                    fix="implement a Bijection: a plain nn.Module has no log-determinant",
                )
        self.layers = nn.ModuleList(listed)
        contexts = {layer.context_shape for layer in listed} - {None}
        if len(contexts) > 1:
            raise ConfigError(
                "Chain",
                expected="layers with contexts of the same shape",
                got=", ".join(map(str, contexts)),
                fix="embed the context once, outside the chain",
            )
        self.context_shape = next(iter(contexts), None)
        self.has_inverse = all(layer.has_inverse for layer in listed)
        self.has_inversion_methods = any(layer.has_inversion_methods for layer in listed)
        self.log_det_kind = "exact" if all(layer.log_det_kind == "exact" for layer in listed) else "estimate"
        self.event_shape = listed[0].event_shape if listed else None

    @property
    def domain(self) -> Constraint:
        """The data that every layer can map."""
        return self._preimage(constraints.real)

    @property
    def codomain(self) -> Constraint:
        """The latents of such data."""
        return self._image(constraints.real)

    def _preimage(self, latents: Constraint) -> Constraint:
        for layer in reversed(list(self)):
            latents = layer.preimage(latents)
        return latents

    def _image(self, data: Constraint) -> Constraint:
        for layer in self:
            data = layer.image(data)
        return data

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        total: Tensor | None = None
        for layer in self:
            x, log_det = layer(x, context if layer.context_shape is not None else None)
            total = log_det if total is None else total + log_det
        return x, torch.zeros(x.shape[0], dtype=x.dtype, device=x.device) if total is None else total

    def _inverse(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> tuple[Tensor, Tensor]:
        total: Tensor | None = None
        for layer in reversed(list(self)):
            z, log_det = layer.inverse(z, context if layer.context_shape is not None else None, inverse=inverse)
            total = log_det if total is None else total + log_det
        return z, torch.zeros(z.shape[0], dtype=z.dtype, device=z.device) if total is None else total

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        for layer in self:
            x = layer.encode(x, context if layer.context_shape is not None else None)
        return x

    def _decode(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> Tensor:
        for layer in reversed(list(self)):
            z = layer.decode(z, context if layer.context_shape is not None else None, inverse=inverse)
        return z

    def _latent_shape(self, event_shape: Shape) -> Shape:
        for layer in self:
            event_shape = layer.latent_shape(event_shape)
        return event_shape

    def _data_shape(self, latent_shape: Shape) -> Shape:
        for layer in reversed(list(self)):
            latent_shape = layer.data_shape(latent_shape)
        return latent_shape

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self.layers)

    def __iter__(self) -> Iterator[Bijection]:
        """Iterate from data to latent."""
        return iter(self.layers)  # type: ignore[arg-type]

    @overload
    def __getitem__(self, index: int) -> Bijection: ...

    @overload
    def __getitem__(self, index: slice) -> Chain: ...

    def __getitem__(self, index: int | slice) -> Bijection:
        """Return one layer, counting from the data, or a chain of several, which are shared and not copied."""
        if not isinstance(index, slice):
            return self.layers[index]  # type: ignore[return-value]
        part = Chain(list(self)[index])
        part.training = self.training
        return part
