"""Piecewise flows with discrete branches: RAD."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from snflow.distributions.base import BaseDensity
from snflow.nets import MLP
from snflow.numerics.events import sum_event

_BRANCHES = 3


@final
class FoldedDensity(BaseDensity):
    """log p(x) = log p(z) + Σᵢ log g(kᵢ | z), z = fold(x): a map that is three to one, and the branch a random choice.

    fold(x) is x + 2a left of −a, −x in between and x − 2a right of a: the same z comes from three places, and the gate
    g, a network, says with which probability from each. What one normal cannot hold together comes apart without a
    bridge. |fold'| = 1, so that there is no log-determinant. The density may jump at ±a, where branches meet.

    To go on with a flow, make it the base of one: ``Flow(bijection, FoldedDensity(StandardNormal((2,))))``.

    Args:
        base: p(z), of vectors.
        width: features inside of the gate's network.
        depth: hidden layers of it.

    Attributes:
        raw_fold: a = softplus of it, with shape ``(D,)``; a = 1 at first.

    References:
        Dinh et al. (2019), A RAD approach to deep mixture models, eq. 4 and section 3.

    Example:
        >>> import torch, snflow
        >>> density = FoldedDensity(snflow.StandardNormal((2,)))
        >>> density.log_prob(density.sample(5)).shape
        torch.Size([5])
    """

    def __init__(self, base: BaseDensity, width: int = 32, depth: int = 2) -> None:
        super().__init__(base.event_shape)
        (features,) = base.event_shape
        self.base = base
        self.raw_fold = nn.Parameter(torch.full((features,), 0.5413248546129181))
        self.gate = MLP(features, _BRANCHES * features, width, depth)

    def _log_prob(self, z: Tensor) -> Tensor:
        x, a = z, F.softplus(self.raw_fold)
        branch = (x > -a).long() + (x > a).long()
        shift = 2 * a * (1 - branch)
        folded = torch.where(branch == 1, -x, x + shift)
        log_gate = self._log_gate(folded, a).gather(1, branch.unsqueeze(1)).squeeze(1)
        return self.base.log_prob(folded) + sum_event(log_gate)

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        z = self.base.rsample(n, temperature, generator=generator)
        a = F.softplus(self.raw_fold)
        weights = self._log_gate(z, a).exp().transpose(1, 2).reshape(-1, _BRANCHES).detach()
        branch = torch.multinomial(weights, 1, generator=generator).view(z.shape) if n else z.long()
        return torch.where(branch == 1, -z, z - 2 * a * (1 - branch))

    def _log_gate(self, z: Tensor, a: Tensor) -> Tensor:
        """log g ``(batch, 3, D)``; a branch that does not reach z has −∞."""
        logits = self.gate(z).unflatten(1, (_BRANCHES, -1))
        reached = torch.stack([z <= a, z.abs() <= a, z >= -a], 1)
        # A NaN is reached by no branch: leave it to the base density to say so.
        return torch.log_softmax(torch.where(reached | z.isnan().unsqueeze(1), logits, -torch.inf), 1)
