"""Posteriors and densities that are known: what flows have learned is right, not only normalized."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Beta, Binomial, Gamma, Normal, Poisson

from nightly.check import Found, check, within
from snflow import Flow, flows

Simulator = Callable[[int], tuple[Tensor, Tensor]]
"""Draws n pairs of parameters (n, D) and data (n, C) from the prior and the model."""

SIMULATIONS, DRAWS = 1000, 199


def _mean(n: int) -> tuple[Tensor, Tensor]:
    theta = torch.randn(n, 2)
    return theta, theta + 0.5 * torch.randn(n, 2)


def _regression(n: int) -> tuple[Tensor, Tensor]:
    theta = torch.randn(n, 2)
    inputs = torch.linspace(-1, 1, 4)
    return theta, theta[:, :1] + theta[:, 1:] * inputs + 0.5 * torch.randn(n, 4)


def _rate(n: int) -> tuple[Tensor, Tensor]:
    rate = Gamma(3.0, 1.0).sample((n, 1))
    counts = Poisson(rate.expand(-1, 4)).sample().sum(1, keepdim=True)
    return rate.log(), (counts + 1).log()


def _proportion(n: int) -> tuple[Tensor, Tensor]:
    share = Beta(2.0, 3.0).sample((n, 1)).clamp(1e-4, 1 - 1e-4)
    return share.logit(), (Binomial(20, share).sample() - 8) / 4


def _scale(n: int) -> tuple[Tensor, Tensor]:
    theta = torch.stack([torch.randn(n), 0.5 * torch.randn(n)], 1)
    x = Normal(theta[:, :1], theta[:, 1:].exp()).sample((5,)).squeeze(-1).T
    return theta, torch.stack([x.mean(1), x.std(1).log()], 1)


PROBLEMS: dict[str, tuple[Simulator, int, int]] = {
    "mean of a normal": (_mean, 2, 2),
    "linear regression": (_regression, 2, 4),
    "rate of Poisson counts": (_rate, 1, 1),
    "proportion of a binomial": (_proportion, 1, 1),
    "mean and scale of a normal": (_scale, 2, 2),
}

FLOWS: dict[str, Callable[[int, int], Flow]] = {
    "spline": lambda d, c: flows.neural_spline(d, context_shape=c, layers=3, width=32, kind="autoregressive"),
    "maf": lambda d, c: flows.maf(d, context_shape=c, layers=5, width=48),
}


def learned(flow: Flow, draw: Simulator, steps: int) -> Flow:
    """Fit q(θ | x) by maximum likelihood on fresh simulations."""
    optimizer = torch.optim.Adam(flow.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        theta, x = draw(512)
        optimizer.zero_grad()
        (-flow.log_prob(theta, x).mean()).backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    return flow.eval()


@check(
    "simulation-based calibration: 1,000 simulations of five problems, ranks among 199 posterior draws are "
    "uniform (Kolmogorov–Smirnov, p > 1e-4), coverage of every central interval within 0.05",
    nightly=2 * len(PROBLEMS),
    chunk=1,
    minutes=60,
)
def calibration(seed: int, folder: Path) -> Found:
    """One problem and one flow by turns."""
    problem = list(PROBLEMS)[seed % len(PROBLEMS)]
    name = list(FLOWS)[seed // len(PROBLEMS) % len(FLOWS)]
    draw, features, observed = PROBLEMS[problem]
    if features == 1 and name == "maf":
        name = "spline"  # an affine map of one number cannot be skewed
    return calibrated(problem, FLOWS[name](features, observed), draw, 4000, SIMULATIONS)


def calibrated(problem: str, flow: Flow, draw: Simulator, steps: int, simulations: int) -> Found:
    """Train, and compare the ranks of the true parameters with a uniform distribution."""
    flow = learned(flow, draw, steps)
    theta, x = draw(simulations)
    with torch.no_grad():
        posterior = flow.sample(DRAWS, x)
    ranks = (posterior < theta).sum(0) + torch.rand(theta.shape)  # ties of discrete problems are broken at random
    levels = ranks / (DRAWS + 1)
    worst = 0.0
    for column in levels.T:
        p = stats.kstest(column.double().numpy(), "uniform").pvalue
        within(f"{problem}: 1 / p of the ranks", 1 / max(p, 1e-300), 1e4)
        inside = (column - 0.5).abs() * 2
        shares = torch.linspace(0.05, 0.95, 19)
        coverage = (inside[:, None] <= shares).float().mean(0)
        worst = max(worst, within(f"{problem}: coverage", float((coverage - shares).abs().max()), 0.05))
    return Found(worst, {problem: 1})


@check(
    "the divergence from three known densities in the plane after 3,000 steps: at most 0.05 nats",
    nightly=9,
    chunk=1,
    minutes=60,
)
def known_densities(seed: int, folder: Path) -> float:
    """A banana, a ring of normals and a skewed product, each by three flows."""
    target = list(TARGETS)[seed % len(TARGETS)]
    builds = (
        lambda: flows.neural_spline(2, layers=5, width=64),
        lambda: flows.neural_spline(2, layers=4, width=64, kind="autoregressive"),
        lambda: flows.naf(2, layers=3, width=48),
    )
    flow = builds[seed // len(TARGETS) % len(builds)]()
    draw, log_prob = TARGETS[target]
    optimizer = torch.optim.Adam(flow.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3000)
    for _ in range(3000):
        optimizer.zero_grad()
        (-flow.log_prob(draw(512)).mean()).backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        x = draw(20_000)
        return within(target, float((log_prob(x) - flow.eval().log_prob(x)).mean()), 0.05)


def _banana(n: int) -> Tensor:
    first = torch.randn(n, 1)
    return torch.cat([first, 0.5 * first**2 + 0.5 * torch.randn(n, 1)], 1)


def _banana_log_prob(x: Tensor) -> Tensor:
    return Normal(0.0, 1.0).log_prob(x[:, 0]) + Normal(0.5 * x[:, 0] ** 2, 0.5).log_prob(x[:, 1])


_ANGLES = torch.arange(5) * 2 * math.pi / 5
_CENTRES = 2.5 * torch.stack([_ANGLES.cos(), _ANGLES.sin()], 1)


def _ring(n: int) -> Tensor:
    return _CENTRES[torch.randint(5, (n,))] + 0.5 * torch.randn(n, 2)


def _ring_log_prob(x: Tensor) -> Tensor:
    each = Normal(_CENTRES, 0.5).log_prob(x[:, None]).sum(2)
    return each.logsumexp(1) - math.log(5)


def _skewed(n: int) -> Tensor:
    return torch.cat([Gamma(2.0, 1.0).sample((n, 1)).log(), torch.randn(n, 1).exp().log1p()], 1)


def _skewed_log_prob(x: Tensor) -> Tensor:
    first = Gamma(2.0, 1.0).log_prob(x[:, 0].exp()) + x[:, 0]
    inner = x[:, 1].expm1().log()
    return first + Normal(0.0, 1.0).log_prob(inner) + x[:, 1] - inner


TARGETS: dict[str, tuple[Callable[[int], Tensor], Callable[[Tensor], Tensor]]] = {
    "banana": (_banana, _banana_log_prob),
    "ring of normals": (_ring, _ring_log_prob),
    "skewed": (_skewed, _skewed_log_prob),
}
