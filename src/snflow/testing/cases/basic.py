"""Element-wise maps, reshaping, free linear maps with exact gradients, and composition."""

from __future__ import annotations

import torch
from torch import Tensor

from snflow.bijections import (
    GDN,
    Affine,
    Bijection,
    Chain,
    Conv2d,
    Dense,
    Flatten,
    Gaussianization,
    Inverse,
    LeakyReLU,
    Logit,
    Planar,
    RationalQuadraticSpline,
    Reversible,
    SmoothLeakyReLU,
    Squeeze,
)
from snflow.bijections.normalization.gaussianization import RotationName
from snflow.selfnorm import SelfNormalizingConv2d
from snflow.testing.case import Case, perturbed


def _fitted(rotation: RotationName) -> Bijection:
    layer = Gaussianization(3, 6, rotation)
    return layer.fit(torch.randn(400, 3) @ torch.randn(3, 3) + torch.rand(400, 3).exp())


def _unit(*size: int, dtype: torch.dtype) -> Tensor:
    return torch.rand(*size, dtype=dtype)


def _wide(*size: int, dtype: torch.dtype) -> Tensor:
    """Reaches both tails of a spline with bound 2."""
    return 3 * torch.randn(*size, dtype=dtype)


def _mixed() -> Bijection:
    layers: list[Bijection] = [
        SelfNormalizingConv2d(1),
        SmoothLeakyReLU(),
        Squeeze(),
        Conv2d(4, 1),
        Flatten((4, 2, 2)),
        Dense(16),
    ]
    return Chain(layers)


CASES: dict[str, Case] = {
    "Reversible": Case(perturbed(lambda: Reversible([Dense(3), SmoothLeakyReLU(), Dense(3)])), (3,)),
    "Reversible (context)": Case(
        perturbed(lambda: Reversible([Planar(2, 2), SmoothLeakyReLU(), Planar(2, 2)]), 0.3), (2,)
    ),
    "GDN": Case(perturbed(lambda: GDN(2)), (2, 2, 1)),
    "GDN (vectors)": Case(perturbed(lambda: GDN(3, vectors=True, alpha=1.5, epsilon=0.5)), (3,)),
    "Gaussianization": Case(perturbed(lambda: _fitted("random")), (3,)),
    "Gaussianization (PCA)": Case(perturbed(lambda: _fitted("pca")), (3,)),
    "Affine": Case(lambda: Affine(torch.randn(3), torch.tensor([0.5, -2.0, 3.0])), (3,)),
    "Chain": Case(perturbed(_mixed, 0.05), (1, 4, 4)),
    "Chain (empty)": Case(lambda: Chain([]), (3,)),
    "Conv2d": Case(perturbed(lambda: Conv2d(2)), (2, 4, 5)),
    "Conv2d (1×1, no bias)": Case(perturbed(lambda: Conv2d(3, 1, bias=False)), (3, 3, 2)),
    "Conv2d (by rows)": Case(perturbed(lambda: Conv2d(2, log_det_rule="exact_by_rows")), (2, 4, 5)),
    "Conv2d (5×5 on 2×2)": Case(perturbed(lambda: Conv2d(2, 5)), (2, 2, 2)),
    "Dense": Case(perturbed(lambda: Dense(5)), (5,)),
    "Dense (relative, orthogonal)": Case(
        perturbed(lambda: Dense(4, log_det_rule="relative", initialization="orthogonal")), (4,)
    ),
    "Flatten": Case(lambda: Flatten((2, 3)), (2, 3)),
    "Inverse": Case(lambda: Inverse(SmoothLeakyReLU()), (4,)),
    "LeakyReLU": Case(lambda: LeakyReLU(0.3), (4,)),
    "Logit": Case(lambda: Logit(1e-6), (3,), sample=_unit, single=1e-3),
    "Logit (wide margin)": Case(lambda: Logit(0.05), (3,), sample=_unit),
    "RationalQuadraticSpline": Case(perturbed(lambda: RationalQuadraticSpline((3,), tail_bound=2.0), 1.0), (3,), _wide),
    "RationalQuadraticSpline (image)": Case(perturbed(lambda: RationalQuadraticSpline((2, 3, 2)), 0.5), (2, 3, 2)),
    "SmoothLeakyReLU": Case(lambda: SmoothLeakyReLU(0.3), (4,), _wide),
    "Squeeze": Case(lambda: Squeeze(2), (2, 4, 6)),
    "Squeeze (by 3)": Case(lambda: Squeeze(3), (1, 6, 3)),
}
"""Named layers, several a class where an option changes the path."""
