"""Glow on images beside those of the peers that are installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch

from peers.images import GLOWS, batch
from speed.linear import AUTHORS
from speed.row import Demand, Row

BATCH, WIDTH = 100, 512
CONTENDERS = tuple(name for name in GLOWS if name.startswith("snflow") or find_spec(name))


def step(width: int) -> dict[str, Callable[[], object]]:
    """Objective, gradient and Adam's step."""
    x = batch(BATCH)

    def of(name: str) -> Callable[[], object]:
        torch.manual_seed(0)
        model = GLOWS[name](width).train()
        optimizer = torch.optim.Adam(model.parameters(), 1e-5, fused=True)

        def act() -> None:
            optimizer.zero_grad(set_to_none=True)
            (-model.log_prob(x).mean()).backward()
            optimizer.step()

        return act

    return {name: of(name) for name in CONTENDERS}


ROWS = (
    Row(
        "glow_step",
        f"training step, Glow 2L-16K of width {WIDTH} on 1×28×28, B = {BATCH}",
        lambda: step(WIDTH),
        (
            Demand((AUTHORS,), "snflow", 2.0),
            Demand(("normflows",), "snflow", 1.2),
            Demand(("normflows",), "snflow", 1.0, of="MiB"),
        ),
        {AUTHORS: 11600.0},
    ),
)
"""Rows about flows on images."""
