"""sbi's contract of density estimators, for our conditional flows behind a small adapter.

Carried over: a loss per row; log-densities ``(sample, batch)`` of inputs with and without a sample dimension, for one
condition or one per row, also with a sample dimension; samples ``(*sample_shape, batch, *event)``; equal inputs have
equal log-densities; batches agree with single conditions; image conditions through an embedding; standardized data of
any scale; a posterior found by training; an estimator that is saved and copied; and a flow of ours trained by sbi.
"""

import copy
import io

import pytest
import torch
from torch import nn

from foreign.ours import CONDITIONAL, flow, tolerance
from snflow import flows, standardized
from snflow.flows.preprocessing import with_context_embedding

pytest.importorskip("sbi")
pytestmark = pytest.mark.filterwarnings("ignore")
estimators = pytest.importorskip("sbi.neural_nets.estimators.base")


class Estimator(estimators.ConditionalDensityEstimator):
    """A conditional flow as an estimator of sbi."""

    def log_prob(self, input, condition):
        self._check_condition_shape(condition)
        self._check_input_shape(input)
        input, condition, batch = self._broadcast_and_align(input, condition)
        rows = input.reshape(-1, *self.input_shape), condition.reshape(-1, *self.condition_shape)
        return self.net.log_prob(*rows).reshape(-1, batch)

    def loss(self, input, condition):
        return -self.log_prob(input[None], condition)[0]

    def sample(self, sample_shape, condition):
        self._check_condition_shape(condition)
        return self.net.distribution(condition).sample(sample_shape)


NAMES = [name for name in CONDITIONAL if name not in ("ffjord", "pair")]
EVENTS, CONDITIONS = [(1,), (4,)], [(1,), (7,)]
SMALLEST = {"nice": 2, "realnvp": 2}
"""Couplings need two features."""


def estimator(name, event, condition):
    if event[0] < SMALLEST.get(name, 1):
        event = (SMALLEST[name],)
    return Estimator(flow(name, event, condition[0]), event, condition), event


def every(test):
    for option, values in (("condition", CONDITIONS), ("event", EVENTS), ("name", NAMES)):
        test = pytest.mark.parametrize(option, values)(test)
    return test


@every
def test_log_densities_and_losses_have_the_shapes_of_the_contract(name, event, condition):
    built, event = estimator(name, event, condition)
    for samples, batch in ((1, 1), (2, 10)):
        x, c = torch.randn(samples, batch, *event), torch.randn(batch, *condition)
        log_prob = built.log_prob(x, c)
        assert log_prob.shape == (samples, batch)
        assert built.loss(x[0], c).shape == (batch,)
        torch.testing.assert_close(built.log_prob(x[0], c), log_prob[:1])
        wide = c.expand(samples, *c.shape)
        torch.testing.assert_close(built.log_prob(x, wide), log_prob)
        assert built.log_prob(x[:, :1], c).shape == (samples, batch)


@every
def test_samples_have_the_shapes_of_the_contract(name, event, condition):
    built, event = estimator(name, event, condition)
    for sample_shape, batch in (((), 1), ((1,), 10), ((2, 3), 2)):
        c = torch.randn(batch, *condition)
        assert built.sample(sample_shape, c).shape == (*sample_shape, batch, *event)
        x, log_prob = built.sample_and_log_prob((3,), c)
        torch.testing.assert_close(log_prob, built.net.distribution(c).log_prob(x))


@every
def test_equal_inputs_and_single_conditions_give_equal_log_densities(name, event, condition):
    built, event = estimator(name, event, condition)
    x, c = torch.randn(1, 6, *event).expand(2, 6, *event), torch.randn(6, *condition)
    log_prob = built.log_prob(x, c)
    torch.testing.assert_close(log_prob[0], log_prob[1])
    apart = torch.cat([built.log_prob(x[:, i : i + 1], c[i : i + 1]) for i in range(6)], 1)
    torch.testing.assert_close(apart, log_prob, rtol=0, atol=tolerance(name))


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_samples_agree_with_single_conditions(name):
    built, _ = estimator(name, (2,), (3,))
    c = torch.randn(2, 3)
    both, alone = built.sample((800,), c), [built.sample((800,), c[i : i + 1])[:, 0] for i in range(2)]
    for i in range(2):
        spread = both[:, i].quantile(0.75, 0) - both[:, i].quantile(0.25, 0)
        shift = (both[:, i].median(0)[0] - alone[i].median(0)[0]) / spread
        assert bool((shift.abs() < 0.25).all())  # five standard errors


