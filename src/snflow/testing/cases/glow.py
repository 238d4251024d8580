"""The layers of Glow."""

from __future__ import annotations

import torch

from snflow.bijections import ActNorm, AffineCoupling, Bijection, Chain, Conv2d, LeakyReLU, Split, Squeeze
from snflow.testing.case import Case, perturbed


def _levels() -> Bijection:
    """Three levels of scale on a 1×8×8 image: each split holds the next."""
    third = Split((4, 2, 2), Conv2d(2, 1))
    second = Chain([Squeeze(), Conv2d(8, 1), Split((8, 2, 2), third)])
    return Chain([Squeeze(), AffineCoupling(4, 3), Split((4, 4, 4), second)])


CASES: dict[str, Case] = {
    "ActNorm": Case(perturbed(lambda: ActNorm(3)), (3, 4, 2)),
    "ActNorm (vectors)": Case(perturbed(lambda: ActNorm(4, vectors=True)), (4,)),
    "AffineCoupling": Case(perturbed(lambda: AffineCoupling(4, 5), 0.3), (4, 3, 4)),
    "AffineCoupling (odd, another network)": Case(
        perturbed(lambda: AffineCoupling(3, conditioner=torch.nn.Conv2d(1, 4, 3, padding=1)), 0.3), (3, 1, 2)
    ),
    "Split": Case(perturbed(lambda: Split((4, 2, 3), Conv2d(2, 1)), 0.3), (4, 2, 3)),
    "Split (odd)": Case(perturbed(lambda: Split((3, 1, 2), LeakyReLU()), 0.3), (3, 1, 2)),
    "Chain (three levels of Split)": Case(perturbed(_levels), (1, 8, 8)),
}
"""Named layers, several a class where an option changes the path."""
