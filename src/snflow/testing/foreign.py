"""Wraps a layer of another library as a bijection."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from torch import Tensor, nn

from snflow.bijections.base import Bijection, Shape
from snflow.errors import check_context_shape, check_event_shape

ForeignDirection = Callable[[nn.Module, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""From a module, points and a context (or ``None``) to values and log-determinants ``(batch,)``."""


@final
class ForeignLayer(Bijection):
    """z, log|det ∂z/∂x| = forward(module, x, context): any module as a bijection, for use in checks or in a chain.

    Args:
        module: the layer.
        forward: a function from (module, x, context) to (z, log-determinant); or the name of a method of the module,
            called with x, and with the context if ``context_shape`` is given.
        inverse: likewise for the inverse.
        event_shape: the shape of one data event, or D for vectors.
        context_shape: C of context vectors, or the shape of one sample's context; ``None`` for no context.

    Example:
        >>> import torch, snflow
        >>> class Doubling(torch.nn.Module):  # its log-determinant ignores the number of features
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
        event_shape: int | Shape,
        *,
        context_shape: int | Shape | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.event_shape = check_event_shape("ForeignLayer", event_shape)
        self.context_shape = check_context_shape("ForeignLayer", context_shape)
        self._directions = forward, inverse

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._run(self._directions[0], x, context)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._run(self._directions[1], z, context)

    def _run(self, direction: str | ForeignDirection, points: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if not isinstance(direction, str):
            return direction(self.module, points, context)
        method = getattr(self.module, direction)
        value, log_det = method(points) if self.context_shape is None else method(points, context)
        return value, log_det
