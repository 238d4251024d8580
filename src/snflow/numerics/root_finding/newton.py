"""Newton's method inside a bracket."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from snflow.numerics.root_finding.bracket import bracketed, failure
from snflow.numerics.transforms import is_known_true, stands_for_many

ValueAndSlope = Callable[[Tensor], tuple[Tensor, Tensor]]
"""An elementwise map from x to (f(x), f'(x)), both with the shape of x."""


@torch.no_grad()
def invert_increasing(
    function: ValueAndSlope,
    z: Tensor,
    lower: Tensor,
    upper: Tensor,
    *,
    start: Tensor | None = None,
    where: str = "invert_increasing",
    iterations: int = 100,
    expansions: int = 60,
) -> Tensor:
    """x with f(x) = z, elementwise, for a continuous f that increases from −∞ to ∞.

    Newton's step is taken where it stays inside the bracket and is at most half the step before it, otherwise the
    bracket is halved: quadratic near the root and never worse than bisection. An element is done when f(x) differs from
    z by rounding alone, |f(x) − z| ≤ 4 ε (|z| + |x f'(x)|), or when its bracket has no number left inside. It does not
    move after that, so that a row's result does not depend on the rest of the batch.

    The result carries no gradient. To differentiate, take one more Newton step from it outside, with f(x) and f'(x)
    detached: ∂x/∂z = 1/f'(x).

    Args:
        function: the map from x to (f(x), f'(x)).
        z: what f shall equal, of any shape. NaN gives NaN, and an infinity the same infinity.
        lower: where to look, with the shape of z; the bracket grows until it holds the root.
        upper: the other end, likewise, not below ``lower``.
        start: where Newton begins, the middle of the bracket by default; with the shape of z.
        where: the name of the caller, for the error.
        iterations: the most steps.
        expansions: the most times that the bracket doubles.

    Returns:
        The roots, with the shape of z.

    Raises:
        ConvergenceError: some elements found no bracket or no root; under ``vmap``, which hides values, they are NaN.

    Example:
        >>> import torch
        >>> z = torch.tensor([8.0, -27.0])
        >>> x = invert_increasing(lambda x: (x**3, 3 * x**2), z, -torch.ones(2), torch.ones(2))
        >>> torch.allclose(x, torch.tensor([2.0, -3.0]))
        True
    """
    finite = z.isfinite()
    eps, tiny = torch.finfo(z.dtype).eps, torch.finfo(z.dtype).tiny
    lower, upper = bracketed(lambda x: function(x)[0], torch.where(finite, z, 0.0), lower, upper, where, expansions)
    x = (lower / 2 + upper / 2) if start is None else torch.minimum(torch.maximum(start, lower), upper)
    last_step = 2 * (upper - lower)  # the first step may end anywhere in the bracket
    done = ~finite
    residual = torch.zeros_like(z)
    for _ in range(iterations):
        value, slope = function(x)
        residual = value - z
        lower = torch.where(residual < 0, x, lower)
        upper = torch.where(residual > 0, x, upper)
        middle = lower / 2 + upper / 2
        done = done | (residual.abs() <= 4 * eps * (z.abs() + (slope * x).abs()) + tiny)
        done = done | (middle <= lower) | (middle >= upper)
        if is_known_true(done.all()):
            return torch.where(finite, x, z)
        newton = x - residual / slope
        safe = (newton > lower) & (newton < upper) & ((newton - x).abs() <= last_step / 2)
        next_x = torch.where(done, x, torch.where(safe, newton, middle))
        last_step = (next_x - x).abs()
        x = next_x
    if stands_for_many(done):
        return torch.where(finite, torch.where(done, x, torch.nan), z)
    raise failure(where, ~done, residual, f"a root within {iterations} steps")
