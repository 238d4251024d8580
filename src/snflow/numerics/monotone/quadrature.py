"""The integral of a positive function, by Gauss and Legendre's rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def legendre(nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes tᵢ in (0, 1) and weights wᵢ with ∫₀¹ g(t) dt ≈ Σ wᵢ g(tᵢ), exact for polynomials up to degree 2n − 1.

    Returns:
        Nodes and weights in float64, with shape ``(nodes,)`` each.

    Example:
        >>> t, w = legendre(3)
        >>> round(float((w * t**5).sum()), 12)
        0.166666666667
    """
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return torch.from_numpy((points + 1) / 2), torch.from_numpy(weights / 2)


def integral(integrand: Callable[[Tensor], Tensor], x: Tensor, rule: tuple[Tensor, Tensor]) -> Tensor:
    """∫₀ˣ g(t) dt ≈ x Σ wᵢ g(x tᵢ), elementwise.

    Args:
        integrand: g, from ``(nodes, *shape)`` to the same shape.
        x: with shape ``shape``.
        rule: nodes and weights of :func:`legendre`.

    Returns:
        With the shape of x.
    """
    nodes, weights = (t.to(x).reshape(-1, *[1] * x.dim()) for t in rule)
    return x * (weights * integrand(nodes * x)).sum(0)
