"""Any pair of networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snflow.bijections import Bijection
from snflow.nets import ResidualMLP
from snflow.selfnorm import SelfNormalizing
from snflow.testing.case import Case, perturbed


class _Bend(nn.Module):
    """x + 0.3 tanh x: a slope between 1 and 1.3."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.3 * torch.tanh(x)


def _images() -> Bijection:
    """Convolutions that stay near the identity: Newton's method finds the way back."""
    nets = []
    for _ in range(2):
        conv = nn.Conv2d(1, 1, 3, padding=1)
        nn.init.dirac_(conv.weight)
        nets.append(nn.Sequential(conv, _Bend()))
    return SelfNormalizing(nets[0], nets[1], (1, 3, 4))


CASES: dict[str, Case] = {
    "SelfNormalizing": Case(
        perturbed(lambda: SelfNormalizing(ResidualMLP(3, 8, 1), ResidualMLP(3, 8, 1), (3,)), 0.05), (3,)
    ),
    "SelfNormalizing (images, another activation)": Case(perturbed(_images, 0.02), (1, 3, 4)),
    "SelfNormalizing (linear)": Case(
        perturbed(lambda: SelfNormalizing(nn.Linear(2, 2), nn.Linear(2, 2), (2,)), 0.05), (2,)
    ),
}
"""Named layers, several a class where an option changes the path."""
