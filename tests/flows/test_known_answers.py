"""Flows on problems whose answers are known in closed form: densities, posteriors, coverage."""

import math

import pytest
import torch

from snflow import Newton, flows


def fitted(flow, draw, steps, rate=3e-3):
    """Maximum likelihood on fresh draws; ``draw(n)`` gives data and a context or ``None``."""
    optimizer = torch.optim.Adam(flow.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    flow.train()
    for _ in range(steps):
        x, context = draw(256)
        optimizer.zero_grad()
        (-flow.log_prob(x, context).mean()).backward()
        optimizer.step()
        schedule.step()
    return flow.eval()


def normal_log_prob(x, mean, scale):
    return (-0.5 * ((x - mean) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)).sum(-1)


def banana(n, _context=None):
    first = torch.randn(n, 1)
    return torch.cat([first, 0.5 * first**2 + 0.5 * torch.randn(n, 1)], 1), None


def banana_log_prob(x):
    return normal_log_prob(x[:, :1], 0.0, 1.0) + normal_log_prob(x[:, 1:] - 0.5 * x[:, :1] ** 2, 0.0, 0.5)


BANANAS = {
    "maf": lambda: flows.maf(2, layers=3, width=32),
    "spline": lambda: flows.neural_spline(2, layers=3, width=32),
    "dense": lambda: flows.dense((2,), layers=6, activation="spline", tracking=Newton()),
}


@pytest.mark.parametrize("name", BANANAS)
def test_the_divergence_from_a_known_density_is_small(name):
    torch.manual_seed(0)
    with torch.no_grad():
        test = banana(4000)[0]
    flow = fitted(
        BANANAS[name]().float(), lambda n: (banana(n)[0].float(), None), 400, 1e-2 if name == "dense" else 5e-3
    )
    with torch.no_grad():
        divergence = (banana_log_prob(test) - flow.log_prob(test.float()).double()).mean()
    assert -0.02 < divergence < (0.15 if name == "dense" else 0.05)


MIXING = torch.tensor([[1.0, 0.5], [-0.3, 0.8]], dtype=torch.float64)
NOISE = 0.6


def linear_gaussian(n):
    """θ ~ N(0, 1)², y = A θ + noise: the posterior is normal, with known mean and covariance."""
    theta = torch.randn(n, 2, dtype=torch.float32)
    y = theta @ MIXING.float().T + NOISE * torch.randn(n, 2, dtype=torch.float32)
    return theta, y


@pytest.fixture(scope="module")
def posterior():
    torch.manual_seed(0)
    flow = flows.maf(2, layers=3, width=32, context_shape=2).float()
    return fitted(flow, linear_gaussian, 600, 5e-3)


def test_a_learned_posterior_has_the_moments_of_the_true_one(posterior):
    torch.manual_seed(1)
    _, y = linear_gaussian(50)
    covariance = torch.linalg.inv(torch.eye(2) + MIXING.T @ MIXING / NOISE**2)
    means = y.double() @ (covariance @ MIXING.T / NOISE**2).T
    draws = posterior.sample(2000, y).double()
    scales = covariance.diagonal().sqrt()
    assert ((draws.mean(0) - means) / scales).abs().mean() < 0.08
    assert (draws.std(0) / scales - 1).abs().mean() < 0.06


def test_credible_intervals_have_their_nominal_coverage(posterior):
    """The rank of the truth among posterior draws is uniform (Talts et al. 2018)."""
    torch.manual_seed(2)
    theta, y = linear_gaussian(600)
    draws = posterior.sample(200, y)
    ranks = (draws < theta).double().mean(0).sort(0).values
    uniform = (torch.arange(600) + 0.5) / 600
    # Kolmogorov–Smirnov at the level 0.001, with a margin for 600 steps of training.
    assert (ranks - uniform[:, None]).abs().max() < 1.95 / math.sqrt(600) + 0.02
    for level in (0.5, 0.9):
        inside = ((ranks > (1 - level) / 2) & (ranks < (1 + level) / 2)).double().mean(0)
        assert (inside - level).abs().max() < 0.08


def test_the_evidence_of_a_known_posterior_comes_from_the_flow(posterior):
    """log p(y) = log p(θ) + log p(y | θ) − log q(θ | y) for every θ, where q is the posterior."""
    torch.manual_seed(3)
    _, y = linear_gaussian(20)
    theta = posterior.sample(500, y)
    with torch.no_grad():
        log_q = torch.stack([posterior.log_prob(draw, y) for draw in theta]).double()
    theta, y = theta.double(), y.double()
    joint = normal_log_prob(theta, 0.0, 1.0) + normal_log_prob(y - theta @ MIXING.T, 0.0, NOISE)
    evidence = torch.distributions.MultivariateNormal(torch.zeros(2), MIXING @ MIXING.T + NOISE**2 * torch.eye(2))
    estimated = (joint - log_q).logsumexp(0) - math.log(500)
    assert (estimated - evidence.log_prob(y)).abs().mean() < 0.05
