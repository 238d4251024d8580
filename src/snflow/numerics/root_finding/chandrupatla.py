"""Chandrupatla's method."""

from __future__ import annotations

import torch
from torch import Tensor

from snflow.numerics.root_finding.bracket import Increasing, bracketed, failure
from snflow.numerics.transforms import is_known_true, stands_for_many


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
    """x with f(x) = z, elementwise: inverse quadratic interpolation where three points allow it, halving elsewhere.

    It needs no slope, and about a dozen evaluations for a smooth f; for any other no more than a few times those of
    :func:`bisect`. An element that is done does not move any more.

    Args:
        function: f, elementwise and increasing.
        z: what it shall equal, of any shape. NaN gives NaN, and an infinity the same infinity.
        lower: where to look, with the shape of z; the bracket grows until it holds the root.
        upper: the other end, likewise, not below ``lower``.
        tolerance: relative error of the root; two roundings by default.
        where: the caller, for the error.
        iterations: the most evaluations.
        expansions: the most times that the bracket doubles.

    Returns:
        The roots, with the shape of z.

    Raises:
        ConvergenceError: some elements found no bracket or no root; under ``vmap``, which hides values, they are NaN.

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
    # an end may be the root itself, or f NaN there, which halving would never meet again
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
