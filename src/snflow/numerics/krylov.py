"""Krylov methods: Lanczos, leading singular directions, iterative refinement and GMRES."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from snflow.errors import ConvergenceError
from snflow.numerics.probes import sum_event


@torch.no_grad()
def leading_direction(
    gram: Callable[[Tensor], Tensor], start: Tensor, *, steps: int = 16, cycles: int = 1, tolerance: float = 0.0
) -> Tensor:
    """Argmax over ‖v‖ = 1 of ⟨v, AᵀA v⟩: the leading Ritz vector of a Krylov space, with restarts.

    Power iteration needs several hundred products if the largest singular values are close to each other, as is typical
    of convolutions; a Krylov space of dimension sixteen is as accurate. The relative error of σ² is at most the
    tolerance, and usually its square.

    Args:
        gram: v ↦ AᵀA v, for v with the shape of ``start``.
        start: the initial guess, of any shape.
        steps: dimension of a Krylov space; each dimension costs one product.
        cycles: the maximum number of Krylov spaces.
        tolerance: the value of ‖AᵀA v − σ² v‖ / σ² at which to stop.

    Returns:
        v, with the shape of ``start`` and norm one; ``start`` itself if AᵀA v is zero or not finite.

    References:
        Golub & Van Loan (2013), Matrix computations, section 10.1; Saad (2011), Numerical methods for large eigenvalue
        problems, section 6.3.

    Example:
        >>> import torch
        >>> stretch = torch.tensor([1.0, 3.0, 2.9])
        >>> leading_direction(lambda v: stretch**2 * v, torch.ones(3)).abs().round(decimals=3)
        tensor([0., 1., 0.])
    """
    v: Tensor = start / start.norm()
    for _ in range(cycles):
        found = _ritz(gram, v, steps)
        if found is None:
            return v
        v, residual = found
        if residual <= tolerance:
            break
    return v


def lanczos(gram: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Q and T with AᵀA Q ≈ Q T: an orthonormal basis of the Krylov space of each row, and a tridiagonal matrix.

    Args:
        gram: v ↦ AᵀA v for rows v ``(batch, n)``, applied to each row independently.
        start: the initial vectors, with shape ``(batch, n)``.
        steps: the maximum dimension k of the spaces; k is smaller if all of them are invariant under AᵀA earlier.

    Returns:
        The basis as rows, ``(batch, k, n)``; T, ``(batch, k, k)``; and the norm of the next, unnormalized basis vector,
        ``(batch,)``.

    References:
        Golub & Van Loan (2013), Matrix computations, section 10.1.
    """
    info = torch.finfo(start.dtype)
    basis = [start / start.norm(dim=1, keepdim=True)]
    diagonal: list[Tensor] = []
    between: list[Tensor] = []
    for k in range(steps):
        image = gram(basis[k])
        space = torch.stack(basis, 1)
        diagonal.append((basis[k] * image).sum(1))
        image = _orthogonalized(image, space)
        between.append(image.norm(dim=1))
        if k + 1 == steps or not bool((between[-1] > info.eps * diagonal[0]).any()):  # invariant, or NaN
            break
        basis.append(image / between[-1].clamp_min(info.tiny)[:, None])
    off_diagonal = torch.stack(between, 1)[:, :-1]
    tridiagonal = torch.stack(diagonal, 1).diag_embed() + off_diagonal.diag_embed(1) + off_diagonal.diag_embed(-1)
    return torch.stack(basis, 1), tridiagonal, between[-1]


_MOST_PASSES = 5


def _orthogonalized(rows: Tensor, space: Tensor) -> Tensor:
    """The part of each row orthogonal to its space: Gram–Schmidt until a pass no longer halves the norm.

    The three-term recursion alone loses orthogonality. Two passes suffice unless the row lies in the space up to
    rounding errors; then the rest of a pass is itself dominated by rounding errors, and a vector of the space that
    entered the basis twice would double in each later pass.
    """
    for _ in range(_MOST_PASSES):
        before = rows.norm(dim=1)
        rows = rows - torch.einsum("bk,bkn->bn", torch.einsum("bkn,bn->bk", space, rows), space)
        if not bool((rows.norm(dim=1) < 0.5 * before).any()):
            break
    return rows


def _ritz(gram: Callable[[Tensor], Tensor], v: Tensor, steps: int) -> tuple[Tensor, float] | None:
    """The best direction in the Krylov space of v, and its relative residual."""
    basis, tridiagonal, rest = lanczos(
        lambda rows: gram(rows.view_as(v)).reshape(1, -1), v.reshape(1, -1), min(steps, v.numel())
    )
    if not bool(tridiagonal.isfinite().all()) or not bool(tridiagonal[0, 0, 0] > 0):
        return None
    values, vectors = torch.linalg.eigh(tridiagonal[0])
    best = vectors[:, -1]
    residual = float(rest[0] * best[-1].abs() / values[-1])
    direction = best @ basis[0]
    return (direction / direction.norm()).view_as(v), residual


Linear = Callable[[Tensor], Tensor]

CHECK_EVERY = 5
"""Number of GMRES steps between two checks of the residual; a check costs a small dense solve per row."""


