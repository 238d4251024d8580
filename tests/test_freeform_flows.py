"""Residual, continuous, masked and Gaussianizing flows: they integrate to one and sample what they say."""

import pytest
import torch

from snflow import GDN, Chain, Flow, GeneralizedSylvester, Permutation, StandardNormal, flows

SMALL = {
    "residual": {"layers": 3, "width": 16},
    "densenet": {"layers": 3, "growth": 8},
    "ffjord": {"width": 16, "tolerance": 1e-6},
    "mintnet": {"layers": 3, "groups": 4},
    "gaussianization": {"layers": 3, "bins": 8},
}


def moved(flow, scale):
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return flow.eval()


def made(name, features=2):
    """The flow with random weights, so that nothing is near the identity any more."""
    torch.manual_seed(1)
    if name == "generalized sylvester":
        layers = [GeneralizedSylvester(features, units=3, width=16), Permutation.reversed(features), GeneralizedSylvester(features)]
        return moved(Flow(Chain(layers), StandardNormal((features,))), 0.15)
    if name == "gdn":
        return moved(Flow(Chain([GDN(features, vectors=True)]), StandardNormal((features,))), 0.3)
    return moved(getattr(flows, name)(features, **SMALL[name]), 0.15)


EVERY = [*SMALL, "generalized sylvester", "gdn"]


@pytest.mark.parametrize("name", EVERY)
def test_a_density_in_the_plane_integrates_to_one(name):
    flow = made(name)
    with torch.no_grad():
        x = flow.sample(2000)
        reach = 1.3 * float(x.abs().max()) + 4
        centres = reach * (2 * (torch.arange(300) + 0.5) / 300 - 1)
        points = torch.cartesian_prod(centres, centres)
        mass = sum(float(flow.log_prob(part).exp().sum()) for part in points.split(30_000)) * (2 * reach / 300) ** 2
    assert abs(mass - 1) < 1e-3


@pytest.mark.parametrize("name", EVERY)
def test_samples_come_back_and_have_their_density(name):
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
        flow.train().log_prob(x)  # what the first batch sets
        before = float(flow.eval().log_prob(x).mean())
    flow.train()
    for _ in range(25):
        optimizer.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        assert float(flow.eval().log_prob(x).mean()) > before + 0.02
