"""Knots of a spline, and the bin that a point lies in; bins stand in the **first** dimension."""

from __future__ import annotations

import torch
from torch import Tensor


def rising(unnormalized: Tensor, bound: float, min_share: float) -> Tensor:
    """Knots from −bound to bound, the shares of the bins ``min_share + (1 − K · min_share) softmax``.

    Args:
        unnormalized: unconstrained numbers, with shape ``(K, *shape)``.
        bound: half the side of the box.
        min_share: the smallest share of a bin.

    Returns:
        With shape ``(K + 1, *shape)``; the ends are exact, whatever the sum rounds to.

    Example:
        >>> import torch
        >>> rising(torch.zeros(4), 2.0, 1e-3).tolist()
        [-2.0, -1.0, 0.0, 1.0, 2.0]
    """
    bins = unnormalized.shape[0]
    shares = min_share + (1 - bins * min_share) * torch.softmax(unnormalized, 0)
    inner = 2 * bound * shares[:-1].cumsum(0) - bound
    end = torch.full_like(shares[:1], bound)
    return torch.cat([-end, inner, end])


def bin_of(points: Tensor, knots: Tensor) -> Tensor:
    """The index of the bin of each point: the number of inner knots at or below it, so that NaN has one too.

    Args:
        points: with shape ``(batch, *event)``.
        knots: for each element of the event, ``(K + 1, *event)``, or of each sample, ``(K + 1, batch, *event)``.

    Returns:
        From 0 to K − 1, with the shape of the points.
    """
    inner = knots[1:-1].detach()
    return (points >= (inner.unsqueeze(1) if knots.dim() == points.dim() else inner)).sum(0)


def take(table: Tensor, index: Tensor) -> Tensor:
    """The entry of each point's bin.

    Args:
        table: an entry a bin, with shape ``(K, *event)`` where the batch shares it, or ``(K, batch, *event)``.
        index: with shape ``(batch, *event)``.

    Returns:
        With the shape of the index.
    """
    if table.dim() == index.dim():
        return table.gather(0, index)
    return table.gather(0, index.unsqueeze(0)).squeeze(0)


def take_ends(table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The entries of the knots to the left and to the right of each point, by one look into the table.

    Args:
        table: an entry a knot, with shape ``(K + 1, *event)`` where the batch shares it, or ``(K + 1, batch, *event)``.
        index: the bin, from 0 to K − 1, with shape ``(batch, *event)``.

    Returns:
        Both with the shape of the index.

    Example:
        >>> import torch
        >>> left, right = take_ends(torch.tensor([[-1.0], [0.0], [1.0]]), torch.tensor([[1]]))
        >>> left.item(), right.item()
        (0.0, 1.0)
    """
    following = index + 1
    shared = table.dim() == index.dim()
    both = table.gather(0, torch.cat([index, following]) if shared else torch.stack([index, following]))
    left, right = both.view(2, *index.shape).unbind(0)
    return left, right
