"""The rows of the table of speed: contenders that do the same thing, and the ratio that is required of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

import snflow
from measurement import TARGETS, Timed, build, interleaved, peak_mebibytes, recipe_of, timed_training
from peers import GLOWS, LIBRARIES, noise_images
from snflow.bijections.autoregressive import InverseSolver
from snflow.bijections.base import InverseMethod
from snflow.numerics.operators.conv import ConvOperator
from snflow.numerics.splines import spline, spline_knots

AUTHORS = "the authors' code"
"""Code of Keller et al., timed once on two cores of a similar machine; it is not run here."""

BATCH = 100
DIMENSIONS = (784, 1568, 3072)
PEERS = tuple(name for name in LIBRARIES if name != "snflow" and find_spec(name))
VECTOR_BATCH, SAMPLES = 512, 100
GLOW_WIDTH = 512
GLOW_CONTENDERS = tuple(name for name in GLOWS if name.startswith("snflow") or find_spec(name))


@dataclass(frozen=True)
class Demand:
    """A bound on the ratio of two costs: ``over`` takes at least, or at most, ``bound`` times what ``under`` takes.

    The cost is time (``"ms"``) or memory (``"MiB"``). If ``over`` names several contenders, the cheapest one counts.
    """

    over: tuple[str, ...]
    under: str
    bound: float
    at_least: bool = True
    of: str = "ms"
    called: str = "fastest peer"

    def ratio(self, costs: Mapping[str, float]) -> float:
        """The measured ratio."""
        return min(costs[name] for name in self.over if name in costs) / costs[self.under]

    def met(self, costs: Mapping[str, float]) -> bool:
        """Whether it holds."""
        return (self.ratio(costs) >= self.bound) == self.at_least

    def measured(self, costs: Mapping[str, Mapping[str, float]]) -> dict[str, Any] | None:
        """The outcome; ``None`` if a contender is missing."""
        found = costs[self.of]
        if self.under not in found or not any(name in found for name in self.over):
            return None
        return {"demand": str(self), "ratio": self.ratio(found), "met": self.met(found)}

    def __str__(self) -> str:
        """E.g. ``exact / self-normalizing ≥ 3``."""
        best = self.called if self.of == "ms" else "leanest peer"
        over = self.over[0] if len(self.over) == 1 else best
        what = "" if self.of == "ms" else f", {self.of}"
        return f"{over} / {self.under} {'≥' if self.at_least else '≤'} {self.bound:.3g}{what}"


@dataclass(frozen=True)
class Row:
    """One comparison: ``make`` builds the contenders, each a function that performs the operation once.

    ``published`` has milliseconds that others have reported, by name; they are not measured here.
    """

    name: str
    what: str
    make: Callable[[], dict[str, Callable[[], object]]]
    demands: Sequence[Demand] = ()
    published: Mapping[str, float] = field(default_factory=dict)

    def measure(self, seconds: float) -> dict[str, Any]:
        """Time the contenders in turns: medians and quartiles in milliseconds, and the peak memory of each in MiB."""
        acts = self.make()
        timed = {name: Timed(act) for name, act in acts.items()}
        interleaved(list(timed.values()), seconds, torch.get_default_device().type)
        medians = {name: one.median_ms for name, one in timed.items()}
        peaks = {name: peak_mebibytes(act) for name, act in acts.items()}
        costs = {"ms": {**medians, **self.published}, "MiB": peaks}
        spread = {name: [1000 * q for q in statistics.quantiles(one.seconds, n=4)] for name, one in timed.items()}
        return {
            "row": self.name,
            "what": self.what,
            "median_ms": medians,
            "quartiles_ms": spread,
            "times": {name: len(one.seconds) for name, one in timed.items()},
            "peak_mib": peaks,
            "published_ms": dict(self.published),
            "demands": [found for demand in self.demands if (found := demand.measured(costs)) is not None],
        }


def backward_of(module: torch.nn.Module, x: torch.Tensor, loss: Callable[[Any], torch.Tensor]) -> Callable[[], object]:
    """Forward and backward pass of a module in training, with fresh gradients of x and of the weights."""
    module.train()

    def act() -> None:
        for parameter in module.parameters():
            parameter.grad = None
        loss(module(x.detach().requires_grad_())).backward()

    return act


def _device() -> str:
    return torch.get_default_device().type


def _loss(pair: tuple[Tensor, Tensor]) -> Tensor:
    z, log_det = pair
    return 0.5 * z.square().sum() / BATCH - log_det.mean()


def dense(dimension: int) -> dict[str, Callable[[], object]]:
    """Forward and backward of one dense layer, B = 100."""
    torch.manual_seed(0)
    x = torch.randn(BATCH, dimension)
    w, r, v = torch.randn(dimension, dimension), torch.randn(dimension, dimension), torch.randn(BATCH, dimension)

    def floor() -> None:
        s = x @ w.mT
        s @ r.mT
        v @ w
        v @ r
        v.mT @ x
        v.mT @ s

    ours = snflow.SelfNormalizingDense(dimension).eval()
    ours(x)  # computes the first log-determinant
    return {
        "six products": floor,
        "self-normalizing": backward_of(ours, x, _loss),
        "nn.Linear": backward_of(nn.Linear(dimension, dimension), x, lambda z: 0.5 * z.square().sum() / BATCH),
        "exact": backward_of(snflow.Dense(dimension), x, _loss),
    }


def training(rows: tuple[str, ...]) -> dict[str, Callable[[], object]]:
    """Preprocessing, objective, gradient, gradient norm and Adam's step of recipes of table 3."""
    found: dict[str, Callable[[], object]] = {}
    for row in TARGETS["table3"].rows:
        if row.name in rows:
            recipe = recipe_of(row, {})
            found[row.name] = _with_restore(timed_training(recipe, *build(recipe, (1, 28, 28), 256, _device())))
    return found


