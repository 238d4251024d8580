"""Parameters of a layer with few of them: its own, or told by a context."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.arguments import check_count


@final
class ToldParameters(nn.Module):
    """p = p₀ + A c: one vector of parameters for all rows, or one a row by a linear map of its context.

    Args:
        where: the layer, for errors.
        count: P.
        context_features: size of the context c; 0 for none.

    Shapes:
        context: ``(batch, context_features)``; p: ``(1, P)`` without a context, ``(batch, P)`` with one.

    Raises:
        ConfigError: a count below one, or a negative size of the context.

    Example:
        >>> import torch
        >>> ToldParameters("layer", 3)(None).shape
        torch.Size([1, 3])
    """

    def __init__(self, where: str, count: int, context_features: int = 0) -> None:
        super().__init__()
        check_count(where, "parameters", count)
        self.own = nn.Parameter(torch.randn(count) / count**0.5)
        self.told = nn.Linear(context_features, count, bias=False) if context_features else None

    def forward(self, context: Tensor | None) -> Tensor:
        """p."""
        own = self.own[None]
        return own if self.told is None else own + self.told(context)
