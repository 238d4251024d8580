"""Fixed points by Picard and Anderson iterations, with implicit gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from snflow.errors import ConvergenceError
from snflow.numerics.implicit import implicit_solution

RowMap = Callable[[Tensor], Tensor]
"""A map from ``(batch, *event)`` to the same shape, applied to each row independently."""


def default_tolerance(dtype: torch.dtype) -> float:
    """Sixteen machine epsilons, relative to max(1, |x|) of a row."""
    return 16 * torch.finfo(dtype).eps


def row_error(x: Tensor, image: Tensor) -> Tensor:
    """max |f(x) − x| / max(1, max |x|) of each row, with shape ``(batch,)``; zero for rows without elements."""
    if x.numel() == 0:
        return x.new_zeros(x.shape[0])
    size = x.flatten(1).abs().amax(1).clamp_min(1.0)
    return (image - x).flatten(1).abs().amax(1) / size


def expand(rows: Tensor, like: Tensor) -> Tensor:
    """Reshape one number per row to ``(batch, 1, …)``."""
    return rows.reshape(-1, *(1 for _ in like.shape[1:]))


def failure(where: str, failed: Tensor, error: Tensor, iterations: int) -> ConvergenceError:
    """An error that reports how many rows did not converge, and the largest error."""
    worst = error[failed].nan_to_num(nan=torch.inf).max().item()
    return ConvergenceError(
        where,
        expected=f"a fixed point within {iterations} iterations",
        got=f"none for {int(failed.sum())} of {failed.numel()} rows, |f(x) - x| up to {worst:.3g} of max(1, |x|)",
        fix="the map must be a contraction: bound its Lipschitz constant, allow more iterations, or use float64",
    )


@torch.no_grad()
def picard(
    function: RowMap,
    start: Tensor,
    *,
    tolerance: float | None = None,
    accepted: float = 0.0,
    iterations: int = 1000,
    where: str = "picard",
) -> Tensor:
    """x ← f(x) until max |f(x) − x| ≤ tolerance · max(1, |x|), for each row (Banach 1922).

    If f has a Lipschitz constant L < 1, each iteration reduces the error by a factor of L, and the remaining error is
    at most L/(1 − L) times the last step. A converged row is no longer updated, so that its result does not depend on
    the other rows.

    Args:
        function: f, applied to each row independently.
        start: x₀, with shape ``(batch, *event)``. A row with a NaN or an infinity is returned unchanged.
        tolerance: error tolerance of each row, relative to max(1, |x|); sixteen machine epsilons by default.
        accepted: the error at which a row that no longer improves has converged too, because rounding inside f exceeds
            the tolerance.
        iterations: the maximum number of evaluations of f.
        where: the name of the caller, for error messages.

    Returns:
        The fixed points, with shape ``(batch, *event)``; no gradient flows through them.

    Raises:
        ConvergenceError: some rows did not converge; the message gives their number and the largest error.

    Example:
        >>> import torch
        >>> picard(torch.cos, torch.zeros(1, 1, dtype=torch.float64)).item()
        0.739085133215161...
    """
    tolerance = default_tolerance(start.dtype) if tolerance is None else tolerance
    x, error = start.clone(), start.new_full((start.shape[0],), torch.inf)
    done = ~start.flatten(1).isfinite().all(1) if start.numel() else torch.ones_like(error, dtype=torch.bool)
    for _ in range(iterations):
        if bool(done.all()):
            return x
        image = function(x)
        before, error = error, torch.where(done, error, row_error(x, image))
        x = torch.where(expand(done, x), x, image)
        done = done | (error <= tolerance) | ((error <= accepted) & (error >= before))
    if bool(done.all()):
        return x
    raise failure(where, ~done, error, iterations)


_RIDGE = 1e-12
"""Relative ridge that keeps the small linear systems regular when steps become parallel."""


@torch.no_grad()
def anderson(
    function: RowMap,
    start: Tensor,
    *,
    memory: int = 5,
    tolerance: float | None = None,
    iterations: int = 200,
    where: str = "anderson",
) -> Tensor:
    """x ← Σ αᵢ f(xᵢ), α the affine weights that minimize ‖Σ αᵢ (f(xᵢ) − xᵢ)‖, for each row (Anderson 1965).

    For an affine f this is equivalent to GMRES: it needs far fewer evaluations than :func:`picard` if the Lipschitz
    constant is near one. A step whose residual exceeds twice the smallest so far, in the 2-norm, is replaced by the
    Picard step from the best point, and earlier points are forgotten: the iteration converges for every contraction in
    that norm, with at most twice as many evaluations as :func:`picard`. A converged row is no longer updated.

    Args:
        function: f, applied to each row independently.
        start: x₀, with shape ``(batch, *event)``. A row with a NaN or an infinity is returned unchanged.
        memory: number of points that are combined in a step.
        tolerance: error tolerance of each row, relative to max(1, |x|); sixteen machine epsilons by default.
        iterations: the maximum number of evaluations of f.
        where: the name of the caller, for error messages.

    Returns:
        The fixed points, with shape ``(batch, *event)``; no gradient flows through them.

    Raises:
        ConvergenceError: some rows did not converge; the message gives their number and the largest error.

    References:
        Anderson (1965), Iterative procedures for nonlinear integral equations; Walker & Ni (2011).

    Example:
        >>> import torch
        >>> anderson(torch.cos, torch.zeros(1, 1, dtype=torch.float64)).item()
        0.739085133215160...
    """
    tolerance = default_tolerance(start.dtype) if tolerance is None else tolerance
    if start.numel() == 0:
        return start.clone()
    done = ~start.flatten(1).isfinite().all(1)
    x = start.clone()
    best, best_image = start.clone(), start.clone()
    least = torch.full_like(done, torch.inf, dtype=start.dtype)
    points: list[Tensor] = []
    images: list[Tensor] = []
    for _ in range(iterations):
        if bool(done.all()):
            return x
        image = function(x)
        error = row_error(x, image).nan_to_num(nan=torch.inf)
        size = (image - x).flatten(1).norm(dim=1).nan_to_num(nan=torch.inf)
        better = ~done & (size < least)
        least = torch.where(better, size, least)
        best = torch.where(expand(better, x), x, best)
        best_image = torch.where(expand(better, x), image, best_image)
        # the image of a point within the tolerance is even closer to the fixed point
        settled = ~done & (error <= tolerance)
        x = torch.where(expand(settled, x), image, x)
        done = done | settled
        points, images = [*points, x][-memory:], [*images, image][-memory:]
        lost = ~done & ~(size <= 2 * least)
        if bool(lost.any()):  # otherwise the next mixture of the same points would be lost again
            points = [torch.where(expand(lost, x), best, point) for point in points]
            images = [torch.where(expand(lost, x), best_image, kept) for kept in images]
        following = torch.where(expand(lost, x), best_image, _mixed(points, images))
        x = torch.where(expand(done, x), x, following)
    if bool(done.all()):
        return x
    raise failure(where, ~done, row_error(best, best_image), iterations)


def _mixed(points: list[Tensor], images: list[Tensor]) -> Tensor:
    """Combine the images such that the combined residual is minimal, by normal equations for residual differences."""
    residuals = torch.stack([(i - p).flatten(1) for p, i in zip(points, images, strict=True)], 1)
    values = torch.stack([i.flatten(1) for i in images], 1)
    if len(points) == 1:
        return images[0]
    differences = residuals[:, :-1] - residuals[:, -1:]
    # one product per row, summed in an order that does not depend on the batch
    gram = (differences[:, :, None] * differences[:, None]).sum(-1)
    right = -(differences * residuals[:, -1:]).sum(-1)
    scale = gram.diagonal(dim1=1, dim2=2).amax(1).clamp_min(torch.finfo(gram.dtype).tiny)
    ridge = _RIDGE * scale[:, None, None] * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    finite = gram.isfinite().all(-1).all(-1) & right.isfinite().all(-1)
    safe = torch.where(finite[:, None, None], gram + ridge, torch.eye(gram.shape[1], dtype=gram.dtype))
    weights, _ = torch.linalg.solve_ex(safe, torch.where(finite[:, None], right, 0.0))
    mixed = values[:, -1] + (weights[..., None] * (values[:, :-1] - values[:, -1:])).sum(1)
    usable = finite & mixed.isfinite().all(1)
    return torch.where(usable[:, None], mixed, values[:, -1]).reshape(images[0].shape)


Solver = Callable[..., Tensor]
"""``picard``, ``anderson``, or a function with the same arguments."""


def implicit_fixed_point(
    function: RowMap,
    start: Tensor,
    *,
    solver: Solver = anderson,
    where: str = "implicit_fixed_point",
    **options: float | int | None,
) -> Tensor:
    """x = f(x), with dx = (I − ∂f/∂x)⁻¹ df: the gradient of the exact solution with respect to all that f depends on.

    The backward pass solves u = v + (∂f/∂x)ᵀ u by the same iteration, with one vector-Jacobian product of f per step;
    the graph of the forward iterations is not stored.

    Args:
        function: f, applied to each row of ``(batch, *event)`` independently; autograd tracks its parameters and
            inputs.
        start: x₀, with the same shape; no gradient flows to it.
        solver: the method, used for the solution and for u.
        where: the name of the caller, for error messages.
        options: ``tolerance``, ``iterations`` and ``memory`` of the solver.

    Returns:
        The fixed points, with shape ``(batch, *event)``.

    Raises:
        ConvergenceError: some rows did not converge, in the forward or in the backward pass.

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
