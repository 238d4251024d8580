"""torch's own tests of distributions, transforms and constraints, for flows and bijections as objects of torch.

Carried over, for ready flows and for layers of the catalogue: ``inv.inv``, equality and ``with_cache`` of a transform,
caching in both directions, its round trip, shapes, event dimensions and Jacobian, composition, ``Independent``,
``TransformedDistribution``, copies and pickles; of a distribution the shapes of samples and log-densities, detached and
reparameterized samples, ``expand``, validation, the support and its bijections, mixtures, and a density that integrates
to one.
"""

import copy
import pickle

import pytest
import torch
from torch.distributions import (
    Categorical,
    ComposeTransform,
    Distribution,
    Independent,
    MixtureSameFamily,
    Normal,
    TransformedDistribution,
    biject_to,
    transform_to,
)
from torch.distributions.transforms import AffineTransform, IndependentTransform, ReshapeTransform

from foreign.ours import CONDITIONAL, VECTORS, flow, tolerance
from snflow import Flow, StandardNormal, as_transform
from snflow.distributions.torch_distribution import FlowDistribution
from snflow.testing.cases import CATALOGUE

SAMPLE_SHAPES = [(), (1,), (4,), (3, 2), (0,)]
LAYERS = sorted(name for name, case in CATALOGUE.items() if "context" not in name)


def standard(shape):
    return Independent(Normal(torch.zeros(shape), torch.ones(shape)), len(shape))


def transform_of(name):
    """A layer of the catalogue as a transform, and events in its codomain, with two leading dimensions."""
    case = CATALOGUE[name]
    return as_transform(case.layer(), case.event_shape), case.sample(2, 3, *case.event_shape, dtype=torch.float64)


# Transforms


@pytest.mark.parametrize("name", LAYERS)
def test_a_transform_is_inverted_and_shaped_as_it_says(name):
    transform, y = transform_of(name)
    x = transform.inv(y)
    bound = max(CATALOGUE[name].round_trip, 1e-9)
    torch.testing.assert_close(transform(x), y, rtol=bound, atol=bound)
    assert transform.inv.inv is transform
    assert transform.inverse_shape(y.shape) == x.shape
    assert transform.forward_shape(x.shape) == y.shape
    inputs, outputs = transform.domain.event_dim, transform.codomain.event_dim
    log_det = transform.log_abs_det_jacobian(x, y)
    assert log_det.shape == y.shape[: y.dim() - outputs] == x.shape[: x.dim() - inputs]
    torch.testing.assert_close(transform.inv.log_abs_det_jacobian(y, x), -log_det, rtol=0, atol=0)
    assert transform.domain.check(x).shape == transform.codomain.check(y).shape == log_det.shape


@pytest.mark.parametrize("name", LAYERS)
def test_the_log_determinant_of_a_transform_is_that_of_its_jacobian(name):
    transform, y = transform_of(name)
    x = transform.inv(y).detach()
    jacobian = torch.autograd.functional.jacobian(transform, x[0, 0]).reshape(y[0, 0].numel(), x[0, 0].numel())
    bound = max(CATALOGUE[name].log_det, 1e-8)
    found = transform.log_abs_det_jacobian(x, transform(x))[0, 0]
    torch.testing.assert_close(found, torch.linalg.slogdet(jacobian)[1], rtol=bound, atol=bound)


@pytest.mark.parametrize("name", LAYERS)
def test_a_transform_caches_its_last_pair_in_both_directions(name):
    plain, y = transform_of(name)
    x = plain.inv(y).detach()
    transform = plain.with_cache()
    assert transform == plain
    assert transform is not plain
    value = transform(x)
    assert transform(x) is value
    assert transform.inv(value) is x
    other = transform.with_cache()
    before = other.inv(y)
    assert other(before) is y
    assert other.inv.with_cache(0).inv(x) is not other(before)


@pytest.mark.parametrize("name", LAYERS)
def test_transforms_are_equal_to_those_of_the_same_layer_only(name):
    case = CATALOGUE[name]
    layer = case.layer()
    one = as_transform(layer, case.event_shape)
    assert one == as_transform(layer, case.event_shape)
    assert one.inv == as_transform(layer, case.event_shape).inv
    assert one != as_transform(case.layer(), case.event_shape)
    assert one != one.inv


