"""Flows as Pyro's distributions, and bijections as its transforms: inference reaches their parameters and supports.

Run where Pyro is installed: ``pytest tests/foreign/test_pyro.py``.
"""

import math

import pytest
import torch
from torch.distributions import constraints

import snflow
from context_layer import ContextScale

pyro = pytest.importorskip("pyro")
dist, infer, poutine = pyro.distributions, pyro.infer, pyro.poutine

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def _fresh():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


def plain_flow():
    return snflow.Flow(snflow.Chain([snflow.Dense(2), snflow.LeakyReLU()]), snflow.StandardNormal(2)).eval()


def test_a_flow_is_sampled_and_scored():
    density = plain_flow()
    trace = poutine.trace(lambda: pyro.sample("x", density.distribution())).get_trace()
    trace.compute_log_prob()
    site = trace.nodes["x"]
    assert isinstance(site["fn"], dist.Distribution)
    torch.testing.assert_close(site["log_prob"], density.log_prob(site["value"][None])[0])


def test_a_flow_in_a_plate_with_a_context_and_observations():
    density = snflow.Flow(ContextScale(), snflow.StandardNormal(3))
    context, data = torch.randn(5, 2), torch.randn(5, 3)

    def model():
        with pyro.plate("rows", 5):
            return pyro.sample("x", density.distribution(context), obs=data)

    trace = poutine.trace(model).get_trace()
    assert trace.log_prob_sum().item() == pytest.approx(density.log_prob(data, context).sum().item())


def test_the_methods_of_pyro_keep_the_density():
    density = plain_flow().distribution()
    x = density.sample((4, 3))
    wide = density.expand_by((4, 3))
    assert wide.shape() == (4, 3, 2)
    torch.testing.assert_close(wide.to_event(1).log_prob(x), density.log_prob(x).sum(1))
    keep = torch.tensor([True, False, True])
    torch.testing.assert_close(wide.mask(keep).log_prob(x), density.log_prob(x) * keep)
    assert wide().shape == (4, 3, 2)
    assert density.event_dim == 1


def test_a_flow_as_prior_and_its_support_in_nuts():
    density = snflow.flows.circular_spline(1, layers=1).double().eval()
    assert density.support.base_constraint.upper_bound == math.pi

    def model():
        angle = pyro.sample("angle", density.distribution())
        pyro.sample("seen", dist.Normal(torch.cos(angle).sum(), 0.5), obs=torch.tensor(-1.0))

    mcmc = infer.MCMC(infer.NUTS(model, step_size=0.5, adapt_step_size=False), 40, 5, disable_progbar=True)
    mcmc.run()
    angles = mcmc.get_samples()["angle"]
    assert bool((angles.abs() <= math.pi).all())
    assert angles.std() > 0.1


def test_variational_inference_with_a_flow_as_prior():
    density = plain_flow()

    def model():
        x = pyro.sample("x", density.distribution())
        pyro.sample("seen", dist.Normal(x.sum(), 1.0), obs=torch.tensor(2.0))

    guide = infer.autoguide.AutoNormal(model)
    svi = infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), infer.Trace_ELBO())
    losses = [svi.step() for _ in range(20)]
    assert all(math.isfinite(loss) for loss in losses)


def test_the_parameters_of_a_transform_are_trained_in_a_guide():
    bijection = snflow.Chain([snflow.Dense(2), snflow.LeakyReLU()]).eval()
    before = [p.detach().clone() for p in bijection.parameters()]

    def model():
        pyro.sample("x", dist.Normal(torch.tensor([3.0, -3.0]), 1.0).to_event(1))

    guide = infer.autoguide.AutoNormalizingFlow(model, lambda features: snflow.as_transform(bijection, features))
    svi = infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), infer.Trace_ELBO(num_particles=20))
    losses = [svi.step() for _ in range(50)]
    assert losses[-1] < losses[0] / 3
    assert all(not torch.equal(p, q) for p, q in zip(before, bijection.parameters(), strict=True))


def test_errors_keep_their_class_in_a_model():
    with pytest.raises(snflow.errors.ShapeError, match="Dense: expected event shape") as caught:
        poutine.trace(lambda: snflow.Dense(2)(torch.zeros(1, 3))).get_trace()
    assert "Trace Shapes" in str(caught.value)  # Pyro has built it anew, from one message


def test_a_bounded_prior_outside_its_support_is_refused():
    density = snflow.Flow(snflow.Logit(), snflow.StandardNormal(2))
    with pyro.validation_enabled(True), pytest.raises(ValueError, match="support"):
        density.distribution().log_prob(torch.tensor([0.5, 1.5]))
    assert isinstance(density.distribution().support.base_constraint, type(constraints.unit_interval))
