"""Roots of monotone functions by bisection, Chandrupatla's and Newton's methods, with implicit gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from snflow.errors import ConvergenceError, check_choice
from snflow.numerics.transforms import is_known_true, stands_for_many

Increasing = Callable[[Tensor], Tensor]
"""An increasing elementwise map from x to f(x)."""


def bracketed(
    function: Increasing, z: Tensor, lower: Tensor, upper: Tensor, where: str, expansions: int
) -> tuple[Tensor, Tensor]:
    """Expand each bracket, in steps of growing width, until f(lower) ≤ z ≤ f(upper).

    The width doubles ten times; later step n multiplies it by 2ⁿ⁻⁹, so that 60 steps reach every float64.

    Args:
        function: f, elementwise and increasing.
        z: the target values, finite, of any shape.
        lower: lower ends, with the shape of z.
        upper: upper ends, likewise.
        where: the name of the caller, for error messages.
        expansions: the maximum number of steps.

    Returns:
        Both ends, with the shape of z.

    Raises:
        ConvergenceError: some elements have no bracket, because f does not reach z or is NaN. Under ``vmap``, where
            values cannot be inspected, both ends are NaN instead.

    Example:
        >>> z = torch.tensor([8.0])
        >>> bracketed(lambda x: x**3, z, torch.zeros(1), torch.ones(1), "cube", 60)
        (tensor([1.]), tensor([2.]))
    """
    info = torch.finfo(z.dtype)
    # a positive width, so that a bracket of width zero can be expanded
    width = torch.maximum(upper - lower, info.eps * torch.maximum(lower.abs(), upper.abs()) + info.tiny)
    for step in range(expansions + 1):
        at_lower, at_upper = function(lower), function(upper)
        too_high, too_low = at_lower > z, at_upper < z
        wrong = too_high | too_low
        if is_known_true(~wrong.any()):
            return lower, upper
        lower, upper = (
            torch.where(too_high, (lower - width).clamp_min(info.min), torch.where(too_low, upper, lower)),
            torch.where(too_low, (upper + width).clamp_max(info.max), torch.where(too_high, lower, upper)),
        )
        width = width * 2 ** max(1, step - 9)
    residual = torch.where(too_high, at_lower - z, at_upper - z)
    if stands_for_many(wrong):
        return torch.where(wrong, torch.nan, lower), torch.where(wrong, torch.nan, upper)
    raise failure(where, wrong, residual, f"a bracket within {expansions} expansions")


def failure(where: str, failed: Tensor, residual: Tensor, expected: str) -> ConvergenceError:
    """An error that reports how many elements failed, and the largest residual."""
    worst = residual[failed].abs().nan_to_num(nan=torch.inf).max().item()
    return ConvergenceError(
        where,
        expected=expected,
        got=f"none for {int(failed.sum())} of {failed.numel()} elements, |f(x) - z| up to {worst:.3g}",
        fix="check for diverging parameters, or invert in float64",
    )


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
    """x with f(x) = z, elementwise, by halving a bracket down to the precision of the dtype.

    Each evaluation gains one bit for any increasing f, differentiable or not; if f jumps over z, the result is the
    position of the jump. The iteration of an element stops when f(x) = z or its bracket is narrow enough.

    Args:
        function: f, elementwise and increasing.
        z: the target values, of any shape; NaN and infinities are returned unchanged.
        lower: lower ends of the brackets, with the shape of z; a bracket is expanded until it contains the root.
        upper: upper ends, likewise.
        tolerance: relative width of the bracket; two machine epsilons by default.
        where: the name of the caller, for error messages.
        iterations: the maximum number of halvings; a root at zero takes about a thousand in float64.
        expansions: the maximum number of expansions of the bracket.

    Returns:
        The roots, with the shape of z.

    Raises:
        ConvergenceError: no bracket or no root was found for some elements. Under ``vmap``, where values cannot be
            inspected, these elements are NaN instead.

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


