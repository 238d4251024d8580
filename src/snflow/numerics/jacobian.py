"""Jacobians: products, determinants, Newton's method, and estimates of log-determinants."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from snflow.numerics.krylov import lanczos
from snflow.numerics.probes import sum_event
from snflow.numerics.undifferentiable import once_only

Map = Callable[[Tensor], Tensor]

# torch counts the levels of forward-mode differentiation for the whole process, not for each thread
_one_level = threading.RLock()

TANGENTS = 64
"""Number of columns of a Jacobian that are computed at once, to limit memory."""


def along(function: Map, x: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
    """f(x) and J_f(x) v, by forward-mode differentiation; both are differentiable.

    Args:
        function: f, applied to each row independently, from ``(batch, *event)`` to ``(batch, *latent)``.
        x: the points of evaluation, with shape ``(batch, *event)``.
        tangent: v, with the shape of x.

    Returns:
        The value and the directional derivative, each with shape ``(batch, *latent)``.

    Example:
        >>> along(torch.square, torch.tensor([[3.0]]), torch.tensor([[1.0]]))
        (tensor([[9.]]), tensor([[6.]]))
    """
    with _one_level:
        pushed = torch.func.jvp(function, (x,), (tangent,))
    return pushed[0], pushed[1]


def pulled(function: Map, x: Tensor) -> tuple[Tensor, Map]:
    """f(x) and v ↦ J_f(x)ᵀ v, by reverse-mode differentiation; neither is differentiable.

    Args:
        function: f, applied to each row independently.
        x: the points of evaluation, with shape ``(batch, *event)``.

    Returns:
        The value, and a function that computes the product.

    Example:
        >>> value, pull = pulled(torch.square, torch.tensor([[3.0]]))
        >>> pull(torch.ones(1, 1))
        tensor([[6.]])
    """
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        value = function(leaf)

    def pull(v: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(value, leaf, v, retain_graph=True)
        return product

    return value.detach(), pull


def jacobian(function: Map, x: Tensor) -> Tensor:
    """J_f(x), one matrix per row: D directional derivatives, 64 at a time.

    Args:
        function: f, applied to each row independently, from ``(batch, *event)`` to ``(batch, *event)``.
        x: the points of evaluation, with shape ``(batch, *event)`` and D elements per event.

    Returns:
        The Jacobians, with shape ``(batch, D, D)``, differentiable in x and in the parameters of f.

    Example:
        >>> jacobian(torch.square, torch.tensor([[3.0, 4.0]]))
        tensor([[[6., 0.],
                 [0., 8.]]])
    """
    size = x[0].numel() if len(x) else math.prod(x.shape[1:])
    if not len(x):
        return x.new_zeros(0, size, size)
    units = torch.eye(size, dtype=x.dtype, device=x.device).view(size, *x.shape[1:])

    def column(unit: Tensor) -> Tensor:
        return along(function, x, unit.expand_as(x))[1]

    columns: Tensor = torch.func.vmap(column, chunk_size=TANGENTS, randomness="different")(units)
    return columns.flatten(2).permute(1, 2, 0)


def jacobian_of(value: Tensor, x: Tensor) -> Tensor:
    """J, one matrix per row, of a value computed from x under autograd: D vector-Jacobian products.

    For few elements this is the fastest method in training, where the value is needed as well.

    Args:
        value: f(x), computed for each row independently, with shape ``(batch, *event)`` and a graph that includes x.
        x: the points of evaluation, with shape ``(batch, *event)`` and D elements per event.

    Returns:
        The Jacobians, with shape ``(batch, D, D)``, differentiable if gradients are enabled.

    Example:
        >>> x = torch.tensor([[3.0, 4.0]], requires_grad=True)
        >>> jacobian_of(x.square(), x).detach()
        tensor([[[6., 0.],
                 [0., 8.]]])
    """
    graph = torch.is_grad_enabled()
    units = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device).view(-1, *x.shape[1:])
    rows = [
        torch.autograd.grad(value, x, unit.expand_as(x), create_graph=graph, retain_graph=True)[0] for unit in units
    ]
    return torch.stack(rows, 1).flatten(2)


def jacobian_log_det(function: Map, x: Tensor) -> Tensor:
    """log|det J_f(x)| in nats, with shape ``(batch,)``: exact, O(D³) per row.

    Example:
        >>> jacobian_log_det(torch.exp, torch.tensor([[1.0, 2.0]]))
        tensor([3.])
    """
    log_abs_det: Tensor = torch.linalg.slogdet(jacobian(function, x)).logabsdet
    return log_abs_det


def lanczos_log_det(function: Map, x: Tensor, probes: Tensor, steps: int = 30) -> Tensor:
    """½ tr log(JᵀJ) = log|det J_f(x)|, estimated by stochastic Lanczos quadrature, without a gradient.

    For each probe ν, the Lanczos recursion for JᵀJ, started from ν, gives a small tridiagonal matrix T with
    νᵀ log(JᵀJ) ν ≈ ‖ν‖² e₁ᵀ log(T) e₁. The mean over probes has the variance of Hutchinson's estimator, at most
    2‖log(JᵀJ)/2‖_F² divided by the number of probes. The quadrature error decreases geometrically with the number of
    steps, more slowly for an ill-conditioned J.

    Args:
        function: f, applied to each row independently.
        x: the points of evaluation, with shape ``(batch, *event)``.
        probes: ν, with shape ``(probes, batch, *event)`` and E ννᵀ = I.
        steps: number of steps of the recursion; with D steps the quadrature is exact.

    Returns:
        Estimates in nats, with shape ``(batch,)``.

    References:
        Ubaru, Chen, Saad (2017), Fast estimation of tr(f(A)) via stochastic Lanczos quadrature.

    Example:
        >>> ones = torch.ones(1, 1, 3)
        >>> lanczos_log_det(lambda x: 2 * x, torch.zeros(1, 3), ones)
        tensor([2.0794])
    """
    with torch.no_grad():
        pull = pulled(function, x)[1]

        def gram(v: Tensor) -> Tensor:
            image: Tensor = pull(along(function, x, v.view_as(x))[1])
            return image.flatten(1)

        estimates = [_quadrature(gram, probe.flatten(1), min(steps, x[0].numel())) for probe in probes]
        return torch.stack(estimates).mean(0)


def _quadrature(gram: Map, start: Tensor, steps: int) -> Tensor:
    """½ ‖ν‖² e₁ᵀ log(T) e₁ of the Lanczos matrix T, with shape ``(batch,)``."""
    values, vectors = torch.linalg.eigh(lanczos(gram, start, steps)[1])
    # a recursion that terminates early gives zero eigenvalues, whose weights are zero
    weights: Tensor = vectors[:, 0].square()
    logs: Tensor = values.clamp_min(torch.finfo(start.dtype).tiny).log()
    estimate: Tensor = 0.5 * start.square().sum(1) * torch.where(weights > 1e-12, weights * logs, 0.0).sum(1)
    return estimate


def newton_solve(
    function: Map, target: Tensor, start: Tensor, step: Callable[[Tensor, Tensor], Tensor], max_iterations: int = 50
) -> tuple[Tensor, Tensor]:
    """x ← x + t Δ, Δ ≈ J_f(x)⁻¹ (y − f(x)), with t halved until ‖y − f(x)‖ decreases, for each row.

    Args:
        function: f, applied to each row independently.
        target: y, with shape ``(batch, *event)``.
        start: the initial x, with the same shape.
        step: (x, residual) ↦ Δ.
        max_iterations: the maximum number of steps.

    Returns:
        x, and the relative residual ‖y − f(x)‖ / max(1, ‖y‖) of each row, with shape ``(batch,)``. The iteration of a
        row stops when it reaches 10 · (machine epsilon)^0.9, or when no step reduces it.

    Example:
        >>> y, one = torch.tensor([[9.0]]), torch.ones(1, 1)
        >>> newton_solve(torch.square, y, one, lambda x, r: r / (2 * x))[0]
        tensor([[3.]])
    """
    tolerance = 10 * torch.finfo(target.dtype).eps ** 0.9
    scale = _norm(target).clamp_min(1)
    x = start
    residual = target - function(x)
    size = _norm(residual) / scale
    for _ in range(max_iterations):
        open_rows = ~(size <= tolerance)
        if not bool(open_rows.any()):
            break
        change = torch.nan_to_num(step(x, residual), nan=0.0, posinf=0.0, neginf=0.0)
        nearer = torch.zeros_like(open_rows)
        for _ in range(12):
            proposal = x + change
            left = target - function(proposal)
            now = _norm(left) / scale
            better = open_rows & ~nearer & ((now < size) | ~torch.isfinite(size))
            at = better.view(-1, *[1] * (x.dim() - 1))
            x, residual, size = (
                torch.where(at, proposal, x),
                torch.where(at, left, residual),
                torch.where(better, now, size),
            )
            nearer |= better
            if bool((nearer | ~open_rows).all()):
                break
            change = change / 2
        if not bool(nearer.any()):
            break
    return x, size


def _norm(rows: Tensor) -> Tensor:
    return sum_event(rows.square()).sqrt()


def roulette_weights(certain: int, stop: float = 0.5) -> list[float]:
    """1 / P(N ≥ k) for k = 1 … N, with N − certain geometrically distributed: weights of a randomly truncated series.

    The expectation of the weighted sum of N terms is the infinite series.

    Args:
        certain: number of terms that are always included.
        stop: probability of stopping after each further term.

    Returns:
        N weights, with N drawn from the global generator of torch.

    References:
        Chen et al. (2019), Residual flows for invertible generative modeling, eq. 6; Kahn (1955).

    Example:
        >>> roulette_weights(3)[:3]
        [1.0, 1.0, 1.0]
    """
    further = int(torch.empty(()).geometric_(stop).item()) - 1
    return [1.0] * certain + [(1 - stop) ** -k for k in range(1, further + 1)]


def series_log_det(function: Map, x: Tensor, probes: Tensor, weights: list[float]) -> tuple[Tensor, Tensor]:
    """g(x) and the mean over ν of Σₖ wₖ (−1)ᵏ⁺¹/k · νᵀJᵏν, with the gradient Σₖ wₖ (−1)ᵏ⁺¹ νᵀJᵏ⁻¹ ∂J ν.

    With wₖ = 1 this is the truncated series of log|det(I + J)|, which is biased; with :func:`roulette_weights` it is
    unbiased, and so is its gradient, a Neumann series of tr((I + J)⁻¹ ∂J). The vectors νᵀJᵏ are computed without a
    graph, so that memory does not grow with the number of terms.

    Args:
        function: g, applied to each row independently, with ‖J_g‖ < 1.
        x: the points of evaluation, with shape ``(batch, *event)``.
        probes: ν, with shape ``(probes, batch, *event)`` and E ννᵀ = I.
        weights: wₖ, at least one.

    Returns:
        g(x) with the shape of x, and estimates in nats with shape ``(batch,)``, both differentiable if gradients are
        enabled.

    References:
        Behrmann et al. (2019), Invertible residual networks, eq. 4; Chen et al. (2019), Residual flows, eq. 6 and 8.

    Example:
        >>> x, ones = torch.zeros(1, 2), torch.ones(1, 1, 2)
        >>> value = series_log_det(lambda x: 0.5 * x, x, ones, [1.0] * 30)[1]
        >>> torch.allclose(value, 2 * torch.tensor([1.5]).log())
        True
    """
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        at = x if x.requires_grad else x.detach().requires_grad_()
        image = function(at)
        value = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        carried = torch.zeros_like(value)
        for probe in probes:
            power = probe
            left = torch.zeros_like(probe)
            for k, weight in enumerate(weights, 1):
                sign = weight if k % 2 else -weight
                left = left + sign * power
                (power,) = torch.autograd.grad(image, at, power, retain_graph=True)
                value = value + sign / k * sum_event(power * probe)
            if differentiable:
                (pulled,) = torch.autograd.grad(image, at, left, create_graph=True)
                carried = carried + sum_event(pulled * probe)
    value = value.detach() / len(probes)
    if not differentiable:
        return image.detach(), value
    carried = carried / len(probes)
    zero = once_only(image, at, where="the series of a log-determinant", fix="use an exact log-determinant")
    return image, value + (carried - carried.detach()) + zero
