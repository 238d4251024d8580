"""Gradients of a fixed point, by the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from snflow.numerics.fixed_point.anderson import anderson
from snflow.numerics.fixed_point.rows import RowMap
from snflow.numerics.implicit import implicit_solution

Solver = Callable[..., Tensor]
"""``picard`` or ``anderson``, or one with their arguments."""


def implicit_fixed_point(
    function: RowMap,
    start: Tensor,
    *,
    solver: Solver = anderson,
    where: str = "implicit_fixed_point",
    **options: float | int | None,
) -> Tensor:
    """x = f(x), with dx = (I − ∂f/∂x)⁻¹ df: the gradient of the exact solution, for whatever f depends on.

    The backward pass solves u = v + (∂f/∂x)ᵀ u by the same iteration, a vector-Jacobian product of f each: no graph
    of the iterations is kept.

    Args:
        function: f, of rows ``(batch, *event)``, each by itself; under autograd for its parameters and inputs.
        start: x₀, with that shape; no gradient flows to it.
        solver: what finds the solution, and u.
        where: the caller, for errors.
        options: ``tolerance``, ``iterations`` and ``memory`` of the solver.

    Returns:
        The fixed points, with shape ``(batch, *event)``.

    Raises:
        ConvergenceError: some rows did not settle, forward or backward.

    Example:
        >>> import torch
        >>> a = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        >>> x = implicit_fixed_point(lambda x: a * x + 1, torch.zeros(1, 1, dtype=torch.float64))
        >>> x.item(), torch.autograd.grad(x.sum(), a)[0].item()  # 1/(1 - a) and 1/(1 - a)²
        (2.0, 4.0)
    """
    solution = solver(function, start.detach(), where=where, **options)
    if not torch.is_grad_enabled():
        return solution

    def solve_transposed(v: Tensor) -> Tensor:
        with torch.enable_grad():
            at = solution.detach().requires_grad_()
            image = function(at)

        def step(u: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(image, at, u, retain_graph=True, allow_unused=True, materialize_grads=True)
            return v + pulled

        return solver(step, v, where=f"{where}, backward", **options)

    return implicit_solution(solution, function(solution.detach()) - solution.detach(), solve_transposed)
