"""Preprocessing around a flow: standardization, dequantization, base density, and what a recipe composes of them."""

import pytest
import torch

import snflow
from snflow import flows
from snflow.errors import ConfigError, ShapeError


def test_standardized_data_have_zero_mean_and_keep_their_likelihood():
    x = 5 + 100 * torch.randn(400, 3)
    flow = snflow.standardized(flows.dense(3, layers=1), x).eval()
    with torch.no_grad():
        flow.bijection[2].weight.copy_(torch.eye(3))
        z = flow.encode(x)
    assert z.mean().abs() < 1e-9
    assert abs(z.std(correction=0) - 1) < 1e-9
    gaussian = torch.distributions.Normal(x.mean(0), x.std(0, correction=0))
    torch.testing.assert_close(flow(x), gaussian.log_prob(x).sum(1))


def test_columns_far_from_zero_are_standardized_in_the_precision_of_the_flow():
    x, c = (1e9 + torch.randn(500, 1) for _ in range(2))
    flow = snflow.standardized(flows.maf(1, context_shape=1).double(), x, c)
    assert float(flow.bijection[0](x)[0].std()) == pytest.approx(1, abs=0.01)
    assert float(flow.bijection[1].net(c).std()) == pytest.approx(1, abs=0.01)
    single = snflow.standardized(flows.maf(1).float(), x)
    assert float(single.bijection[0].scale) == 1.0  # in float32 the column is constant


def test_a_dequantized_flow_is_on_integers():
    flow = snflow.dequantized(flows.conv((1, 4, 4), scales=2, layers=1), 17)
    assert flow.dequantization.num_values == 17
    assert flow.sample(2).shape == (2, 1, 4, 4)
    assert flow.sample(2).dtype == torch.uint8


def test_variational_noise_is_trained_with_the_flow():
    flow = flows.flowpp((1, 4, 4), width=8, depth=1, components=2)
    flow = snflow.dequantized(flow, 17, noise="variational", noise_layers=2, noise_width=8, noise_depth=1)
    (-flow(torch.randint(17, (6, 1, 4, 4))).mean()).backward()
    assert all(p.grad is not None for p in flow.dequantization.parameters())
    assert any(p.grad.abs().sum() > 0 for p in flow.dequantization.parameters())


def test_fixed_layers_join_the_chain_and_trained_ones_are_shared():
    flow = flows.maf(3, layers=2)
    around = snflow.standardized(flow, torch.randn(50, 3))
    assert len(around.bijection) == len(flow.bijection) + 1
    assert around.bijection[1] is flow.bijection[0]


def test_dtype_and_mode_are_those_of_the_flow():
    flow = flows.maf(3, layers=1).float().eval()
    around = snflow.with_base(snflow.standardized(flow, torch.randn(50, 3).double()), "logistic")
    assert not around.training
    assert around.log_prob(torch.randn(2, 3).float()).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "kind"),
    [("normal", snflow.StandardNormal), ("diagonal_normal", snflow.DiagonalNormal), ("logistic", snflow.Logistic)],
)
def test_a_base_by_name(name, kind):
    assert isinstance(snflow.with_base(flows.dense(3), name).base, kind)
    assert isinstance(snflow.preprocess(flows.dense(3), torch.randn(9, 3), base=name).base, kind)


def test_a_base_of_your_own():
    base = snflow.NormalMixture((3,), components=2)
    assert snflow.with_base(flows.maf(3), base).base is base
    with pytest.raises(ShapeError):
        snflow.with_base(flows.maf(4), base)


def test_preprocess_standardizes_continuous_data_and_dequantizes_integers():
    x = 10 + torch.randn(100, 2)
    flow = flows.maf(2, layers=1)
    assert isinstance(snflow.preprocess(flow, x).bijection[0], snflow.Affine)
    assert snflow.preprocess(flow, x, standardize=False).bijection[0] is flow.bijection[0]
    integers = snflow.preprocess(flow, torch.randint(5, (100, 2)), 5, logit_alpha=0.1)
    assert integers.dequantization.num_values == 5
    assert integers.bijection[1].alpha == 0.1


def test_preprocess_fits_gaussianization_layers():
    x = torch.randn(500, 2).exp()
    flow = snflow.preprocess(flows.gaussianization(2, layers=3), x)
    assert all(bool(layer.initialized) for layer in list(flow.bijection)[1:])
    assert flow.eval().log_prob(x).mean() > -3


def of_shares():
    return snflow.Flow(snflow.Chain([snflow.Logit(), snflow.Dense(2)]), snflow.StandardNormal(2))


def test_a_uniform_base_does_not_bound_the_data_of_a_distribution_function():
    cdf = snflow.Flow(snflow.CDF(torch.distributions.Normal, loc=0.0, scale=1.0), snflow.Uniform(2))
    assert snflow.standardized(cdf, 10 * torch.randn(9, 2)).log_prob(torch.zeros(3, 2)).isfinite().all()


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda: snflow.standardized(snflow.dequantized(flows.maf(2), 5), torch.randn(9, 2)), ConfigError, "integer"),
        (lambda: snflow.standardized(flows.circular_spline(2), torch.randn(9, 2)), ConfigError, "a bounded range"),
        (lambda: snflow.standardized(of_shares(), torch.rand(9, 2)), ConfigError, "a bounded range"),
        (lambda: snflow.dequantized(snflow.dequantized(flows.maf(2), 5), 5), ConfigError, "dequantized already"),
        (lambda: snflow.dequantized(flows.maf(2), 5, noise="variational"), ShapeError, "use noise='uniform'"),
        (lambda: snflow.dequantized(flows.maf(2), 5, noise="variatonal"), ConfigError, "did you mean 'variational'"),
        (lambda: snflow.with_base(flows.maf(2), "gauss"), ConfigError, "base to be one of"),
        (lambda: snflow.dequantized(flows.maf(2), 5, nois="uniform"), TypeError, "did you mean 'noise'"),
        (lambda: snflow.preprocess(flows.maf(2), torch.randn(9, 2), standardise=0), TypeError, "mean 'standardize'"),
        (lambda: snflow.preprocess(flows.maf(2), torch.randn(9, 2), logit_alfa=0), TypeError, "mean 'logit_alpha'"),
    ],
)
def test_wrong_compositions_are_refused(build, kind, message):
    with pytest.raises(kind, match=message):
        build()