@pytest.mark.parametrize("name", LAYERS)
def test_copies_and_pickles_of_a_transform_compute_the_same(name):
    transform, y = transform_of(name)
    for twin in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        torch.testing.assert_close(twin.inv(y), transform.inv(y), rtol=0, atol=0)


@pytest.mark.parametrize("name", LAYERS)
def test_a_transformed_distribution_has_the_density_of_the_flow(name):
    transform, y = transform_of(name)
    latent = transform.inverse_shape(y.shape)[2:]
    theirs = TransformedDistribution(standard(latent), transform, validate_args=False)
    assert theirs.event_shape == y.shape[2:]
    assert theirs.batch_shape == ()
    density = Flow(transform.bijection, StandardNormal(tuple(latent)))
    torch.testing.assert_close(theirs.log_prob(y), density.log_prob(y.flatten(0, 1)).reshape(2, 3))
    assert theirs.expand((5,)).log_prob(y[0, 0]).shape == (5,)


@pytest.mark.parametrize("name", VECTORS)
def test_composed_transforms_add_their_log_determinants(name):
    one = as_transform(flow(name, 3).bijection)
    scale = IndependentTransform(AffineTransform(torch.randn(3), torch.tensor(2.0)), 1)
    both = ComposeTransform([scale, one])
    x = torch.randn(4, 3)
    y = both(x)
    assert both.domain.event_dim == both.codomain.event_dim == 1
    torch.testing.assert_close(both.inv(y), x, rtol=0, atol=10 * tolerance(name))
    expected = scale.log_abs_det_jacobian(x, scale(x)) + one.log_abs_det_jacobian(scale(x), y)
    torch.testing.assert_close(both.log_abs_det_jacobian(x, y), expected)
    assert ComposeTransform([one, one]).with_cache() == ComposeTransform([one, one])


@pytest.mark.parametrize("name", VECTORS)
def test_a_batch_of_vectors_becomes_one_event(name):
    one = as_transform(flow(name, 3).bijection)
    many = IndependentTransform(one, 1)
    x = torch.randn(5, 4, 3)
    y = many(x)
    assert many.domain.event_dim == 2
    torch.testing.assert_close(many.log_abs_det_jacobian(x, y), one.log_abs_det_jacobian(x, y).sum(1))


@pytest.mark.parametrize("name", ["glow", "realnvp", "conv"])
def test_a_reshaped_base_reaches_images(name):
    density = flow(name, (2, 4, 4))
    transform = as_transform(density.bijection, (2, 4, 4))
    latent = tuple(transform.inverse_shape((2, 4, 4)))
    flat = ComposeTransform([ReshapeTransform((32,), latent), transform])
    theirs = TransformedDistribution(standard((32,)), flat)
    assert theirs.event_shape == (2, 4, 4)
    x = theirs.sample((3,))
    torch.testing.assert_close(theirs.log_prob(x), density.log_prob(x), rtol=0, atol=1e-6)


# Distributions


@pytest.mark.parametrize("sample_shape", SAMPLE_SHAPES)
@pytest.mark.parametrize("name", VECTORS)
def test_the_shapes_of_samples_and_densities(name, sample_shape):
    # torch's check of a support refuses empty tensors
    distribution = FlowDistribution(flow(name, 3), validate_args=0 not in sample_shape)
    assert isinstance(distribution, Distribution)
    assert (distribution.batch_shape, distribution.event_shape) == ((), (3,))
    x = distribution.sample(sample_shape)
    assert x.shape == (*sample_shape, 3)
    assert distribution.log_prob(x).shape == sample_shape


@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
@pytest.mark.parametrize("name", CONDITIONAL)
def test_the_context_gives_the_batch_shape(name, batch):
    density, context = flow(name, 3, 2), torch.randn(*batch, 2)
    distribution = density.distribution(context)
    assert distribution.batch_shape == batch
    x = distribution.sample((4,))
    assert x.shape == (4, *batch, 3)
    wanted = density.log_prob(x.reshape(-1, 3), context.expand(4, *batch, 2).reshape(-1, 2)).reshape(4, *batch)
    torch.testing.assert_close(distribution.log_prob(x), wanted, rtol=0, atol=tolerance(name))
    wide = distribution.expand((5, *batch))
    assert wide.sample((2,)).shape == (2, 5, *batch, 3)
    torch.testing.assert_close(
        wide.log_prob(x[0]), distribution.log_prob(x[0]).expand(5, *batch), rtol=0, atol=tolerance(name)
    )


