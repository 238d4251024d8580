"""Continuous flows: the solution of an ordinary differential equation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection, Shape
from snflow.errors import (
    ConfigError,
    ConvergenceError,
    check_choice,
    check_context_shape,
    check_count,
    check_event_shape,
    check_shape_kept,
    check_weight,
)
from snflow.numerics.compilation import in_both_directions
from snflow.numerics.jacobian import jacobian_of
from snflow.numerics.probes import ProbeName, draw_probes, sum_event
from snflow.numerics.transforms import refuse_transforms, stands_for_many, under_transform
from snflow.numerics.undifferentiable import once_differentiable

SolverName = Literal["dopri5", "dopri8", "bosh3", "adaptive_heun", "rk4", "midpoint", "euler"]
"""Adaptive Runge–Kutta methods of orders 5, 8, 3 and 2, then fixed-step methods of orders 4, 2 and 1."""
FIXED_STEP: frozenset[str] = frozenset(get_args(SolverName)[4:])
"""The fixed-step solvers, for which the rows of a batch do not depend on each other."""

State = tuple[Tensor, ...]
Derivative = Callable[[Tensor, State], State]

_MOST_STEPS = 10_000
_SOLVED = in_both_directions("the number of steps of its solver depends on the data")


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

    An adaptive solver bounds the error of each row of x, rather than the mean over the batch, so that the accuracy of a
    row does not depend on the size of the batch.

    Args:
        derivative: f, from a scalar t and the state to its derivatives.
        start: y₀: first x, with shape ``(batch, *event)``, then quantities with one number per row, ``(batch,)`` each.
        begin: the initial time.
        end: the final time.
        solver: the method.
        tolerance: relative and absolute tolerance of adaptive methods.
        steps: number of steps of fixed-step methods.
        adjoint: the tensors besides y₀ for which the adjoint method computes gradients, by solving the equation again
            backwards in time: memory does not grow with the number of steps. With ``None``, autograd differentiates
            through all steps.
        where: the name of the caller, for error messages.

    Returns:
        The state at the end.

    Raises:
        ConvergenceError: the step size became too small, or too many steps were needed.

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
    wanted = () if adjoint is None else tuple(p for p in adjoint if p.requires_grad)
    ode = _Equation(derivative, begin, end, solver, tolerance, steps, where)
    if torch.is_grad_enabled() and adjoint is not None and any(t.requires_grad for t in (*start, *wanted)):
        end_state: State = _Adjoint.apply(ode, len(start), *start, *wanted)
        return end_state
    return ode.solve(derivative, start, begin, end, _worst_row)


@dataclass(frozen=True)
class _Equation:
    """The right-hand side, the interval and the method."""

    derivative: Derivative
    begin: float
    end: float
    solver: SolverName
    tolerance: float
    steps: int
    where: str

    def solve(
        self, derivative: Derivative, start: State, begin: float, end: float, norm: Callable[[State], Tensor]
    ) -> State:
        """y(end) for y(begin) = ``start``; the norm is that of the error of an adaptive step."""
        from torchdiffeq import odeint  # slow to import, since it loads SciPy's integrators

        times = torch.tensor([begin, end], dtype=start[0].dtype, device=start[0].device)
        options: dict[str, object]
        if self.solver in FIXED_STEP:
            options = {"step_size": abs(end - begin) / self.steps}
        else:
            # without a step at the end, torchdiffeq would interpolate, less accurately than it steps
            options = {"norm": norm, "max_num_steps": _MOST_STEPS, "step_t": times[1:]}
        failures: list[Exception] = []

        def watched(t: Tensor, state: State) -> State:
            try:
                return derivative(t, state)
            except Exception as error:
                failures.append(error)
                raise

        try:
            found = odeint(
                watched, start, times, rtol=self.tolerance, atol=self.tolerance, method=self.solver, options=options
            )
        except AssertionError as error:  # torchdiffeq reports failures by assertions, as a velocity may do for its own
            if failures:
                raise
            raise ConvergenceError(
                self.where,
                expected=f"a solution within {_MOST_STEPS} steps of nonzero size",
                got=str(error).splitlines()[0],
                fix="the velocity has become too steep: raise the tolerance, add kinetic_weight or jacobian_weight, "
                "or train with a smaller learning rate",
            ) from error
        return tuple(part[-1] for part in found)


def _worst_row(state: State) -> Tensor:
    """The maximum over rows of the root mean square of x, and of the absolute values of the other quantities."""
    sizes = [part.flatten(1).square().mean(1).sqrt() if part.dim() > 1 else part.abs() for part in state]
    return torch.cat([size.reshape(-1) for size in sizes]).amax() if sizes[0].numel() else sizes[0].sum()


class _Adjoint(torch.autograd.Function):
    """y(end), with the gradients a = ∂L/∂y from da/dt = −aᵀ ∂f/∂y and ∂L/∂θ from dg/dt = −aᵀ ∂f/∂θ, backwards."""

    @staticmethod
    def forward(ctx: Any, ode: _Equation, parts: int, *tensors: Tensor) -> State:
        ctx.ode, ctx.parts = ode, parts
        found = ode.solve(ode.derivative, tensors[:parts], ode.begin, ode.end, _worst_row)
        ctx.save_for_backward(*tensors, *found)
        return found

    @staticmethod
    @once_differentiable("ContinuousFlow", fix="use adjoint=False, with which autograd differentiates all steps")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ode, parts = ctx.ode, ctx.parts
        parameters, found = ctx.saved_tensors[parts:-parts], ctx.saved_tensors[-parts:]

        def augmented(t: Tensor, state: State) -> State:
            y, adjoint = state[:parts], state[parts : 2 * parts]
            with torch.enable_grad():
                at = tuple(part.detach().requires_grad_() for part in y)
                value = ode.derivative(t, at)
                pulled = torch.autograd.grad(
                    value, (*at, *parameters), tuple(-a for a in adjoint), allow_unused=True, materialize_grads=True
                )
            return (*(part.detach() for part in value), *pulled)

        def seminorm(state: State) -> Tensor:  # the integrals ∂L/∂θ do not feed back, so need no error control
            return torch.maximum(_worst_row(state[:parts]), _worst_row(state[parts : 2 * parts]))

        start = (*found, *grads, *(torch.zeros_like(parameter) for parameter in parameters))
        return None, None, *ode.solve(augmented, start, ode.end, ode.begin, seminorm)[parts:]


TraceName = Literal["auto", "exact", "hutchinson"]
"""How tr(∂v/∂x) is computed in training."""

_SMALL = 3
"""Number of elements up to which the exact trace costs little more than an estimate."""


@final
class ContinuousFlow(Bijection):
    """dx/dt = v(x, t), z = x(1) for x(0) = x, log|det ∂z/∂x| = ∫₀¹ tr(∂v/∂x) dt, for any velocity v.

    In ``train()`` the trace is either exact (D products with the Jacobian) or Hutchinson's estimate νᵀ(∂v/∂x)ν (one
    product), with the same ν along the whole trajectory of a row. In ``eval()`` it is exact up to
    ``exact_dimensions``; above, the log-determinant is an unbiased estimate and ``log_det_kind`` is ``"estimate"``.
    Both directions are accurate up to the tolerance of the solver: at 1e-5 round trips and log-determinants are off by
    up to 1e-4. ``eval()`` therefore has its own tolerance, 1e-7, at which they are exact to 1e-6 in float64, for
    about twice as many evaluations of v; float32 rounds the sum of the steps, and remains at 1e-4.

    Two penalties favor simple trajectories, which need fewer solver steps: in training the gradient of the
    log-determinant includes that of −``kinetic_weight`` ∫‖v‖² − ``jacobian_weight`` ∫‖∂v/∂x‖_F²; its value is
    unchanged.

    Args:
        net: v, from (x, t) or (x, t, context) to the shape of x: see :class:`~snflow.nets.VelocityNet`.
        event_shape: the shape of one event; an int D for vectors ``(D,)``.
        context_shape: C of context vectors, or the shape of one sample's context; ``None`` for no context.
        trace: ``"exact"``, ``"hutchinson"``, or ``"auto"``: exact for D ≤ 3.
        solver: an adaptive solver, ``"dopri5"``, ``"dopri8"``, ``"bosh3"`` or ``"adaptive_heun"``, whose steps are
            shared by the batch, so that rows depend on each other within the tolerance; or a fixed-step solver,
            ``"rk4"``, ``"midpoint"`` or ``"euler"``.
        tolerance: relative and absolute tolerance of adaptive solvers, for each row.
        eval_tolerance: the same in ``eval()``, if it is smaller; at least 8 machine epsilons are used.
        steps: number of steps of fixed-step solvers.
        adjoint: whether gradients are computed by the adjoint method, in constant memory, instead of by autograd
            through all steps.
        probe: the distribution of ν.
        kinetic_weight: weight of ∫‖v‖², ≥ 0.
        jacobian_weight: weight of ∫‖∂v/∂x‖_F², ≥ 0.
        exact_dimensions: the largest D for which ``eval()`` computes the exact trace.

    Shapes:
        x, z: ``(batch, *event)``; context: ``(batch, *context_shape)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a tolerance, a count or a weight is out of range, or an option is unknown; the layer is called
            under ``vmap``, or with an adaptive solver under another transform of ``torch.func``.
        ShapeError: the network changes the shape.
        ConvergenceError: the solver failed.

    References:
        Chen et al. (2018), Neural ordinary differential equations, eq. 8; Grathwohl et al. (2019), FFJORD; Finlay et
        al. (2020), How to train your neural ODE.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.ContinuousFlow(snflow.nets.VelocityNet((2,)), (2,)).eval()
        >>> x = torch.randn(4, 2)
        >>> torch.allclose(layer.decode(layer(x)[0]), x, atol=1e-4)
        True
    """

    uncompiled = _SOLVED

    def __init__(
        self,
        net: nn.Module,
        event_shape: int | Shape,
        *,
        context_shape: int | Shape | None = None,
        trace: TraceName = "auto",
        solver: SolverName = "dopri5",
        tolerance: float = 1e-5,
        eval_tolerance: float = 1e-7,
        steps: int = 20,
        adjoint: bool = True,
        probe: ProbeName = "rademacher",
        kinetic_weight: float = 0.0,
        jacobian_weight: float = 0.0,
        exact_dimensions: int = 64,
    ) -> None:
        super().__init__()
        for option, word, known in (("trace", trace, TraceName), ("solver", solver, SolverName)):
            check_choice("ContinuousFlow", option, word, known)
        check_choice("ContinuousFlow", "probe", probe, ProbeName)
        check_count("ContinuousFlow", "steps", steps)
        check_count("ContinuousFlow", "exact_dimensions", exact_dimensions)
        check_weight("ContinuousFlow", "kinetic_weight", kinetic_weight, fix="use 0 to turn the penalty off")
        check_weight("ContinuousFlow", "jacobian_weight", jacobian_weight, fix="use 0 to turn the penalty off")
        for option, value in (("tolerance", tolerance), ("eval_tolerance", eval_tolerance)):
            if not 0 < value < 1:
                raise ConfigError("ContinuousFlow", expected=f"0 < {option} < 1", got=str(value), fix="use 1e-5")
        self.net = net
        shape = check_event_shape("ContinuousFlow", event_shape)
        self.event_shape = shape
        self.context_shape = check_context_shape("ContinuousFlow", context_shape)
        size = math.prod(shape)
        self.trace: TraceName = ("exact" if size <= _SMALL else "hutchinson") if trace == "auto" else trace
        self.solver, self.steps = solver, steps
        self.tolerance, self.eval_tolerance = tolerance, eval_tolerance
        self.adjoint, self.probe = adjoint, probe
        self.kinetic_weight, self.jacobian_weight = kinetic_weight, jacobian_weight
        self.small = size <= exact_dimensions
        self.log_det_kind = "exact" if self.small else "estimate"
        self.evaluations = 0

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._run(x, context, 0.0, 1.0)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._run(z, context, 1.0, 0.0)

    def _run(self, x: Tensor, context: Tensor | None, begin: float, end: float) -> tuple[Tensor, Tensor]:
        self._check_transforms(x, context)
        if not len(x):
            return x.clone(), x.new_zeros(0)
        finite = x.flatten(1).isfinite().all(1)
        rows = finite.view(-1, *(1 for _ in x.shape[1:]))
        penalties = self.training and torch.is_grad_enabled() and self.kinetic_weight + self.jacobian_weight > 0
        derivative = _Derivative(self, torch.where(rows, x, 0.0), context, penalties=penalties)
        zeros = x.new_zeros(len(x))
        state = solve(
            derivative,
            (torch.where(rows, x, 0.0), *[zeros] * (2 if penalties else 1)),
            begin,
            end,
            solver=self.solver,
            tolerance=self._accuracy(x),
            steps=self.steps,
            adjoint=self._adjoint_tensors(context),
            where="ContinuousFlow",
        )
        self.evaluations = derivative.evaluations
        z, log_det = torch.where(rows, state[0], x), torch.where(finite, state[1], torch.nan)
        if penalties:
            # integrating backwards in time flips the sign
            carried = -state[2].abs()
            log_det = log_det + (carried - carried.detach())
        return z, log_det

    def _accuracy(self, x: Tensor) -> float:
        if self.training:
            return self.tolerance
        return min(self.tolerance, max(self.eval_tolerance, 8 * torch.finfo(x.dtype).eps))

    def _check_transforms(self, x: Tensor, context: Tensor | None) -> None:
        """Adaptive solvers branch on errors, fixed-step solvers write to a plain tensor: ``vmap`` allows neither."""
        if not under_transform():
            return
        followed = (x, *self.net.parameters(), *(() if context is None else (context,)))
        if self.solver not in FIXED_STEP or any(map(stands_for_many, followed)):
            refuse_transforms(
                "ContinuousFlow",
                "for per-row gradients use torch.autograd.grad(flow.log_prob(x).sum(), x), since rows are independent; "
                f"or grad without vmap and a fixed-step solver: {', '.join(sorted(FIXED_STEP))}",
            )

    def _adjoint_tensors(self, context: Tensor | None) -> tuple[Tensor, ...] | None:
        if not self.adjoint or under_transform():
            return None
        return (*self.net.parameters(), *(() if context is None else (context,)))

    def extra_repr(self) -> str:
        """Show the shape, the solver and the trace."""
        return f"{self.event_shape}, {self.solver}, trace={self.trace}"


class _Derivative:
    """(v, tr ∂v/∂x, penalties) at (t, x): the right-hand side of the differential equation."""

    def __init__(self, layer: ContinuousFlow, x: Tensor, context: Tensor | None, *, penalties: bool) -> None:
        self.layer, self.context, self.penalties = layer, context, penalties
        self.exact = layer.trace == "exact" if layer.training else layer.small
        self.probe = None if self.exact else draw_probes(layer.probe, 1, x)[0]
        self.evaluations = 0

    def __call__(self, t: Tensor, state: State) -> State:
        self.evaluations += 1
        graph = torch.is_grad_enabled()
        with torch.enable_grad():
            # without a graph, a view of the solver's tensor would not be connected to it
            x = state[0] if graph and state[0].requires_grad else state[0].detach().requires_grad_()
            v = self.layer.net(x, t) if self.context is None else self.layer.net(x, t, self.context)
            check_shape_kept("ContinuousFlow", v.shape, x.shape)
            with torch.set_grad_enabled(graph):
                trace, square = self._trace(v, x)
        if not graph:
            v = v.detach()
        if not self.penalties:
            return v, trace
        layer = self.layer
        return v, trace, layer.kinetic_weight * sum_event(v.square()) + layer.jacobian_weight * square

    def _trace(self, v: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """tr J and ‖J‖_F² of each row, exact or estimated, in nats per unit of time."""
        if self.probe is None:
            matrices = jacobian_of(v, x)
            return matrices.diagonal(dim1=1, dim2=2).sum(1), matrices.square().sum((1, 2))
        (pulled,) = torch.autograd.grad(v, x, self.probe, create_graph=torch.is_grad_enabled(), retain_graph=True)
        return sum_event(pulled * self.probe), sum_event(pulled.square())
