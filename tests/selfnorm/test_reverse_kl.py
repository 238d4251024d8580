"""Losses in which log_prob has a plus, such as a reverse Kullback–Leibler divergence: the penalty falls too."""

import pytest
import torch

from snflow import (
    Flow,
    Newton,
    Penalty,
    SelfNormalizingConv2d,
    SelfNormalizingDense,
    StandardNormal,
    flows,
)

PENALTY = Penalty(weight=10.0, guard=False)
MODELS = {
    "dense": (lambda: SelfNormalizingDense(3, tracking=PENALTY), (3,)),
    "conv": (lambda: SelfNormalizingConv2d(2, tracking=PENALTY), (2, 4, 4)),
    "conv, symmetric": (
        lambda: SelfNormalizingConv2d(2, tracking=Penalty(weight=10.0, guard=False, symmetric=True)),
        (2, 4, 4),
    ),
    "dense, a few rows": (lambda: SelfNormalizingDense(3, tracking=Penalty(weight=10.0, guard=False, samples=8)), (3,)),
    "dense, multiplier": (
        lambda: SelfNormalizingDense(3, tracking=Penalty(weight=10.0, guard=False, multiplier="geco")),
        (3,),
    ),
    "glow": (lambda: flows.glow((2, 4, 4), scales=1, layers=1, width=4, tracking=PENALTY).bijection, (2, 4, 4)),
    "pair": (lambda: flows.pair(3, width=8, depth=1).bijection, (3,)),
}


def error(bijection, x):
    """The mean of ‖g(f(x)) − x‖² over the batch."""
    back = bijection.decode(bijection.encode(x), inverse="learned")
    return float((back - x).square().flatten(1).sum(1).mean().detach())


@pytest.mark.parametrize("sign", [-1, 1], ids=["likelihood maximized", "likelihood minimized"])
@pytest.mark.parametrize("name", MODELS)
def test_a_few_steps_of_the_inverse_reduce_the_reconstruction_error(name, sign):
    build, shape = MODELS[name]
    bijection, x = build(), torch.randn(50, *shape)
    bijection(x)  # the first batch, for layers that are initialized by it
    inverse = [p for key, p in bijection.named_parameters() if "inverse_" in key]
    with torch.no_grad():
        for parameter in inverse:
            parameter += 0.1 * torch.randn_like(parameter)
    before = error(bijection, x)
    optimizer = torch.optim.SGD(inverse, lr=1e-3 if len(shape) == 3 or name == "pair" else 1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        z, log_det = bijection(x)
        (sign * (log_det - 0.5 * z.square().flatten(1).sum(1))).mean().backward()
        optimizer.step()
    assert error(bijection, x) < 0.9 * before


@pytest.mark.parametrize("tracking", [Penalty(), Penalty(guard=False), Newton()], ids=["penalty", "no guard", "newton"])
def test_variational_inference_finds_a_gaussian(tracking):
    """min KL(q‖p) for q = f⁻¹(base) and a Gaussian p in four dimensions, compared with its exact value."""
    scale = torch.tril(0.5 * torch.randn(4, 4), -1) + torch.diag(torch.linspace(0.5, 2, 4))
    target = torch.distributions.MultivariateNormal(torch.ones(4), scale_tril=scale)
    layer = SelfNormalizingDense(4, tracking=tracking)
    flow = Flow(layer, StandardNormal((4,)))
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        x = flow.rsample(128)
        (flow.log_prob(x) - target.log_prob(x)).mean().backward()
        optimizer.step()
    inverse = torch.linalg.inv(layer.weight.detach())
    found = torch.distributions.MultivariateNormal(-inverse @ layer.bias.detach(), inverse @ inverse.T)
    assert torch.distributions.kl_divergence(found, target) < 0.05
    assert layer.inverse_residual((4,)) < 0.1
