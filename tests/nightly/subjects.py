"""What is checked: the ready flows, small and moved away from their initial weights, each made from a seed."""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snflow import Flow, flows
from snflow.flows.gaussianization import gaussianize
from snflow.testing.cases import CATALOGUE, Case

READY = sorted(flows.ready_flows())
IMAGES_ONLY = ("conv", "flowpp", "glow")
LAYERS = len(CATALOGUE)
VECTORS = [name for name in READY if name not in IMAGES_ONLY]

SMALL: dict[str, Any] = {
    "layers": 2,
    "scales": 1,
    "width": 8,
    "depth": 1,
    "bins": 5,
    "units": 2,
    "components": 2,
    "first_layers": 1,
    "channel_layers": 1,
    "last_layers": 1,
    "growth": 4,
    "groups": 2,
    "embedding": 4,
    "integrand_width": 8,
}
"""Sizes with which every flow is fast; a flow takes those that are options of its own."""

OWN: dict[str, dict[str, Any]] = {
    "ffjord": {"solver": "rk4", "steps": 20},
    "realnvp": {"layers": 4},
    "sylvester": {"units": None},
    "pair": {"layers": 1, "width": 16},
}


@dataclass(frozen=True)
class Subject:
    """A flow under test, and how to draw from its domain."""

    name: str
    flow: Flow
    context_shape: tuple[int, ...] | None

    def data(self, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw rows in the domain of the flow, with its dtype."""
        shape, dtype = (rows, *self.flow.event_shape), self.flow.base.dtype
        if self.name == "circular_spline":
            return torch.pi * (2 * torch.rand(shape, dtype=dtype, generator=generator) - 1)
        return torch.randn(shape, dtype=dtype, generator=generator)

    def context(self, rows: int) -> Tensor | None:
        """Draw one context per row; ``None`` for a flow without one."""
        if self.context_shape is None:
            return None
        return torch.randn(rows, *self.context_shape, dtype=self.flow.base.dtype)


def layer_of(seed: int) -> tuple[str, Case]:
    """The layers of the catalogue by turns."""
    names = list(CATALOGUE)
    name = names[seed % len(names)]
    return name, CATALOGUE[name]


def flow_of(
    seed: int,
    *,
    names: Sequence[str] = READY,
    features: Sequence[int] = (1, 2, 3, 8),
    contexts: bool = True,
    scale: float = 0.1,
    dtype: torch.dtype = torch.float64,
) -> Subject:
    """A ready flow by turns, of random size and with a context now and then, in eval mode.

    Args:
        seed: chooses everything.
        names: the flows to choose from.
        features: D of flows for vectors; flows for images have events of 2×4×4.
        contexts: whether a flow that takes a context gets one in every second round.
        scale: size of the noise that is added to the initial weights.
        dtype: of the weights.
    """
    draw = random.Random(seed)
    name = names[seed % len(names)]
    function = flows.ready_flows()[name]
    options = options_of(name)
    with_context = (
        contexts and (seed // len(names)) % 2 == 1 and "context_shape" in inspect.signature(function).parameters
    )
    context_shape = (2,) if with_context else None
    if context_shape is not None:
        options["context_shape"] = context_shape
    size = draw.choice(list(features))
    shape = (2, 4, 4) if name in IMAGES_ONLY else (size,)
    torch.manual_seed(seed)
    subject = Subject(name, function(shape, **options).to(dtype), context_shape)
    settle(subject, scale)
    return subject


def options_of(name: str) -> dict[str, Any]:
    """Options that make a ready flow small."""
    known = inspect.signature(flows.ready_flows()[name]).parameters
    given = {key: value for key, value in {**SMALL, **OWN.get(name, {})}.items() if key in known}
    return {key: value for key, value in given.items() if value is not None}


@torch.no_grad()
def settle(subject: Subject, scale: float) -> None:
    """Let data-dependent layers see data, move the weights by noise, and set eval mode."""
    flow = gaussianize(subject.flow, subject.data(400))
    flow.train()
    for _ in range(3):
        flow.log_prob(subject.data(64), subject.context(64))
    for parameter in flow.parameters():
        parameter.add_(scale * torch.randn_like(parameter))
    flow.eval()