@torch.no_grad()
def chandrupatla(
    function: Increasing,
    z: Tensor,
    lower: Tensor,
    upper: Tensor,
    *,
    tolerance: float | None = None,
    where: str = "chandrupatla",
    iterations: int = 1200,
    expansions: int = 60,
) -> Tensor:
    """x with f(x) = z, elementwise: inverse quadratic interpolation where it is reliable, otherwise bisection.

    The method needs no derivatives. It takes about a dozen evaluations for a smooth f, and otherwise at most a few
    times as many as :func:`bisect`. A converged element is no longer updated.

    Args:
        function: f, elementwise and increasing.
        z: the target values, of any shape; NaN and infinities are returned unchanged.
        lower: lower ends of the brackets, with the shape of z; a bracket is expanded until it contains the root.
        upper: upper ends, likewise.
        tolerance: relative error of the root; two machine epsilons by default.
        where: the name of the caller, for error messages.
        iterations: the maximum number of evaluations.
        expansions: the maximum number of expansions of the bracket.

    Returns:
        The roots, with the shape of z.

    Raises:
        ConvergenceError: no bracket or no root was found for some elements. Under ``vmap``, where values cannot be
            inspected, these elements are NaN instead.

    References:
        Chandrupatla (1997), A new hybrid quadratic/bisection algorithm for finding the zero of a nonlinear function
        without using derivatives; Scherer (2017), Computational Physics, section 6.1.7.

    Example:
        >>> z = torch.tensor([8.0, -27.0])
        >>> x = chandrupatla(lambda x: x**3, z, -torch.ones(2), torch.ones(2))
        >>> torch.allclose(x, torch.tensor([2.0, -3.0]))
        True
    """
    finite = z.isfinite()
    info = torch.finfo(z.dtype)
    least = 2 * info.eps if tolerance is None else tolerance
    target = torch.where(finite, z, 0.0)
    b, a = bracketed(function, target, lower, upper, where, expansions)
    fb, fa = function(b) - target, function(a) - target
    # an end may be the root itself, or f may be NaN there; bisection would never revisit it
    best = torch.where(fa.abs() < fb.abs(), a, b)
    done = ~finite | (fa == 0) | (fb == 0)
    t = torch.full_like(target, 0.5)
    f = torch.where(done, 0.0, fa)
    for _ in range(iterations):
        if is_known_true(done.all()):
            return torch.where(finite, best, z)
        x = torch.where(done, best, a + t * (b - a))
        f = function(x) - target
        same = torch.sign(f) == torch.sign(fa)
        c, fc = torch.where(same, a, b), torch.where(same, fa, fb)
        b, fb = torch.where(same, b, a), torch.where(same, fb, fa)
        a, fa = torch.where(done, a, x), torch.where(done, fa, f)
        nearer = fa.abs() < fb.abs()
        best = torch.where(done, best, torch.where(nearer, a, b))
        span = (b - a).abs()
        limit = (least * best.abs() + info.tiny) / span
        stuck = (a / 2 + b / 2 == a) | (a / 2 + b / 2 == b)
        done = done | (f == 0) | (~f.isnan() & ~fb.isnan() & ((limit > 0.5) | stuck))
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        smooth = (phi.square() < xi) & ((1 - phi).square() < 1 - xi)
        step = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        t = torch.where(smooth & step.isfinite(), step, 0.5)
        limit = limit.nan_to_num(nan=0.5).clamp_max(0.5)
        t = torch.minimum(torch.maximum(t, limit), 1 - limit)
    if stands_for_many(done):
        return torch.where(finite, torch.where(done, best, torch.nan), z)
    raise failure(where, ~done, f, f"a root within {iterations} evaluations")