def refine(
    product: Linear,
    approximate_inverse: Linear,
    target: Tensor,
    owner: str,
    *,
    tolerance: float | None = None,
    max_iterations: int = 100,
) -> Tensor:
    """x ← x + G(y − A x) from x = G y, followed by GMRES preconditioned by G if this converges too slowly.

    Args:
        product: x ↦ A x, linear.
        approximate_inverse: y ↦ G y, linear, G ≈ A⁻¹.
        target: y, with shape ``(batch, *event)``.
        owner: the name of the layer, for error messages.
        tolerance: the relative residual ‖y − A x‖ / ‖y‖ to reach; by default 10 · (machine epsilon)^0.9, close to
            the precision of the dtype.
        max_iterations: the maximum number of fixed-point steps, and of GMRES steps.

    Returns:
        x, with the shape of y; each row has reached the tolerance.

    Raises:
        ConvergenceError: some rows did not reach it; the message gives their number and the largest residual.

    References:
        Saad & Schultz (1986), GMRES: a generalized minimal residual algorithm.

    Example:
        >>> import torch
        >>> refine(lambda x: 2 * x, lambda y: 0.4 * y, torch.tensor([[3.0]]), "an example")
        tensor([[1.5000]])
    """
    if tolerance is None:
        tolerance = 10 * torch.finfo(target.dtype).eps ** 0.9
    scale = _norm(target).clamp_min(torch.finfo(target.dtype).tiny)
    x = approximate_inverse(target)
    residual = target - product(x)
    worst = (_norm(residual) / scale).amax() if len(target) else scale.new_zeros(())
    for _ in range(max_iterations):
        if worst <= tolerance:
            return x
        proposal = x + approximate_inverse(residual)
        left = target - product(proposal)
        now = (_norm(left) / scale).amax()
        # if a step does not halve the error, GMRES is faster
        if not now < 0.5 * worst:
            break
        x, residual, worst = proposal, left, now
    x = x + gmres(product, approximate_inverse, residual, tolerance * scale, max_iterations)
    error = _norm(target - product(x)) / scale
    failed = ~(error <= tolerance)
    if bool(failed.any()):
        raise ConvergenceError(
            owner,
            expected=f"a refined inverse with a relative residual of {tolerance:.1e}",
            got=f"{int(failed.sum())} of {len(error)} rows above it, with residuals up to {float(error.amax()):.1e}",
            fix="the learned inverse is too inaccurate: use inverse='exact', or train with a larger penalty weight",
        )
    return x


def gmres(product: Linear, preconditioner: Linear, target: Tensor, tolerance: Tensor, max_iterations: int) -> Tensor:
    """min_u ‖y − A G u‖ over the Krylov space of A G, x = G u: right-preconditioned GMRES for each row.

    Args:
        product: x ↦ A x, linear.
        preconditioner: u ↦ G u, linear.
        target: y, with shape ``(batch, *event)``.
        tolerance: the residual norm at which to stop, with shape ``(batch,)``.
        max_iterations: the maximum dimension of the Krylov space.

    Returns:
        x, with the shape of y: the best solution in the space, whether or not it reaches the tolerance.

    Example:
        >>> import torch
        >>> a = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
        >>> y = torch.tensor([[1.0, 2.0]])
        >>> gmres(lambda x: x @ a.T, lambda u: u, y, torch.full((1,), 1e-9), 2)
        tensor([[1.0000, 1.0000]])
    """
    batch = target.shape[0]
    size = target[0].numel() if batch else 0
    steps = min(max_iterations, size)
    tiny = torch.finfo(target.dtype).tiny
    first = _norm(target)
    basis = [target.flatten(1) / first.clamp_min(tiny)[:, None]]
    hessenberg = target.new_zeros(batch, steps + 1, max(steps, 1))
    u = torch.zeros_like(basis[0])
    for k in range(steps):
        w = product(preconditioner(basis[k].view_as(target))).flatten(1)
        space = torch.stack(basis, 1)
        # Gram–Schmidt twice: after a single pass, orthogonality depends on the condition number
        for _ in range(2):
            along = torch.einsum("bkn,bn->bk", space, w)
            w = w - torch.einsum("bk,bkn->bn", along, space)
            hessenberg[:, : k + 1, k] += along
        length = w.norm(dim=1)
        hessenberg[:, k + 1, k] = length
        basis.append(w / length.clamp_min(tiny)[:, None])
        if (k + 1) % CHECK_EVERY and k + 1 < steps:
            continue
        goal = target.new_zeros(batch, k + 2, 1)
        goal[:, 0, 0] = first
        small = hessenberg[:, : k + 2, : k + 1]
        # the Krylov space of a solved row is rank-deficient: the pseudoinverse gives the minimum-norm solution
        coefficients = torch.linalg.pinv(small) @ goal
        u = torch.einsum("bk,bkn->bn", coefficients[:, :, 0], space)
        if bool(((small @ coefficients - goal).squeeze(-1).norm(dim=1) <= tolerance).all()):
            break
    return preconditioner(u.view_as(target))


def _norm(rows: Tensor) -> Tensor:
    return sum_event(rows.square()).sqrt()
