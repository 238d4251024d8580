"""Differential equations, solved by torchdiffeq."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from snflow.errors import ConvergenceError

SolverName = Literal["dopri5", "dopri8", "bosh3", "adaptive_heun", "rk4", "midpoint", "euler"]
"""Adaptive Runge–Kutta methods of orders 5, 8, 3 and 2, then ones of fixed steps of orders 4, 2 and 1."""
FIXED_STEP: frozenset[str] = frozenset(get_args(SolverName)[4:])
"""Those whose rows do not see each other at all."""

State = tuple[Tensor, ...]
Derivative = Callable[[Tensor, State], State]

_MOST_STEPS = 10_000


def solve(
    derivative: Derivative,
    start: State,
    begin: float,
    end: float,
    *,
    solver: SolverName,
    tolerance: float,
    steps: int,
    adjoint: Sequence[Tensor] | None,
    where: str,
) -> State:
    """y(end) of dy/dt = f(t, y), y(begin) = y₀.

    An adaptive solver keeps the error of every row of x below the tolerance, not that of the batch's mean: a row is as
    exact in a large batch as alone.

    Args:
        derivative: f, from a scalar t and the state to its derivatives.
        start: y₀: x with shape ``(batch, *event)`` first, then numbers a row with shape ``(batch,)``.
        begin: the first time.
        end: the last.
        solver: the method.
        tolerance: relative and absolute, of adaptive methods.
        steps: of the other ones.
        adjoint: what gradients flow to besides y₀ when the equation is solved once more, backwards, for them: memory
            does not grow with the steps; ``None`` keeps every step for autograd instead.
        where: the caller, for the error.

    Returns:
        The state at the end.

    Raises:
        ConvergenceError: the steps became too small or too many.

    References:
        Chen et al. (2018), Neural ordinary differential equations; Kidger, Chen, Lyons (2021), "Hey, that's not an
        ODE": faster ODE adjoints via seminorms.

    Example:
        >>> y = torch.ones(1, 1, dtype=torch.float64)
        >>> decay = lambda t, state: (-state[0],)
        >>> end = solve(decay, (y,), 0.0, 1.0, solver="rk4", tolerance=1e-6, steps=50, adjoint=None, where="decay")
        >>> round(float(end[0]), 6)
        0.367879
    """
    from torchdiffeq import odeint, odeint_adjoint  # takes SciPy's integrators along: only for those who need it

    x = start[0]
    times = torch.tensor([begin, end], dtype=x.dtype, device=x.device)
    options: dict[str, object]
    if solver in FIXED_STEP:
        options, adjoint_options = {"step_size": abs(end - begin) / steps}, {"step_size": abs(end - begin) / steps}
    else:
        options = {"norm": _worst_row, "max_num_steps": _MOST_STEPS}
        adjoint_options = {"norm": "seminorm", "max_num_steps": _MOST_STEPS}  # type: ignore[dict-item]
    given = {"rtol": tolerance, "atol": tolerance, "method": solver, "options": options}
    try:
        if adjoint is None or not torch.is_grad_enabled():
            found = odeint(derivative, start, times, **given)
        else:
            wanted = tuple(p for p in adjoint if p.requires_grad)
            found = odeint_adjoint(
                derivative, start, times, **given, adjoint_params=wanted, adjoint_options=adjoint_options
            )
    except AssertionError as error:  # torchdiffeq's way to say that it gives up
        raise ConvergenceError(
            where,
            expected=f"a solution within {_MOST_STEPS} steps of finite size",
            got=str(error).splitlines()[0],
            fix="the velocity has become too steep: raise the tolerance, add kinetic_weight or jacobian_weight, "
            "or train with a smaller learning rate",
        ) from error
    return tuple(part[-1] for part in found)


def _worst_row(state: State) -> Tensor:
    """The largest root mean square of a row of x, or element of the rest."""
    sizes = [part.flatten(1).square().mean(1).sqrt() if part.dim() > 1 else part.abs() for part in state]
    return torch.cat([size.reshape(-1) for size in sizes]).amax() if sizes[0].numel() else sizes[0].sum()
