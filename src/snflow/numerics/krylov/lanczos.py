"""The direction in which a linear map stretches most, by Lanczos' method."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def leading_direction(
    gram: Callable[[Tensor], Tensor], start: Tensor, *, steps: int = 16, cycles: int = 1, tolerance: float = 0.0
) -> Tensor:
    """Argmax over ‖v‖ = 1 of ⟨v, AᵀA v⟩: the Ritz vector of a Krylov space, begun again from itself.

    Power iteration needs many hundred products where the largest singular values lie close together, as those of a
    convolution do; a Krylov space of sixteen is as near. The error of σ², relative, is at most the tolerance, and
    usually its square.

    Args:
        gram: v ↦ AᵀA v, of the shape of ``start``.
        start: a guess, of any shape; its neighbourhood is found sooner.
        steps: dimension of a Krylov space, each a product.
        cycles: how often it is begun again at most.
        tolerance: ‖AᵀA v − σ² v‖ / σ² that is small enough.

    Returns:
        v, with the shape of ``start`` and norm one; ``start`` itself where AᵀA v is zero or not finite.

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


def _ritz(gram: Callable[[Tensor], Tensor], v: Tensor, steps: int) -> tuple[Tensor, float] | None:
    """The best direction in the Krylov space of v, and its relative residual."""
    basis = v.reshape(1, -1)
    diagonal: list[Tensor] = []
    off: list[Tensor] = []
    tiny = torch.finfo(v.dtype).eps
    for _ in range(min(steps, v.numel())):
        image = gram(basis[-1].view_as(v)).flatten()
        diagonal.append(basis[-1] @ image)
        for _ in range(2):  # once leaves rounding behind that the next products would grow
            image = image - (basis @ image) @ basis
        off.append(image.norm())
        if not bool(off[-1] > tiny * diagonal[0]):  # the space is closed; false for NaN too
            break
        basis = torch.cat([basis, (image / off[-1])[None]])
    used = len(diagonal)
    between = torch.stack(off)[: used - 1]
    tridiagonal = torch.stack(diagonal).diag() + between.diag(1) + between.diag(-1)
    if not bool(tridiagonal.isfinite().all()) or not bool(diagonal[0] > 0):
        return None
    values, vectors = torch.linalg.eigh(tridiagonal)
    best = vectors[:, -1]
    residual = float(off[-1] * best[-1].abs() / values[-1])
    direction = best @ basis[:used]
    return (direction / direction.norm()).view_as(v), residual
