"""Banach's iteration."""

from __future__ import annotations

import torch
from torch import Tensor

from snflow.numerics.fixed_point.rows import RowMap, default_tolerance, expand, failure, row_error


@torch.no_grad()
def picard(
    function: RowMap,
    start: Tensor,
    *,
    tolerance: float | None = None,
    iterations: int = 1000,
    where: str = "picard",
) -> Tensor:
    """x ← f(x) until max |f(x) − x| ≤ tolerance · max(1, |x|), each row by itself (Banach 1922).

    For f of Lipschitz constant L < 1 the error falls by L an iteration, and what is left of it is at most L/(1 − L) of
    the last step. A row that is done does not move any more, so that its result does not depend on the others.

    Args:
        function: f, of rows, each by itself.
        start: x₀, with shape ``(batch, *event)``. A row with a NaN or an infinity is given back as it is.
        tolerance: of each row, relative to max(1, |x|); sixteen roundings by default.
        iterations: the most evaluations of f.
        where: the caller, for the error.

    Returns:
        The fixed points, with shape ``(batch, *event)``; no gradient flows through them.

    Raises:
        ConvergenceError: some rows did not settle; it says how many and by how much.

    Example:
        >>> import torch
        >>> picard(torch.cos, torch.zeros(1, 1, dtype=torch.float64)).item()
        0.739085133215161...
    """
    tolerance = default_tolerance(start.dtype) if tolerance is None else tolerance
    x, error = start.clone(), start.new_zeros(start.shape[0])
    done = ~start.flatten(1).isfinite().all(1) if start.numel() else torch.ones_like(error, dtype=torch.bool)
    for _ in range(iterations):
        if bool(done.all()):
            return x
        image = function(x)
        error = torch.where(done, error, row_error(x, image))
        x = torch.where(expand(done, x), x, image)
        done = done | (error <= tolerance)
    if bool(done.all()):
        return x
    raise failure(where, ~done, error, iterations)