_PATIENCE = 20
"""Steps of Newton's method after which rounding, not the distance to the root, is assumed to determine f(x) − z."""

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

    A Newton step is taken if it stays in the bracket and is at most half as long as the previous step; otherwise
    the bracket is halved. Convergence is quadratic near the root and never slower than bisection. The iteration of
    an element stops when f(x) equals z up to rounding, |f(x) − z| ≤ 4 ε (|z| + |x f'(x)|), or when its bracket
    contains no further floating-point number. Near a root at zero, rounding inside f may exceed this bound; after
    20 steps, an error in x of 4 ε times the width of the given bracket suffices. A converged element is no longer
    updated, so that the result of a row does not depend on the rest of the batch.

    The result has no gradient. To differentiate it, add a Newton step under autograd: ∂x/∂z = 1/f'(x).

    Args:
        function: the map from x to (f(x), f'(x)).
        z: the target values, of any shape; NaN and infinities are returned unchanged.
        lower: lower ends of the brackets, with the shape of z; a bracket is expanded until it contains the root.
        upper: upper ends, likewise.
        start: the initial iterate, with the shape of z; the midpoint of the bracket by default.
        where: the name of the caller, for error messages.
        iterations: the maximum number of steps.
        expansions: the maximum number of expansions of the bracket.

    Returns:
        The roots, with the shape of z.

    Raises:
        ConvergenceError: no bracket or no root was found for some elements. Under ``vmap``, where values cannot be
            inspected, these elements are NaN instead.

    Example:
        >>> import torch
        >>> z = torch.tensor([8.0, -27.0])
        >>> x = invert_increasing(lambda x: (x**3, 3 * x**2), z, -torch.ones(2), torch.ones(2))
        >>> torch.allclose(x, torch.tensor([2.0, -3.0]))
        True
    """
    finite = z.isfinite()
    eps, tiny = torch.finfo(z.dtype).eps, torch.finfo(z.dtype).tiny
    unit = upper - lower
    lower, upper = bracketed(lambda x: function(x)[0], torch.where(finite, z, 0.0), lower, upper, where, expansions)
    x = (lower / 2 + upper / 2) if start is None else torch.minimum(torch.maximum(start, lower), upper)
    last_step = 2 * (upper - lower)  # allows a first step to anywhere in the bracket
    done = ~finite
    residual = torch.zeros_like(z)
    for step in range(iterations):
        value, slope = function(x)
        residual = value - z
        lower = torch.where(residual < 0, x, lower)
        upper = torch.where(residual > 0, x, upper)
        middle = lower / 2 + upper / 2
        size = x.abs() if step < _PATIENCE else torch.maximum(x.abs(), unit)
        done = done | (residual.abs() <= 4 * eps * (z.abs() + slope * size) + tiny)
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


RootSolver = Literal["newton", "bisection", "chandrupatla"]
"""Bracketed Newton's method; bisection; or Chandrupatla's method, which needs no derivatives."""


def implicit_inverse(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    z: Tensor,
    lower: Tensor,
    upper: Tensor,
    *,
    where: str,
    solver: RootSolver = "newton",
) -> tuple[Tensor, Tensor]:
    """x with f(x) = z and −log f'(x), with the derivatives of the exact inverse, up to the third: ∂x/∂z = 1/f', ….

    Args:
        function: an elementwise map from x to (f(x), log f'(x)), increasing from −∞ to ∞; autograd tracks its
            parameters.
        z: the target values.
        lower: lower ends of the brackets, with the shape of z; a bracket is expanded until it contains the root.
        upper: upper ends, likewise.
        where: the name of the caller, for error messages.
        solver: the method; the result is the same up to rounding.

    Returns:
        x and the log-slope of the inverse in nats, both with the shape of z.

    Raises:
        ConfigError: an unknown solver.
        ConvergenceError: no root was found for some elements.

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
    x = root
    for _ in range(2):
        # A Newton step from the root is zero up to rounding, and only carries derivatives: those of first order after
        # one step, of third order after two. It overflows where f is flat to the last bit; infinite roots are kept.
        value, log_slope = function(x)
        step = (value - z) * (-log_slope).exp()
        x = x - torch.where(root.isfinite() & step.isfinite(), step - step.detach(), 0.0)
    return x, -function(x)[1]
