"""The inverse of a bijection, and the choice among inversion methods."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal, final

from torch import Tensor, nn

from snflow.bijections.base import Bijection, Shape
from snflow.errors import NotInvertibleError, check_choice

InverseMethod = Literal["learned", "exact", "refined"]
"""``learned``: one pass through g. ``exact``: a factorisation. ``refined``: g preconditions an iterative solve."""


@contextlib.contextmanager
def inverting(module: nn.Module, method: InverseMethod | None) -> Iterator[None]:
    """Choose the way back of every self-normalizing layer inside of a module, for the length of a block.

    Args:
        module: a flow, a chain or a layer.
        method: ``"learned"``, ``"exact"``, ``"refined"``, or ``None`` to leave each layer its own.

    Raises:
        ConfigError: the method is none of these.

    Example:
        >>> import snflow
        >>> layer = snflow.SelfNormalizingDense(2)
        >>> with snflow.inverting(layer, "learned"):
        ...     layer.inverse_method
        'learned'
        >>> layer.inverse_method
        'exact'
    """
    if method is None:
        yield
        return
    check_choice("inverting", "method", method, InverseMethod)
    layers = [layer for layer in module.modules() if hasattr(layer, "inverse_method")]
    before = [layer.inverse_method for layer in layers]
    for layer in layers:
        layer.inverse_method = method  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.inverse_method = was


@final
class Inverse(Bijection):
    """f = b⁻¹ with log|det ∂f| = −log|det ∂b|: the bijection b with its two directions swapped.

    Args:
        bijection: the map to run backwards; it must have an inverse.

    Raises:
        NotInvertibleError: the bijection declares that it has no inverse.

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
                got=f"{bijection.label}, which declares that it has none",
                fix="run it forwards only",
            )
        self.bijection = bijection
        self.context_shape = bijection.context_shape
        self.log_det_kind = bijection.log_det_kind

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(x, context)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z_and_log_det: tuple[Tensor, Tensor] = self.bijection(z, context)
        return z_and_log_det

    def _latent_shape(self, event_shape: Shape) -> Shape:
        return self.bijection.data_shape(event_shape)

    def _data_shape(self, latent_shape: Shape) -> Shape:
        return self.bijection.latent_shape(latent_shape)
