"""Bisection."""

from __future__ import annotations

import torch
from torch import Tensor

from snflow.numerics.root_finding.bracket import Increasing, bracketed, failure
from snflow.numerics.transforms import is_known_true, stands_for_many


@torch.no_grad()
def bisect(
    function: Increasing,
    z: Tensor,
    lower: Tensor,
    upper: Tensor,
    *,
    tolerance: float | None = None,
    where: str = "bisect",
    iterations: int = 1200,
    expansions: int = 60,
) -> Tensor:
    """x with f(x) = z, elementwise, by halving a bracket until it is as narrow as numbers are.

    One bit an evaluation, whatever f is: no slope, no continuity; at a jump over z it finds the jump. An element is
    done when f(x) is z, or its bracket is narrow enough, and does not move after that.

    Args:
        function: f, elementwise and increasing.
        z: what it shall equal, of any shape. NaN gives NaN, and an infinity the same infinity.
        lower: where to look, with the shape of z; the bracket grows until it holds the root.
        upper: the other end, likewise, not below ``lower``.
        tolerance: relative width of the bracket; two roundings by default.
        where: the caller, for the error.
        iterations: the most halvings; a root at zero takes about a thousand in float64.
        expansions: the most times that the bracket doubles.

    Returns:
        The roots, with the shape of z.

    Raises:
        ConvergenceError: some elements found no bracket or no root; under ``vmap``, which hides values, they are NaN.

    Example:
        >>> z = torch.tensor([8.0, -27.0])
        >>> x = bisect(lambda x: x**3, z, -torch.ones(2), torch.ones(2))
        >>> torch.allclose(x, torch.tensor([2.0, -3.0]))
        True
    """
    finite = z.isfinite()
    least = 2 * torch.finfo(z.dtype).eps if tolerance is None else tolerance
    target = torch.where(finite, z, 0.0)
    lower, upper = bracketed(function, target, lower, upper, where, expansions)
    done = ~finite
    x, residual = lower, torch.zeros_like(target)
    for _ in range(iterations):
        x = torch.where(done, x, lower / 2 + upper / 2)
        residual = function(x) - target
        lower = torch.where(~done & (residual < 0), x, lower)
        upper = torch.where(~done & (residual > 0), x, upper)
        exhausted = (x <= lower) & (x >= upper)
        narrow = upper - lower <= least * torch.maximum(lower.abs(), upper.abs())
        done = done | (residual == 0) | (~residual.isnan() & (narrow | exhausted))
        if is_known_true(done.all()):
            return torch.where(finite, x, z)
    if stands_for_many(done):
        return torch.where(finite, torch.where(done, x, torch.nan), z)
    raise failure(where, ~done, residual, f"a root within {iterations} halvings")
