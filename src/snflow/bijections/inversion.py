"""Three ways back from z to x, the caller's choice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

from torch import nn

from snflow.arguments import check_choice

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
