"""Densities with a discrete choice in them, and dequantization by a flow."""

import pytest
import torch

from snflow import CDF, Flow, FoldedDensity, NormalMixture, StandardNormal, Uniform, VariationalDequantization, flows
from snflow.errors import ConfigError


def moved(density, scale=0.5):
    with torch.no_grad():
        for parameter in density.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return density


@pytest.mark.parametrize(
    "build", [lambda: NormalMixture((2,), components=4), lambda: FoldedDensity(StandardNormal((2,)))], ids=["mixture", "folded"]
)
def test_mass_is_one_and_samples_lie_where_the_density_is(build):
    torch.manual_seed(0)
    density = moved(build())
    side = torch.linspace(-12, 12, 1201)
    points = torch.cartesian_prod(side, side)
    with torch.no_grad():
        mass = density.log_prob(points).exp() * (side[1] - side[0]) ** 2
        assert abs(float(mass.sum()) - 1) < 1e-3
        samples = density.sample(40_000)
        for inside in (lambda x: x[:, 0] > 0.3, lambda x: x.norm(dim=1) < 1, lambda x: x[:, 1] > x[:, 0] ** 2):
            assert abs(float(inside(samples).double().mean()) - float(mass[inside(points)].sum())) < 0.01


def test_a_fold_is_three_to_one_and_its_gate_knows_only_what_reaches():
    torch.manual_seed(0)
    density = moved(FoldedDensity(StandardNormal((1,))), 0.3)
    a = float(torch.nn.functional.softplus(density.raw_fold.detach()))
    z = torch.tensor([[-a - 0.5], [0.2 * a], [a + 0.5]])
    gate = density._log_gate(z, torch.tensor([a])).exp()[:, :, 0]
    torch.testing.assert_close(gate.sum(1), torch.ones(3))
    assert torch.equal(gate > 0, torch.tensor([[True, False, False], [True, True, True], [False, False, True]]))
    x = torch.tensor([[0.2 * a - 2 * a], [-0.2 * a], [0.2 * a + 2 * a]])
    each = density.log_prob(x) - StandardNormal((1,)).log_prob(z[1:2].expand(3, 1))
    torch.testing.assert_close(each.exp(), gate[1], rtol=0, atol=1e-12)


def test_every_parameter_of_a_density_with_branches_learns():
    torch.manual_seed(0)
    for density in (moved(NormalMixture((2,), components=3)), moved(FoldedDensity(StandardNormal((2,))))):
        density.log_prob(2 * torch.randn(50, 2)).sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in density.parameters())


def test_a_cdf_before_a_uniform_base_is_the_density_itself():
    normal = torch.distributions.Normal(torch.tensor([0.5, -1.0]), 2.0)
    flow = Flow(CDF(torch.distributions.Normal, loc=normal.loc, scale=2.0), Uniform((2,)))
    x = torch.randn(10, 2)
    torch.testing.assert_close(flow.log_prob(x), normal.log_prob(x).sum(1))
    samples = flow.sample(20_000)
    torch.testing.assert_close(samples.mean(0), normal.loc, rtol=0, atol=0.06)


def test_a_distribution_without_quantiles_is_refused():
    with pytest.raises(ConfigError, match="with cdf and icdf"):
        CDF(torch.distributions.Beta, concentration1=1.0, concentration0=2.0)
    with pytest.raises(ConfigError, match="with cdf and icdf"):
        CDF(torch.distributions.Normal, mean=1.0)


def test_dequantizing_noise_has_its_density():
    torch.manual_seed(0)
    flow = flows.flowpp((1, 4, 4), quantized=9, width=4, blocks=1, components=2, dequantization_couplings=2)
    moved(flow, 0.2)
    k = torch.randint(9, (500, 1, 4, 4), dtype=torch.uint8)
    with torch.no_grad():
        x, log_q = flow.dequantization(k)
        u = x - k
        assert bool(((u >= 0) & (u < 1)).all())
        # The density of u by the other direction: u -> v -> eps.
        v = torch.logit(u)
        noise, log_det = flow.dequantization.bijection.inverse(v, 2 * k / 8 - 1)
        standard = StandardNormal((1, 4, 4))
        expected = standard.log_prob(noise) + log_det - (u * (1 - u)).log().flatten(1).sum(1)
        # u = x − k has the rounding of x, which the logit of a small u magnifies.
        torch.testing.assert_close(log_q, expected, rtol=1e-5, atol=0)
        assert abs(float(noise.mean())) < 0.05
        bright, dark = (torch.full_like(k, level) for level in (8, 0))
        generators = [torch.Generator().manual_seed(3) for _ in range(2)]
        moved_by = [flow.dequantization(q, generator=g)[0] - q for q, g in zip((bright, dark), generators, strict=True)]
    assert (moved_by[0] - moved_by[1]).abs().max() > 0.01
    with pytest.raises(ConfigError, match="takes the image as its context"):
        VariationalDequantization(9, flow.bijection[0])


def test_the_dequantizing_flow_learns_with_the_other_one():
    torch.manual_seed(0)
    flow = flows.flowpp((1, 4, 4), quantized=17, width=8, blocks=1, components=4)
    for step in range(2):
        flow.zero_grad()
        (-flow(torch.randint(17, (8, 1, 4, 4))).mean()).backward()
        if step == 0:
            with torch.no_grad():
                for parameter in flow.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
    silent = [n for n, p in flow.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A 1×1 convolution of one channel has no triangles.
    assert not [n for n in silent if not n.endswith(("lower", "upper"))]
