"""Faults put into a run: NaN, a rate that is too high, broken pictures and consoles."""

from __future__ import annotations

import io
import math
import random
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nightly.check import Found, check, require, within
from nightly.runs import RECIPES, replaced, short, train, whole
from run_files import last_checkpoint, same_run
from snflow.distributions.flow import Flow
from snflow.errors import DivergenceError, SnflowError
from snflow.train.evaluation import exact_nll
from snflow.train.progress import terminal
from snflow.train.run_folder import load_flow


class Poison(torch.autograd.Function):
    """x forward, and a gradient that is not finite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bad: float) -> Tensor:
        """Return a copy."""
        ctx.bad = bad
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Spoil one element."""
        grad = grads[0].clone()
        grad[random.randrange(len(grad))] = ctx.bad
        return grad, None


def poisoned(at: set[int], poison: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """A ``log_prob`` that spoils some training steps."""
    original, calls = Flow.log_prob, []

    def log_prob(self: Flow, x: Tensor, *rest: Any, **options: Any) -> Tensor:
        value = original(self, x, *rest, **options)
        if self.training:
            calls.append(1)
            if len(calls) in at:
                return poison(value)
        return value

    return log_prob


@check(
    "NaN or ±inf in the objective or in the gradient at random steps: the step is skipped and counted, or the run"
    " ends with exit code 3; parameters and checkpoints are finite throughout",
    nightly=100,
    chunk=10,
)
def injected(seed: int, folder: Path) -> Found:
    """One run with up to five bad steps; every second one may skip them."""
    skip = bool(seed % 2)
    recipe = short(random.choice(RECIPES), folder, {"training.on_nonfinite": "skip" if skip else "stop"})
    bad, at = random.choice([torch.nan, torch.inf, -torch.inf]), set(random.sample(range(1, 13), random.randint(1, 5)))
    in_gradient = random.random() < 0.5
    poison = (lambda v: Poison.apply(v, bad)) if in_gradient else (lambda v: v + bad)
    run = folder / f"run-{seed}"
    outcome = "finished"
    with replaced(Flow, "log_prob", poisoned(at, poison)):
        try:
            train(recipe, run)
        except DivergenceError as error:
            require(not skip, f"stopped in spite of on_nonfinite=skip: {error}")
            outcome = "stopped"
    if (run / "checkpoints").is_dir():
        tensors = last_checkpoint(run).model.items()
        spoilt = [name for name, t in tensors if t.is_floating_point() and not bool(t.isfinite().all())]
        require(not spoilt, f"{recipe.flow['name']}, {outcome}: {spoilt[:3]} in the last checkpoint")
    require(
        skip == (outcome == "finished"),
        f"{recipe.flow['name']}: {outcome} with on_nonfinite={'skip' if skip else 'stop'}",
    )
    shutil.rmtree(run)
    return Found(counted={outcome: 1})


@check(
    "the learning rate × 100 and × 10,000: the run ends with finite and exact likelihoods, or with exit code 3; "
    "never a bad model in silence",
    nightly=2 * 3 * len(RECIPES),
    chunk=12,
)
def divergence(seed: int, folder: Path) -> Found:
    """Every recipe by turns; the likelihood of the summary is that of the weights that are loaded."""
    name = RECIPES[seed % len(RECIPES)]
    factor = 100.0 if seed // len(RECIPES) % 2 == 0 else 1e4
    recipe = short(name, folder, {"training.seed": seed})
    recipe = recipe.replace(
        {"optimizer.learning_rate": factor * recipe.optimizer.learning_rate, "schedule.warmup_epochs": 0}
    )
    run = folder / f"run-{seed}"
    try:
        summary = train(recipe, run).summary
    except SnflowError as error:
        require(error.exit_code == 3, f"{name}, rate × {factor:g}: {type(error).__name__}: {str(error)[:200]}")
        return Found(counted={"stopped": 1})
    assert summary is not None
    require(math.isfinite(summary["test_nll_nats"]), f"{name}: test NLL {summary['test_nll_nats']}")
    flow, _ = load_flow(run)
    again = exact_nll(flow, recipe.load_dataset().test, recipe.training.eval_batch_size, recipe.training.seed)
    error = abs(again - summary["test_nll_nats"]) / max(1, abs(again))
    return Found(within(f"{name}: the reported NLL", error, 1e-6), {"finished": 1})


class Broken(io.StringIO):
    """A stream that raises on every call."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        """Raise."""
        raise self.error


@check(
    "pictures, console or display that fail on every call: the run ends and its numbers are the same to the bit",
    nightly=60,
    chunk=15,
)
def broken_outputs(seed: int, folder: Path) -> None:
    """One kind of fault by turns."""
    name = ("toy_maf", "digits_conv", "table_dense", "toy_ffjord", "digits_glow_snf")[seed % 5]
    recipe, original = whole(name, folder)
    run = folder / f"run-{seed}"

    def fails(*_: object, **__: object) -> None:
        raise random.choice([RuntimeError, OSError, MemoryError, ValueError])("broken")

    kind = ("draw_curves", "draw_samples", "console")[seed // 5 % 3]
    if kind == "console":
        error = random.choice([BrokenPipeError("closed"), OSError(28, "No space left on device")])
        with redirect_stdout(Broken(error)), redirect_stderr(io.StringIO()):
            train(recipe, run, console=terminal())
    else:
        # The package's attribute of this name is the function.
        with replaced(sys.modules["snflow.train.fit"], kind, fails):
            train(recipe, run)
    for picture in ("curves.png", "samples.png"):
        shutil.copy(original / picture, run)
    same_run(original, run)
    shutil.rmtree(run)


def exact_by_autograd(flow: nn.Module, x: Tensor) -> Tensor:
    """Log-densities with log-determinants from autograd's Jacobian and ``slogdet``; no row depends on another."""
    leaf = x.clone().requires_grad_()
    z = flow.bijection(leaf)[0]
    outputs = z.flatten(1).sum(0)
    rows = [torch.autograd.grad(value, leaf, retain_graph=True)[0].flatten(1) for value in outputs]
    return flow.base.log_prob(z) + torch.linalg.slogdet(torch.stack(rows, 1))[1]


@check(
    "the likelihoods that a run reports are exact for every rule: against Jacobians from autograd in float64, "
    "1e-5 nats per dimension, while the value in training may lag behind",
    nightly=4 * len(RECIPES),
    chunk=16,
)
def audit(seed: int, folder: Path) -> float:
    """A trained flow of every recipe, four times on other rows of its own data; dequantized by the same noise."""
    name = RECIPES[seed // 4 % len(RECIPES)]
    _, run = whole(name, folder)
    flow, recipe = load_flow(run, random.choice(["best", "last"]))
    flow = flow.double()
    data = recipe.load_dataset().test[3 * (seed % 4) :][:3]
    if flow.dequantization is not None:
        data, log_q = flow.dequantization(data, dtype=torch.float64)
    else:
        data, log_q = data.double(), torch.zeros(())
    with torch.no_grad():
        z, log_det = flow.bijection(data)
        got = flow.base.log_prob(z) + log_det - log_q
    wanted = exact_by_autograd(flow, data).detach() - log_q
    bound = 1e-2 if "ffjord" in name else 1e-5
    return within(name, float((got - wanted).abs().max()) / data[0].numel(), bound)
