"""Random probes, and sums over the dimensions of an event."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor


def sum_event(values: Tensor) -> Tensor:
    """The sum over all dimensions but the first: from one term per element to one sum per sample.

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


ProbeName = Literal["rademacher", "gaussian", "orthogonal"]


def rademacher(count: int, event_shape: tuple[int, ...], like: Tensor) -> Tensor:
    """ν ∈ {−1, 1}ᴰ with independent, uniformly random signs: ``count`` events with E ννᵀ = I.

    Args:
        count: number of events.
        event_shape: the shape of an event.
        like: a tensor that provides the dtype and the device.

    Returns:
        The events, with shape ``(count, *event_shape)``, drawn from the global generator of torch.

    Example:
        >>> rademacher(3, (2,), torch.zeros(())).abs()
        tensor([[1., 1.],
                [1., 1.],
                [1., 1.]])
    """
    half = torch.full((count, *event_shape), 0.5, dtype=like.dtype, device=like.device)
    return half.bernoulli_(0.5).mul_(2).sub_(1)


def draw_probes(name: ProbeName, count: int, like: Tensor) -> Tensor:
    """ν with E ννᵀ = I: random probes for each row of a batch.

    ``rademacher`` has the smallest variance among probes with independent elements. ``orthogonal`` probes are random
    orthonormal vectors times √D: with D of them, trace estimates are exact. More than D are drawn in groups of D.

    Args:
        name: the distribution.
        count: number of probes per row.
        like: a batch ``(batch, *event)`` that provides the shape, the dtype and the device.

    Returns:
        Probes with shape ``(count, batch, *event)``, from the global generator of torch.

    Example:
        >>> v = draw_probes("orthogonal", 2, torch.zeros(5, 2))
        >>> torch.allclose(torch.einsum("pbi,pbj->bij", v, v) / 2, torch.eye(2))
        True
    """
    if name == "rademacher":
        return rademacher(count, tuple(like.shape), like)
    if name == "gaussian":
        return torch.randn(count, *like.shape, dtype=like.dtype, device=like.device)
    size = math.prod(like.shape[1:])
    groups = []
    for first in range(0, count, size):
        square = torch.randn(len(like), size, min(size, count - first), dtype=like.dtype, device=like.device)
        columns, corner = torch.linalg.qr(square)
        # the signs of the diagonal of R make the distribution uniform (Mezzadri 2007)
        columns = columns * corner.diagonal(dim1=-2, dim2=-1).sign()[:, None]
        groups.append(math.sqrt(size) * columns.permute(2, 0, 1))
    return torch.cat(groups).view(count, *like.shape)
