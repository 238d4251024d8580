"""Flows on vectors beside those of the peers that are installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

import snflow
from peers.flows import LIBRARIES
from snflow.bijections.autoregressive import InverseBy
from snflow.numerics.splines import spline, spline_knots
from speed.row import Demand, Row

PEERS = tuple(name for name in LIBRARIES if name != "snflow" and find_spec(name))
ROWS_OF_BATCH, SAMPLES = 512, 100


def splines() -> dict[str, Callable[[], object]]:
    """Value and log-derivative of 512×16 points, 8 bins, and their gradient by points and parameters."""
    torch.manual_seed(0)
    x = 2 * torch.randn(512, 16)
    widths, heights, slopes = (torch.randn(512, 16, count) for count in (8, 8, 7))

    def of(evaluate: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> Callable[[], object]:
        def act() -> object:
            inputs = [tensor.detach().requires_grad_() for tensor in (x, widths, heights, slopes)]
            z, log_derivative = evaluate(*inputs)
            return torch.autograd.grad((z + log_derivative).sum(), inputs)

        return act

    def ours(x: Tensor, w: Tensor, h: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return spline(x, spline_knots(w, h, s, bound=5.0))

    found = {"snflow": of(ours)}
    if find_spec("zuko"):
        from zuko.transforms import MonotonicRQSTransform

        found["zuko"] = of(lambda x, w, h, s: MonotonicRQSTransform(w, h, s, bound=5.0).call_and_ladj(x))
    if find_spec("nflows"):
        from nflows.transforms.splines import unconstrained_rational_quadratic_spline

        found["nflows"] = of(lambda x, w, h, s: unconstrained_rational_quadratic_spline(x, w, h, s, tail_bound=5.0))
    return found


def step(kind: str, features: int) -> dict[str, Callable[[], object]]:
    """Objective, gradient and Adam's step."""
    x = torch.randn(ROWS_OF_BATCH, features, generator=torch.Generator(torch.get_default_device()).manual_seed(0))

    def of(library: str) -> Callable[[], object]:
        torch.manual_seed(0)
        model = LIBRARIES[library](kind, features).train()
        optimizer = torch.optim.Adam(model.parameters(), 1e-5, fused=True)

        def act() -> None:
            optimizer.zero_grad(set_to_none=True)
            (-model.log_prob(x).mean()).backward()
            optimizer.step()
            model.after_step()

        return act

    return {library: of(library) for library in ("snflow", *PEERS)}


def sample(kind: str, features: int) -> dict[str, Callable[[], object]]:
    """Draw 100 points from the untrained flow."""

    def of(library: str) -> Callable[[], object]:
        torch.manual_seed(0)
        model = LIBRARIES[library](kind, features).eval()

        def act() -> Tensor:
            with torch.no_grad():
                return model.sample(SAMPLES)

        return act

    return {library: of(library) for library in ("snflow", *PEERS)}


def inverse(kind: str, features: int, batch: int) -> dict[str, Callable[[], object]]:
    """The same latents through the untrained flow, by each way of inverting its autoregressive layers."""
    torch.manual_seed(0)
    model = LIBRARIES["snflow"](kind, features).eval()
    flow = model.module
    layers = [layer for layer in flow.modules() if isinstance(layer, snflow.Autoregressive)]
    z = torch.randn(batch, features)

    def by(way: InverseBy) -> Callable[[], object]:
        def act() -> None:
            for layer in layers:
                layer.inverse_by = way
            with torch.no_grad():
                flow.decode(z)

        return act

    return {"auto": by("auto"), "steps": by("steps"), "jacobi": by("jacobi")}


ROWS = (
    Row(
        "spline",
        "rational-quadratic spline, forward and backward, 512×16, 8 bins",
        splines,
        (Demand(("zuko", "nflows"), "snflow", 2.0), Demand(("zuko", "nflows"), "snflow", 1.0, of="MiB")),
    ),
    *(
        Row(
            f"{kind}_step_{features}",
            f"training step, {kind}, D = {features}, B = {ROWS_OF_BATCH}",
            lambda kind=kind, features=features: step(kind, features),
            (Demand(PEERS, "snflow", 1.3), Demand(PEERS, "snflow", 1.0, of="MiB")),
        )
        for kind in ("maf", "spline_autoregressive", "spline_coupling", "realnvp")
        for features in (16, 64)
    ),
    *(
        Row(
            f"{kind}_sample_64",
            f"{SAMPLES} samples, {kind}, D = 64",
            lambda kind=kind: sample(kind, 64),
            (Demand(PEERS, "snflow", 5.0), Demand(PEERS, "snflow", 1.0, of="MiB")),
        )
        for kind in ("maf", "spline_autoregressive")
    ),
    *(
        Row(
            f"{kind}_inverse_{batch}",
            f"{batch} latents back, {kind}, D = 64, by each way",
            lambda kind=kind, batch=batch: inverse(kind, 64, batch),
            (Demand(("steps", "jacobi"), "auto", 0.9, called="faster way"),),
        )
        for kind in ("maf", "spline_autoregressive")
        for batch in (1, 100, 1000)
    ),
)
"""Rows about flows on vectors."""
