"""One entry of the catalogue: how to make a layer and what to feed it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from snflow.bijections.base import Bijection, Shape

Sampler = Callable[..., Tensor]

_SEED = 0


@dataclass(frozen=True)
class Case:
    """A layer under test.

    Attributes:
        build: makes the layer, with random parameters away from any special point.
        event_shape: the shape of one data event.
        sample: draws data events in the layer's domain from a batch shape, ``torch.randn`` unless told otherwise.
        round_trip: largest error of a round trip in float64, relative to max(1, |x|).
        log_det: largest error of a log-determinant against autodiff's Jacobian in float64, in nats.
        rows: largest dependence of a row on the rows beside it; not zero only where a solver's steps are shared.
        single: largest difference between float32 and float64, relative to max(1, |value|).
        transforms: whether ``torch.func`` can go through the layer; where not, it refuses with a ConfigError.
        smooth: whether the map is differentiable everywhere that ``sample`` reaches with probability one.
    """

    build: Callable[[], Bijection]
    event_shape: Shape
    sample: Sampler = torch.randn
    round_trip: float = 1e-9
    log_det: float = 1e-8
    rows: float = 0.0
    single: float = 1e-4
    smooth: bool = True
    transforms: bool = True

    def layer(self) -> Bijection:
        """Make the layer in float64 and ``eval()``."""
        return self.build().double().eval()

    def data(self, batch: int = 7) -> Tensor:
        """Draw a float64 batch ``(batch, *event_shape)`` in the layer's domain."""
        return self.sample(batch, *self.event_shape, dtype=torch.float64)

    def context(self, batch: int = 7) -> Tensor | None:
        """Draw a context for the layer, or ``None`` where it takes none."""
        shape = self.build().context_shape
        return None if shape is None else torch.randn(batch, *shape, dtype=torch.float64)


def perturbed(build: Callable[[], Bijection], scale: float = 0.1) -> Callable[[], Bijection]:
    """Move every parameter away from its first value, so that no check passes by a special point."""

    def make() -> Bijection:
        with torch.random.fork_rng():
            torch.manual_seed(_SEED)
            layer = build()
            with torch.no_grad():
                for parameter in layer.parameters():
                    parameter.add_(scale * torch.randn_like(parameter))
        return layer

    return make
