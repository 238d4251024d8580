"""An interval that holds the root, and what is said where there is none."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from snflow.errors import ConvergenceError
from snflow.numerics.transforms import is_known_true, stands_for_many

Increasing = Callable[[Tensor], Tensor]
"""An elementwise map that increases, from x to f(x) with the shape of x."""


def bracketed(
    function: Increasing, z: Tensor, lower: Tensor, upper: Tensor, where: str, expansions: int
) -> tuple[Tensor, Tensor]:
    """Widen each bracket, doubling every time, until f(lower) ≤ z ≤ f(upper).

    Args:
        function: f, elementwise and increasing.
        z: what it shall equal, finite, of any shape.
        lower: one end, with the shape of z.
        upper: the other, not below it.
        where: the caller, for the error.
        expansions: the most times that a bracket doubles.

    Returns:
        Both ends, with the shape of z.

    Raises:
        ConvergenceError: some elements found none: f does not reach z, or is NaN; under ``vmap``, which hides
            values, their ends are NaN.

    Example:
        >>> z = torch.tensor([8.0])
        >>> bracketed(lambda x: x**3, z, torch.zeros(1), torch.ones(1), "cube", 60)
        (tensor([1.]), tensor([2.]))
    """
    info = torch.finfo(z.dtype)
    # a bracket of width zero must be able to grow as well
    width = torch.maximum(upper - lower, info.eps * torch.maximum(lower.abs(), upper.abs()) + info.tiny)
    for _ in range(expansions + 1):
        at_lower, at_upper = function(lower), function(upper)
        too_high, too_low = at_lower > z, at_upper < z
        wrong = too_high | too_low
        if is_known_true(~wrong.any()):
            return lower, upper
        lower, upper = (
            torch.where(too_high, lower - width, torch.where(too_low, upper, lower)),
            torch.where(too_low, upper + width, torch.where(too_high, lower, upper)),
        )
        width = 2 * width
    residual = torch.where(too_high, at_lower - z, at_upper - z)
    if stands_for_many(wrong):
        return torch.where(wrong, torch.nan, lower), torch.where(wrong, torch.nan, upper)
    raise failure(where, wrong, residual, f"a bracket within {expansions} doublings")


def failure(where: str, failed: Tensor, residual: Tensor, expected: str) -> ConvergenceError:
    """Say how many elements failed, and by how much."""
    worst = residual[failed].abs().nan_to_num(nan=torch.inf).max().item()
    return ConvergenceError(
        where,
        expected=expected,
        got=f"none for {int(failed.sum())} of {failed.numel()} elements, |f(x) - z| up to {worst:.3g}",
        fix="look for exploding parameters, or invert in float64",
    )
