"""Densities: they integrate to one, samples follow them, and bits per dimension are what they are called."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from scipy import stats

from nightly.check import check, within
from nightly.contract import off
from nightly.subjects import VECTORS, Subject, flow_of
from snflow import Affine, Chain, Flow, Logistic, bits_per_dim, dequantized

LIMIT = 14.0
"""Half the side of the grids; on a circle π."""


def _box(subject: Subject) -> float:
    return math.pi if subject.name == "circular_spline" else LIMIT


def _grid(subject: Subject, cells: int) -> tuple[torch.Tensor, float]:
    """The centres of the cells of a grid, and the volume of a cell."""
    side, features = 2 * _box(subject) / cells, subject.flow.event_shape[0]
    centres = -_box(subject) + side * (torch.arange(cells, dtype=torch.float64) + 0.5)
    points = torch.cartesian_prod(*[centres] * features).reshape(-1, features)
    return points, side**features


@torch.no_grad()
def _densities(subject: Subject, points: torch.Tensor) -> torch.Tensor:
    context = subject.context(1)
    torch.manual_seed(0)
    given = lambda n: None if context is None else context.expand(n, *context.shape[1:])  # noqa: E731
    return torch.cat([subject.flow.log_prob(p, given(len(p))) for p in points.split(50_000)]).exp()


@check(
    "densities integrate to one: D = 1 to 1e-4 on 20,001 points, D = 2 to 2e-3 on 1001², D = 8 within 5 standard "
    "errors of importance sampling",
    nightly=6 * len(VECTORS),
    chunk=12,
)
@torch.no_grad()
def mass(seed: int, folder: Path) -> float:
    """Flows for vectors by turns, in one, two and eight dimensions."""
    features = (1, 2, 8)[seed // len(VECTORS) % 3]
    subject = flow_of(seed, names=VECTORS, features=[features], contexts=False, scale=0.05)
    if features == 8:
        return _mass_by_samples(subject)
    points, volume = _grid(subject, 20_001 if features == 1 else 1001)
    bound = 1e-4 if features == 1 else 2e-3
    return within(f"{subject.name}, D = {features}", abs(float(_densities(subject, points).sum()) * volume - 1), bound)


def _mass_by_samples(subject: Subject) -> float:
    """E_q p/q = 1 for samples of q, a Student-t around the flow's own samples (uniform on the torus)."""
    rows = 100_000
    if subject.name == "circular_spline":
        x = subject.data(rows)
        log_q = torch.full((rows,), -8 * math.log(2 * math.pi), dtype=torch.float64)
    else:
        own = subject.flow.sample(4000)
        centre, spread = own.median(0).values, own.T.cov() + 1e-6 * torch.eye(8)
        chol, freedom = torch.linalg.cholesky(1.3 * spread), 8.0
        chi = torch.distributions.Chi2(torch.tensor(freedom, dtype=torch.float64)).sample((rows, 1))
        white = torch.randn(rows, 8, dtype=torch.float64) / (chi / freedom).sqrt()
        x = centre + white @ chol.T
        constant = math.lgamma((freedom + 8) / 2) - math.lgamma(freedom / 2) - 4 * math.log(freedom * math.pi)
        log_q = constant - (freedom + 8) / 2 * (white.square().sum(1) / freedom).log1p() - chol.logdet()
    ratio = (torch.cat([subject.flow.log_prob(p) for p in x.split(20_000)]) - log_q).exp()
    error = ratio.std() / math.sqrt(rows)
    return within(f"{subject.name}, D = 8: mass {float(ratio.mean()):.4f}", abs(float((ratio.mean() - 1) / error)), 5.0)


@check(
    "samples follow the density: 20,000 samples in cells of a grid, p > 1e-6; log_prob of rsample_and_log_prob to 1e-8",
    nightly=8 * len(VECTORS),
    chunk=12,
)
@torch.no_grad()
def samples(seed: int, folder: Path) -> float:
    """Flows for vectors by turns, in one and two dimensions."""
    features = 1 + seed // len(VECTORS) % 2
    subject = flow_of(seed, names=VECTORS, features=[features], contexts=False, scale=0.05)
    x, log_prob = subject.flow.rsample_and_log_prob(20_000)
    bound = 1e-4 if subject.name == "ffjord" else 1e-8
    within(f"{subject.name}: log_prob of samples", off(log_prob, subject.flow.log_prob(x)), bound)
    fine = 400 if features == 2 else 4000
    points, volume = _grid(subject, fine)
    expected = _densities(subject, points) * volume * len(x)
    coarse = 40
    box = _box(subject)
    cell = lambda p: ((p + box) / (2 * box) * coarse).long().clamp(0, coarse - 1)  # noqa: E731
    index = lambda p: cell(p)[:, 0] * (coarse if features == 2 else 1) + (cell(p)[:, 1] if features == 2 else 0)  # noqa: E731
    cells = coarse**features
    wanted = torch.zeros(cells, dtype=torch.float64).index_add_(0, index(points), expected)
    got = torch.bincount(index(x), minlength=cells).double()
    many = wanted >= 10
    wanted, got = (torch.cat([v[many], v[~many].sum()[None]]) for v in (wanted, got))
    wanted[-1] = max(len(x) - float(wanted[:-1].sum()), 1.0)
    p = float(stats.chi2.sf(float(((got - wanted).square() / wanted).sum()), max(1, int(many.sum()))))
    within(f"{subject.name}, D = {features}: 1 / p", 1 / max(p, 1e-300), 1e6)
    return -p


@check(
    "bits/dim identities: equal levels cost log₂ L to 1e-6, the mass of a discretized logistic is its closed form"
    " to 1e-6",
    nightly=200,
    chunk=100,
)
@torch.no_grad()
def bits(seed: int, folder: Path) -> float:
    """A logistic base under the logit is uniform; an affine map of it has known masses of the integers."""
    levels, features = (2, 17, 256, 1024)[seed % 4], 1 + seed % 5
    uniform = dequantized(Flow(Chain([]), Logistic(features)), levels).double()
    x = torch.randint(levels, (64, features))
    found = bits_per_dim(-uniform.log_prob(x), features)
    margin = math.log2(1 - 2e-6)
    worst = within("equal levels", float((found + margin - math.log2(levels)).abs().max()), 1e-6)
    location, scale = (
        levels * torch.rand(1, dtype=torch.float64),
        0.05 * levels * (0.1 + torch.rand(1, dtype=torch.float64)),
    )
    flow = Flow(Affine(location, scale), Logistic(1)).double()
    k = torch.arange(levels, dtype=torch.float64)
    noise = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    density = flow.log_prob((k[:, None] + noise).reshape(-1, 1)).exp().reshape(levels, -1)
    edges = ((torch.arange(levels + 1, dtype=torch.float64) - location) / scale).sigmoid()
    return max(worst, within("masses of the integers", float((density.mean(1) - edges.diff()).abs().max()), 1e-6))