def training_on_vectors(dimension: int) -> dict[str, Callable[[], object]]:
    """The same step for the rows of Figure 4: two dense layers on vectors of ``dimension``."""
    found: dict[str, Callable[[], object]] = {}
    for row in TARGETS["figure4"].rows:
        recipe = recipe_of(row, {})
        timed = timed_training(recipe, *build(recipe, (dimension,), None, _device()))
        found[row.name] = _with_restore(timed)
    return found


def _with_restore(timed: Timed) -> Callable[[], object]:
    def act() -> None:
        if timed.before is not None:
            timed.before()
        timed.act()

    return act


def sampling(recipe_row: str) -> dict[str, Callable[[], object]]:
    """One sample from latents to pixels by each inverse; the exact one is factorized once, in the warm-up."""
    row = next(row for row in TARGETS["table3"].rows if row.name == recipe_row)
    flow, _ = build(recipe_of(row, {}), (1, 28, 28), 256, _device())
    flow.eval()
    z = flow.base.rsample(1)

    def by(method: InverseMethod) -> Callable[[], object]:
        def act() -> None:
            with torch.no_grad():
                flow.bijection.decode(z, inverse=method)

        return act

    return {"learned": by("learned"), "exact": by("exact")}


def _kernel(channels: int, size: int) -> Tensor:
    torch.manual_seed(0)
    kernel = 0.05 * torch.randn(channels, channels, size, size)
    kernel[:, :, size // 2, size // 2] += torch.eye(channels)
    return kernel


def conv_log_det(channels: int, side: int, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """log|det T(w)| of a 3×3 kernel and its gradient by w."""
    operator, event = ConvOperator(3), (channels, side, side)
    kernel = _kernel(channels, 3).to(dtype).requires_grad_()

    def structured() -> Tensor:
        (gradient,) = torch.autograd.grad(operator.log_abs_det(kernel, event), kernel)
        return gradient

    def whole() -> Tensor:
        (gradient,) = torch.autograd.grad(torch.linalg.slogdet(operator.block(kernel, event))[1], kernel)
        return gradient

    ours = float(operator.log_abs_det(kernel, event).detach())
    theirs = float(torch.linalg.slogdet(operator.block(kernel.detach().double(), event))[1])
    limit = 1e-6 if dtype == torch.float64 else 1e-4
    if abs(ours - theirs) > limit * max(1.0, abs(theirs)):
        raise RuntimeError(f"log-determinants differ: {ours} by rows, {theirs} from the whole matrix")
    return {"slogdet": whole, "by rows": structured}


def conv_inverse(channels: int, side: int) -> dict[str, Callable[[], object]]:
    """Invert a 3×3 convolution with new weights on 100 images: factorization and solve."""
    operator, event = ConvOperator(3), (channels, side, side)
    kernel = _kernel(channels, 3).double()
    rows = torch.randn(BATCH, channels * side * side, dtype=torch.float64)

    def structured() -> Tensor:
        return operator.factor(kernel, event, "bench").solve(rows)

    def whole() -> Tensor:
        return torch.linalg.solve(operator.block(kernel, event), rows.mT)

    if not torch.allclose(structured(), whole().mT, rtol=1e-6, atol=1e-8):
        raise RuntimeError("the solutions differ")
    return {"dense solve": whole, "by rows": structured}


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


def vector_step(kind: str, features: int) -> dict[str, Callable[[], object]]:
    """Objective, gradient and Adam's step."""
    x = torch.randn(VECTOR_BATCH, features, generator=torch.Generator(torch.get_default_device()).manual_seed(0))

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


def vector_sample(kind: str, features: int) -> dict[str, Callable[[], object]]:
    """Draw 100 points from the untrained flow."""

    def of(library: str) -> Callable[[], object]:
        torch.manual_seed(0)
        model = LIBRARIES[library](kind, features).eval()

        def act() -> Tensor:
            with torch.no_grad():
                return model.sample(SAMPLES)

        return act

    return {library: of(library) for library in ("snflow", *PEERS)}


def vector_inverse(kind: str, features: int, batch: int) -> dict[str, Callable[[], object]]:
    """Decode the same latents with the untrained flow, by each solver of its autoregressive layers."""
    torch.manual_seed(0)
    model = LIBRARIES["snflow"](kind, features).eval()
    flow = model.module
    layers = [layer for layer in flow.modules() if isinstance(layer, snflow.Autoregressive)]
    z = torch.randn(batch, features)

    def by(solver: InverseSolver) -> Callable[[], object]:
        def act() -> None:
            for layer in layers:
                layer.solver = solver
            with torch.no_grad():
                flow.decode(z)

        return act

    return {"auto": by("auto"), "steps": by("steps"), "jacobi": by("jacobi")}


def glow_step(width: int) -> dict[str, Callable[[], object]]:
    """Objective, gradient and Adam's step."""
    x = noise_images(BATCH)

    def of(name: str) -> Callable[[], object]:
        torch.manual_seed(0)
        model = GLOWS[name](width).train()
        optimizer = torch.optim.Adam(model.parameters(), 1e-5, fused=True)

        def act() -> None:
            optimizer.zero_grad(set_to_none=True)
            (-model.log_prob(x).mean()).backward()
            optimizer.step()

        return act

    return {name: of(name) for name in GLOW_CONTENDERS}


ROWS = (
    *(
        Row(
            f"dense_{size}",
            f"self-normalizing dense layer, forward and backward, B = {BATCH}, D = {size}",
            lambda size=size: dense(size),
            (
                Demand(("self-normalizing",), "six products", 1.3, at_least=False),
                Demand(("exact",), "self-normalizing", 3.0),
                Demand(("self-normalizing",), "nn.Linear", 2.3, at_least=False),
            ),
        )
        for size in DIMENSIONS
    ),
    Row(
        "dense_step",
        "training step, two dense layers, MNIST, optimizer and preprocessing included",
        lambda: training(("dense_exact", "dense_relative", "dense_snf", "dense_newton")),
        (
            Demand((AUTHORS,), "dense_snf", 4.0),
            Demand(("dense_exact",), "dense_snf", 2.4),
            Demand(("dense_exact",), "dense_newton", 2.4),
            Demand(("dense_snf",), "dense_relative", 1.6, at_least=False),
            Demand(("dense_newton",), "dense_relative", 1.6, at_least=False),
        ),
        {AUTHORS: 95.0},
    ),
    Row(
        "dense_step_3072",
        "training step, two dense layers on vectors, D = 3072, optimizer included",
        lambda: training_on_vectors(3072),
        (Demand(("exact",), "newton", 1 / 0.15), Demand(("exact",), "snf", 1 / 0.15)),
    ),
    Row(
        "conv_step",
        "training step, nine convolutions, MNIST, optimizer and preprocessing included",
        lambda: training(("conv_exact", "conv_exact_by_rows", "conv_snf", "conv_newton")),
        (
            Demand((AUTHORS,), "conv_snf", 4.0),
            Demand(("conv_exact",), "conv_snf", 3.0),
            Demand(("conv_exact",), "conv_newton", 3.0),
        ),
        {AUTHORS: 495.0},
    ),
    Row(
        "conv_sample",
        "one sample, nine convolutions, MNIST",
        lambda: sampling("conv_snf"),
        (Demand(("exact",), "learned", 8.0),),
    ),
    Row(
        "conv_log_det_64",
        "log|det| of a zero-padded 3×3 convolution and its gradient, 3×32×32, float64",
        lambda: conv_log_det(3, 32, torch.float64),
        (Demand(("slogdet",), "by rows", 10.0),),
    ),
    Row(
        "conv_log_det_32",
        "log|det| of a zero-padded 3×3 convolution and its gradient, 3×32×32, float32",
        lambda: conv_log_det(3, 32, torch.float32),
        (Demand(("slogdet",), "by rows", 10.0),),
    ),
    Row(
        "conv_inverse",
        "exact inverse of a zero-padded 3×3 convolution, 3×32×32, 100 images, float64, factorization included",
        lambda: conv_inverse(3, 32),
        (Demand(("dense solve",), "by rows", 10.0),),
    ),
    Row(
        "spline",
        "rational-quadratic spline, forward and backward, 512×16, 8 bins",
        splines,
        (Demand(("zuko", "nflows"), "snflow", 2.0), Demand(("zuko", "nflows"), "snflow", 1.0, of="MiB")),
    ),
    *(
        Row(
            f"{kind}_step_{features}",
            f"training step, {kind}, D = {features}, B = {VECTOR_BATCH}",
            lambda kind=kind, features=features: vector_step(kind, features),
            (Demand(PEERS, "snflow", 1.3), Demand(PEERS, "snflow", 1.0, of="MiB")),
        )
        for kind in ("maf", "spline_autoregressive", "spline_coupling", "realnvp")
        for features in (16, 64)
    ),
    *(
        Row(
            f"{kind}_sample_64",
            f"{SAMPLES} samples, {kind}, D = 64",
            lambda kind=kind: vector_sample(kind, 64),
            (Demand(PEERS, "snflow", 5.0), Demand(PEERS, "snflow", 1.0, of="MiB")),
        )
        for kind in ("maf", "spline_autoregressive")
    ),
    *(
        Row(
            f"{kind}_inverse_{batch}",
            f"{batch} latents inverted, {kind}, D = 64, by each solver",
            lambda kind=kind, batch=batch: vector_inverse(kind, 64, batch),
            (Demand(("steps", "jacobi"), "auto", 0.9, called="faster solver"),),
        )
        for kind in ("maf", "spline_autoregressive")
        for batch in (1, 100, 1000)
    ),
    Row(
        "glow_step",
        f"training step, Glow 2L-16K of width {GLOW_WIDTH} on 1×28×28, B = {BATCH}",
        lambda: glow_step(GLOW_WIDTH),
        (
            Demand((AUTHORS,), "snflow", 2.0),
            Demand(("normflows",), "snflow", 1.2),
            Demand(("normflows",), "snflow", 1.0, of="MiB"),
        ),
        {AUTHORS: 11600.0},
    ),
)
