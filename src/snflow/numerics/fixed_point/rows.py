"""When a row is done, and what is said of rows that are not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from snflow.errors import ConvergenceError

RowMap = Callable[[Tensor], Tensor]
"""A map of rows ``(batch, *event)`` to rows of that shape, each by itself."""


def default_tolerance(dtype: torch.dtype) -> float:
    """Sixteen roundings, relative to the largest element of a row or to one."""
    return 16 * torch.finfo(dtype).eps


def row_error(x: Tensor, image: Tensor) -> Tensor:
    """max |f(x) − x| / max(1, max |x|) of each row, with shape ``(batch,)``; rows of no elements have none."""
    if x.numel() == 0:
        return x.new_zeros(x.shape[0])
    size = x.flatten(1).abs().amax(1).clamp_min(1.0)
    return (image - x).flatten(1).abs().amax(1) / size


def expand(rows: Tensor, like: Tensor) -> Tensor:
    """Give a number a row the shape ``(batch, 1, …)`` of the rows."""
    return rows.reshape(-1, *(1 for _ in like.shape[1:]))


def failure(where: str, failed: Tensor, error: Tensor, iterations: int) -> ConvergenceError:
    """Say how many rows did not settle, and by how much."""
    worst = error[failed].nan_to_num(nan=torch.inf).max().item()
    return ConvergenceError(
        where,
        expected=f"a fixed point within {iterations} iterations",
        got=f"none for {int(failed.sum())} of {failed.numel()} rows, |f(x) - x| up to {worst:.3g} of max(1, |x|)",
        fix="the map must contract: bound its Lipschitz constant below one, allow more iterations, or use float64",
    )