@pytest.mark.parametrize("name", VECTORS)
def test_samples_are_detached_and_reparameterized_ones_are_not(name):
    density = flow(name, 3)
    distribution = density.distribution()
    assert distribution.has_rsample
    assert not distribution.sample((2,)).requires_grad
    trained = any(parameter.requires_grad for parameter in density.parameters())
    assert distribution.rsample((2,)).requires_grad == trained
    x, log_prob = distribution.rsample_and_log_prob((2, 4))
    torch.testing.assert_close(log_prob, distribution.log_prob(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", VECTORS)
def test_an_expanded_distribution_keeps_its_density_and_its_validation(name):
    distribution = FlowDistribution(flow(name, 3), validate_args=True)
    wide = distribution.expand((4,)).expand((2, 4))
    assert (wide.batch_shape, wide.event_shape) == ((2, 4), (3,))
    assert wide.sample((5,)).shape == (5, 2, 4, 3)
    x = torch.randn(3)
    wanted = distribution.log_prob(x).expand(2, 4)
    torch.testing.assert_close(wide.log_prob(x), wanted, rtol=0, atol=tolerance(name))
    with pytest.raises(ValueError, match="support"):
        wide.log_prob(torch.full((3,), torch.nan))
    with pytest.raises((ValueError, RuntimeError)):
        wide.expand((3,))


@pytest.mark.parametrize("name", [*VECTORS, "circular_spline"])
def test_the_support_is_reached_by_its_bijections_and_by_samples(name):
    distribution = FlowDistribution(flow(name, 3), validate_args=True)
    support = distribution.support
    assert support.event_dim == 1
    assert bool(support.check(distribution.sample((20,))).all())
    for registry in (biject_to, transform_to):
        transform = registry(support)
        x = transform(torch.randn(20, 3))
        assert support.check(x).shape == (20,)
        assert bool(support.check(x).all())
        assert bool(distribution.log_prob(x).isfinite().all())


@pytest.mark.parametrize("name", VECTORS)
def test_a_distribution_over_a_batch_as_one_event(name):
    distribution = flow(name, 3).distribution().expand((4,))
    joint = Independent(distribution, 1)
    x = joint.sample((2,))
    assert (joint.batch_shape, joint.event_shape) == ((), (4, 3))
    torch.testing.assert_close(joint.log_prob(x), distribution.log_prob(x).sum(1))


@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_mixture_of_flows(name):
    parts = flow(name, 3, 2).distribution(torch.randn(5, 2))
    mixture = MixtureSameFamily(Categorical(torch.rand(5)), parts, validate_args=False)
    x = mixture.sample((6,))
    assert x.shape == (6, 3)
    weights = mixture.mixture_distribution.logits
    wanted = torch.logsumexp(parts.log_prob(x[:, None]) + weights, 1)
    torch.testing.assert_close(mixture.log_prob(x), wanted, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", [*VECTORS, "circular_spline"])
def test_the_mass_of_a_box_is_the_share_of_samples_in_it(name):
    distribution = flow(name, 2).distribution()
    x = distribution.sample((1000,))
    low, high = x.quantile(0.05, 0), x.quantile(0.95, 0)
    share = ((x > low) & (x < high)).all(1).double().mean()
    sides = [a + (b - a) * (torch.arange(30) + 0.5) / 30 for a, b in zip(low, high, strict=True)]
    with torch.no_grad():
        mass = distribution.log_prob(torch.cartesian_prod(*sides)).exp().mean() * (high - low).prod()
    # four standard errors of the share, and the error of the midpoint rule
    assert mass.item() == pytest.approx(share.item(), abs=0.06)


@pytest.mark.parametrize("name", VECTORS)
def test_a_distribution_is_copied_pickled_and_printed(name):
    distribution = flow(name, 3).distribution()
    x = torch.randn(2, 3)
    for twin in (copy.deepcopy(distribution), pickle.loads(pickle.dumps(distribution))):
        torch.testing.assert_close(twin.log_prob(x), distribution.log_prob(x), rtol=0, atol=0)
    assert "FlowDistribution" in repr(distribution)