@pytest.mark.parametrize("condition", [(2, 1), (2, 7), (7, 7)])
@pytest.mark.parametrize("name", ["maf", "neural_spline", "realnvp", "naf"])
def test_conditions_of_any_shape_through_an_embedding(name, condition):
    net = nn.Sequential(nn.Flatten(), nn.Linear(condition[0] * condition[1], 5))
    built = Estimator(with_context_embedding(flow(name, 2, 5), net, condition), (2,), condition)
    c = torch.randn(4, *condition)
    assert built.log_prob(torch.randn(3, 4, 2), c).shape == (3, 4)
    assert built.sample((6,), c).shape == (6, 4, 2)
    built.loss(torch.randn(4, 2), c).mean().backward()
    assert net[1].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("name", ["maf", "neural_spline", "realnvp", "nice"])
def test_standardized_flows_do_not_depend_on_units(name, scale):
    torch.manual_seed(1)
    data, c = 3 + torch.randn(200, 2), torch.randn(5, 3)
    plain = flow(name, 2, 3)
    one, other = standardized(copy.deepcopy(plain), data), standardized(copy.deepcopy(plain), scale * data)
    x = data[:5]
    shift = 2 * torch.tensor(scale).log()
    torch.testing.assert_close(other.log_prob(scale * x, c) + shift, one.log_prob(x, c), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_an_estimator_is_copied_and_saved(name):
    built, _ = estimator(name, (2,), (3,))
    x, c = torch.randn(2, 4, 2), torch.randn(4, 3)
    file = io.BytesIO()
    torch.save(built, file)
    file.seek(0)
    for twin in (copy.deepcopy(built), torch.load(file, weights_only=False)):
        torch.testing.assert_close(twin.log_prob(x, c), built.log_prob(x, c), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(3,), (2, 5), (4, 2, 3)])
def test_wrong_shapes_are_refused(shape):
    built, _ = estimator("maf", (4,), (7,))
    with pytest.raises((ValueError, RuntimeError)):
        built.log_prob(torch.randn(*shape), torch.randn(2, 7))
    with pytest.raises((ValueError, RuntimeError)):
        built.net.log_prob(torch.randn(2, 4), torch.randn(*shape))


@pytest.mark.parametrize("name", ["maf", "realnvp"])
def test_training_finds_a_linear_gaussian_posterior(name):
    """theta | x with theta ~ N(0, 1), x = theta + N(0, 1/2): mean x/(1 + 1/4)."""
    torch.manual_seed(0)
    theta = torch.randn(2000, 2)
    x = theta + 0.5 * torch.randn(2000, 2)
    built = Estimator(flows.ready_flows()[name](2, context_shape=2, layers=2, width=32), (2,), (2,)).train()
    optimizer = torch.optim.Adam(built.parameters(), 5e-3)
    for step in range(200):
        rows = torch.arange(200) + 200 * (step % 10)
        optimizer.zero_grad()
        built.loss(theta[rows], x[rows]).mean().backward()
        optimizer.step()
    built.eval()
    seen = torch.tensor([[0.8, -0.5]])
    samples = built.sample((2000,), seen)[:, 0]
    torch.testing.assert_close(samples.mean(0), seen[0] / 1.25, rtol=0, atol=0.12)
    torch.testing.assert_close(samples.std(0), torch.full((2,), 0.2**0.5), rtol=0, atol=0.08)
    exact = torch.distributions.Normal(seen[0] / 1.25, 0.2**0.5).log_prob(samples).sum(1).mean()
    assert (built.log_prob(samples[:, None], seen).mean() - exact).abs() < 0.15


def test_sbi_trains_and_samples_a_flow_of_ours():
    inference = pytest.importorskip("sbi.inference")

    def build(theta, x):
        net = flows.maf(theta.shape[1], context_shape=x.shape[1], layers=2, width=16).float()
        return Estimator(net, theta.shape[1:], x.shape[1:])

    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        prior = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
        theta = prior.sample((1000,))
        x = theta + 0.5 * torch.randn(1000, 2)
        trainer = inference.NPE(prior, density_estimator=build, show_progress_bars=False)
        trainer.append_simulations(theta, x).train(max_num_epochs=30, learning_rate=5e-3)
        posterior = trainer.build_posterior()
        samples = posterior.sample((1000,), x=torch.tensor([[0.8, -0.5]]), show_progress_bars=False)
    finally:
        torch.set_default_dtype(dtype)
    torch.testing.assert_close(samples.mean(0), torch.tensor([0.64, -0.4]).float(), rtol=0, atol=0.2)
