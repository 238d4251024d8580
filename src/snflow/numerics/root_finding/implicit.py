"""Gradients of a root, by the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from snflow.arguments import check_choice
from snflow.numerics.root_finding.bisection import bisect
from snflow.numerics.root_finding.chandrupatla import chandrupatla
from snflow.numerics.root_finding.newton import invert_increasing

RootSolver = Literal["newton", "bisection", "chandrupatla"]
"""By slopes inside a bracket; by halving; by inverse quadratic steps or halving, without slopes."""


def implicit_inverse(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    z: Tensor,
    lower: Tensor,
    upper: Tensor,
    *,
    where: str,
    solver: RootSolver = "newton",
) -> tuple[Tensor, Tensor]:
    """x with f(x) = z and −log f'(x), with the gradients of the exact inverse: ∂x/∂z = 1/f', ∂x/∂θ = −∂f/∂θ / f'.

    Args:
        function: an elementwise map from x to (f(x), log f'(x)), increasing from −∞ to ∞, parameters under autograd.
        z: what f shall equal.
        lower: where to look, with the shape of z; the bracket grows until it holds the root.
        upper: the other end.
        where: the name of the caller, for the error.
        solver: what finds the root; all find the same.

    Returns:
        x and the log-slope of the inverse in nats, both with the shape of z.

    Raises:
        ConfigError: an unknown solver.
        ConvergenceError: some elements found no root.

    Example:
        >>> import torch
        >>> z = torch.tensor([8.0], requires_grad=True)
        >>> x, _ = implicit_inverse(lambda x: (x**3, (3 * x**2).log()), z, 1 + 0 * z, 3 + 0 * z, where="cube")
        >>> torch.autograd.grad(x.sum(), z)[0]
        tensor([0.0833])
    """

    def value_and_slope(x: Tensor) -> tuple[Tensor, Tensor]:
        value, log_slope = function(x)
        return value, log_slope.exp()

    check_choice(where, "solver", solver, RootSolver)
    given = (z.detach(), lower.detach(), upper.detach())
    if solver == "newton":
        root = invert_increasing(value_and_slope, *given, where=where)
    else:
        search = bisect if solver == "bisection" else chandrupatla
        root = search(lambda x: function(x)[0], *given, where=where)
    value, log_slope = function(root)
    step = (value - z) * (-log_slope.detach()).exp()
    # The value is the root's; the step, zero up to rounding, carries the gradient. An infinity is its own root.
    x = root - torch.where(root.isfinite(), step - step.detach(), 0.0)
    return x, -function(x)[1]
