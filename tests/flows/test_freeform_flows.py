"""Residual, continuous, masked and Gaussianizing flows: densities integrate to one and match the samples."""

import pytest
import torch

from snflow import GDN, Chain, Flow, StandardNormal, flows

SMALL = {
    "residual": {"layers": 3, "width": 16},
    "densenet": {"layers": 3, "growth": 8},
    "ffjord": {"width": 16, "tolerance": 1e-6},
    "mintnet": {"layers": 3, "groups": 4},
    "gaussianization": {"layers": 3, "bins": 8},
    "generalized_sylvester": {"layers": 2, "width": 16},
}


def moved(flow, scale):
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return flow.eval()


def made(name, features=2):
    """The flow with random weights, away from the identity."""
    torch.manual_seed(1)
    if name == "gdn":
        return moved(Flow(Chain([GDN(features, vectors=True)]), StandardNormal((features,))), 0.3)
    return moved(getattr(flows, name)(features, **SMALL[name]), 0.15)


EVERY = [*SMALL, "gdn"]


@pytest.mark.parametrize("name", EVERY)
def test_a_density_in_the_plane_integrates_to_one(name):
    flow = made(name)
    with torch.no_grad():
        x = flow.sample(2000)
        reach = 1.3 * float(x.abs().max()) + 4
        centres = reach * (2 * (torch.arange(200) + 0.5) / 200 - 1)
        points = torch.cartesian_prod(centres, centres)
        mass = sum(float(flow.log_prob(part).exp().sum()) for part in points.split(30_000)) * (2 * reach / 200) ** 2
    assert abs(mass - 1) < 1e-3


@pytest.mark.parametrize("name", EVERY)
def test_samples_are_inverted_and_have_their_density(name):
    flow = made(name)
    with torch.no_grad():
        x, log_prob = flow.rsample_and_log_prob(300)
        torch.testing.assert_close(flow.log_prob(x), log_prob, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(flow.decode(flow.encode(x)), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_a_few_steps_of_training_raise_the_likelihood(name):
    torch.manual_seed(2)
    flow = getattr(flows, name)(2, **SMALL[name])
    x = torch.randn(256, 2) @ torch.tensor([[1.5, 0.8], [0.0, 0.4]]) + 0.5
    optimizer = torch.optim.Adam(flow.parameters(), 5e-3)
    with torch.no_grad():
        flow.train().log_prob(x)  # initializes act-norms
        before = float(flow.eval().log_prob(x).mean())
    flow.train()
    for _ in range(25):
        optimizer.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        assert float(flow.eval().log_prob(x).mean()) > before + 0.02
