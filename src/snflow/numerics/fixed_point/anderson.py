"""Anderson's acceleration."""

from __future__ import annotations

import torch
from torch import Tensor

from snflow.numerics.fixed_point.rows import RowMap, default_tolerance, expand, failure, row_error

_RIDGE = 1e-12
"""Relative size of what keeps the small systems solvable when steps become parallel."""


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
    """x ← Σ αᵢ f(xᵢ), α the affine weights that make Σ αᵢ (f(xᵢ) − xᵢ) least, each row by itself (Anderson 1965).

    For an affine f it is GMRES: far fewer evaluations than :func:`picard` where the Lipschitz constant is near one. A
    step whose error is more than twice the smallest so far is replaced by the plain one from the best point, so that
    a contraction converges in any case. A row that is done does not move any more.

    Args:
        function: f, of rows, each by itself.
        start: x₀, with shape ``(batch, *event)``. A row with a NaN or an infinity is given back as it is.
        memory: how many points are weighed.
        tolerance: of each row, relative to max(1, |x|); sixteen roundings by default.
        iterations: the most evaluations of f.
        where: the caller, for the error.

    Returns:
        The fixed points, with shape ``(batch, *event)``; no gradient flows through them.

    Raises:
        ConvergenceError: some rows did not settle; it says how many and by how much.

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
        better = ~done & (error < least)
        least = torch.where(better, error, least)
        best = torch.where(expand(better, x), x, best)
        best_image = torch.where(expand(better, x), image, best_image)
        # the image of a point within the tolerance is nearer still
        settled = ~done & (error <= tolerance)
        x = torch.where(expand(settled, x), image, x)
        done = done | settled
        lost = error > 2 * least
        points.append(torch.where(expand(lost, x), best, x))
        images.append(torch.where(expand(lost, x), best_image, image))
        points, images = points[-memory:], images[-memory:]
        following = torch.where(expand(lost, x), best_image, _mixed(points, images))
        x = torch.where(expand(done, x), x, following)
    if bool(done.all()):
        return x
    raise failure(where, ~done, least, iterations)


def _mixed(points: list[Tensor], images: list[Tensor]) -> Tensor:
    """Weigh the images so that the weighed residual is least, by the normal equations of residual differences."""
    residuals = torch.stack([(i - p).flatten(1) for p, i in zip(points, images, strict=True)], 1)
    values = torch.stack([i.flatten(1) for i in images], 1)
    if len(points) == 1:
        return images[0]
    differences = residuals[:, :-1] - residuals[:, -1:]
    # a product a row, summed in the same order whatever the batch
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
