"""Sums over the event: everything behind the batch dimension."""

from __future__ import annotations

from torch import Tensor


def sum_event(values: Tensor) -> Tensor:
    """Σ over all dimensions but the first: per-element terms to per-sample ones.

    Args:
        values: with shape ``(batch, *event)``; the event may be empty.

    Returns:
        The sums, with shape ``(batch,)``.

    Example:
        >>> import torch
        >>> sum_event(torch.ones(2, 3, 4))
        tensor([12., 12.])
    """
    return values.flatten(1).sum(1) if values.dim() > 1 else values
