"""A layer from elsewhere, seen through this library's contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from torch import Tensor, nn

from snflow.bijections.base import Bijection, Shape

ForeignDirection = Callable[[nn.Module, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""From a module, points and a context (or ``None``) to values and log-determinants ``(batch,)``."""


@final
class ForeignLayer(Bijection):
    """z, log|det ∂z/∂x| = forward(module, x, context): any module as a bijection, to check it or to use it in a chain.

    Args:
        module: the layer from elsewhere.
        forward: maps (module, x, context) to (z, log-determinant), or the name of the module's method that maps
            (x, context), or x alone where it takes no context, to the two.
        inverse: the same for the way back.
        event_shape: the shape of one data event.
        context_shape: the shape of one sample's context, ``None`` when it takes none.

    Example:
        >>> import torch, snflow
        >>> class Doubling(torch.nn.Module):  # its log-determinant forgets that there are three features
        ...     def forward(self, x):
        ...         return 2 * x, torch.full((len(x),), 2.0, dtype=x.dtype).log()
        ...     def back(self, z):
        ...         return z / 2, -torch.full((len(z),), 2.0, dtype=z.dtype).log()
        >>> layer = snflow.testing.ForeignLayer(Doubling(), "forward", "back", (3,))
        >>> snflow.testing.check(layer, (3,))["log_det"]
        'ContractError: log_det: off by 6.67e-01, allowed 1e-08'
    """

    def __init__(
        self,
        module: nn.Module,
        forward: str | ForeignDirection,
        inverse: str | ForeignDirection,
        event_shape: Shape,
        context_shape: Shape | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.event_shape, self.context_shape = event_shape, context_shape
        self._ways = forward, inverse

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._run(self._ways[0], x, context)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._run(self._ways[1], z, context)

    def _run(self, way: str | ForeignDirection, points: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if not isinstance(way, str):
            return way(self.module, points, context)
        method = getattr(self.module, way)
        value, log_det = method(points) if self.context_shape is None else method(points, context)
        return value, log_det
