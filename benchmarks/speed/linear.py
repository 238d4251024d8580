"""Dense layers and convolutions: against the bare products, plain autograd, and the exact gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import snflow
from reproduce import recipe_of
from snflow.numerics.operators.conv import ConvOperator
from speed.row import Demand, Row, backward_of
from targets import TARGETS
from timing import Timed, built, timed_training

AUTHORS = "the authors' code"
"""Keller et al.'s own, as it was timed on two cores of a machine of this kind; it is not run here."""

BATCH = 100
DIMENSIONS = (784, 1568, 3072)


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
    ours(x)  # finds the first log-determinant
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
            found[row.name] = _with_restore(timed_training(recipe, *built(recipe, (1, 28, 28), 256, _device())))
    return found


def training_on_vectors(dimension: int) -> dict[str, Callable[[], object]]:
    """The same step of figure 4's rows: two dense layers on vectors of ``dimension``."""
    found: dict[str, Callable[[], object]] = {}
    for row in TARGETS["figure4"].rows:
        recipe = recipe_of(row, {})
        timed = timed_training(recipe, *built(recipe, (dimension,), None, _device()))
        found[row.name] = _with_restore(timed)
    return found


def _with_restore(timed: Timed) -> Callable[[], object]:
    def act() -> None:
        if timed.before is not None:
            timed.before()
        timed.act()

    return act


def sampling(recipe_row: str) -> dict[str, Callable[[], object]]:
    """One sample from latents to pixels by each way back; the exact one's factors are made before, once."""
    row = next(row for row in TARGETS["table3"].rows if row.name == recipe_row)
    flow, _ = built(recipe_of(row, {}), (1, 28, 28), 256, _device())
    flow.eval()
    z = flow.base.rsample(1)

    def by(method: Any) -> Callable[[], object]:
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
    """100 images back through a 3×3 convolution whose weights are new: factorisation and solve."""
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
        "training step, two dense layers, MNIST, optimizer and preprocessing in",
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
        "training step, two dense layers on vectors, D = 3072, optimizer in",
        lambda: training_on_vectors(3072),
        (Demand(("exact",), "newton", 1 / 0.15), Demand(("exact",), "snf", 1 / 0.15)),
    ),
    Row(
        "conv_step",
        "training step, nine convolutions, MNIST, optimizer and preprocessing in",
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
        "exact inverse of a zero-padded 3×3 convolution, 3×32×32, 100 images, float64, factorisation in",
        lambda: conv_inverse(3, 32),
        (Demand(("dense solve",), "by rows", 10.0),),
    ),
)
"""Rows about linear layers."""
