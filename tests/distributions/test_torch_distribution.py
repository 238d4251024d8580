"""Flows and bijections as objects of torch.distributions: our numbers, torch's shapes."""

import copy

import pytest
import torch
from torch.distributions import Distribution, Independent, Normal, TransformedDistribution, biject_to, kl_divergence

from context_layer import ContextScale
from snflow import flows
from snflow.bijections.base import Bijection
from snflow.bijections.chain import Chain
from snflow.bijections.elementwise import Affine, LeakyReLU, Logit
from snflow.bijections.inverse import Inverse
from snflow.bijections.linear import Dense
from snflow.bijections.reshaping import Flatten
from snflow.distributions.base import StandardNormal
from snflow.distributions.dequantization import UniformDequantization
from snflow.distributions.flow import Flow
from snflow.distributions.torch_distribution import FlowDistribution, as_transform
from snflow.errors import ConfigError, ContextError, ShapeError


def image_bijection():
    chain = Chain([LeakyReLU(0.5), Flatten((1, 2, 2)), Dense(4)])
    with torch.no_grad():
        chain[2].weight.copy_(torch.eye(4) + 0.2 * torch.randn(4, 4))
    return chain.eval()


def standard(*shape):
    return Independent(Normal(torch.zeros(shape), torch.ones(shape)), len(shape))


def test_distribution_is_a_torch_distribution():
    flow = Flow(image_bijection(), StandardNormal((4,)))
    distribution = flow.distribution()
    assert isinstance(distribution, Distribution)
    assert distribution.batch_shape == ()
    assert distribution.event_shape == (1, 2, 2)
    x = distribution.sample((5, 3))
    assert x.shape == (5, 3, 1, 2, 2)
    torch.testing.assert_close(distribution.log_prob(x).flatten(), flow.log_prob(x.flatten(0, 1)))
    assert distribution.sample().shape == (1, 2, 2)
    assert distribution.log_prob(distribution.sample()).shape == ()
    assert distribution.sample((0,)).shape == (0, 1, 2, 2)


def test_batch_shape_comes_from_the_context():
    flow, context = Flow(ContextScale(), StandardNormal((3,))), torch.randn(4, 5, 2)
    distribution = flow.distribution(context)
    assert distribution.batch_shape == (4, 5)
    x = distribution.sample((7,))
    assert x.shape == (7, 4, 5, 3)
    z = (x - context @ flow.bijection.weight) * torch.exp(-context[..., :1])
    expected = standard(3).log_prob(z) - 3 * context[..., 0]
    torch.testing.assert_close(distribution.log_prob(x), expected)
    # one value for the whole batch
    assert distribution.log_prob(torch.zeros(3)).shape == (4, 5)
    assert flow.distribution(context[0, 0]).sample((2,)).shape == (2, 3)


def test_rsample_and_log_prob():
    flow, context = Flow(ContextScale(), StandardNormal((3,))), torch.randn(5, 2)
    distribution = flow.distribution(context)
    x, log_prob = distribution.rsample_and_log_prob((4,))
    assert x.shape == (4, 5, 3)
    torch.testing.assert_close(log_prob, distribution.log_prob(x))
    assert distribution.has_rsample
    distribution.rsample((2,)).sum().backward()
    assert flow.bijection.weight.grad is not None


def test_expand():
    flow, context = Flow(ContextScale(), StandardNormal((3,))), torch.randn(5, 2)
    wide = flow.distribution(context).expand((4, 5))
    assert wide.sample((2,)).shape == (2, 4, 5, 3)
    torch.testing.assert_close(wide.log_prob(torch.ones(3))[2], flow.distribution(context).log_prob(torch.ones(3)))
    plain = Flow(Affine(0.0, 2.0), StandardNormal((3,))).distribution().expand((6,))
    assert plain.batch_shape == (6,)
    assert plain.sample((2,)).shape == (2, 6, 3)
    assert plain.log_prob(torch.zeros(3)).shape == (6,)
    assert plain.rsample_and_log_prob((2,))[1].shape == (2, 6)


def test_integers_are_the_support_of_a_dequantized_flow():
    flow = Flow(Affine(8.0, 4.0), StandardNormal((2,)), UniformDequantization(17))
    # torch.compile, in any test before, turns torch's default validation off
    distribution = FlowDistribution(flow, validate_args=True)
    x = distribution.sample((9,))
    assert distribution.log_prob(x).shape == (9,)
    assert not distribution.has_rsample
    with pytest.raises(ValueError, match="support"):
        distribution.log_prob(torch.tensor([3, 17]))
    with pytest.raises(
        ConfigError, match=r"continuous data, got one with a dequantization; use sample, or flow\.rsample"
    ):
        distribution.rsample()


def test_transformed_distribution_agrees_with_the_flow():
    bijection = image_bijection()
    flow = Flow(bijection, StandardNormal((4,)))
    theirs = TransformedDistribution(standard(4), as_transform(bijection, (1, 2, 2)))
    assert theirs.event_shape == (1, 2, 2)
    x = theirs.sample((6,))
    assert x.shape == (6, 1, 2, 2)
    torch.testing.assert_close(theirs.log_prob(x), flow.log_prob(x))
    batched = theirs.expand((5,))
    assert batched.sample((2,)).shape == (2, 5, 1, 2, 2)


def test_transform_runs_from_base_to_data():
    bijection, z = image_bijection(), torch.randn(2, 3, 4)
    transform = as_transform(bijection, (1, 2, 2))
    x = transform(z)
    flat, log_det = bijection.inverse(z.flatten(0, 1))
    torch.testing.assert_close(x, flat.reshape(2, 3, 1, 2, 2))
    torch.testing.assert_close(transform.log_abs_det_jacobian(z, x), log_det.reshape(2, 3))
    torch.testing.assert_close(transform.inv(x), z)
    torch.testing.assert_close(transform.inv.log_abs_det_jacobian(x, z), -log_det.reshape(2, 3))
    assert transform.forward_shape((7, 4)) == (7, 1, 2, 2)
    assert transform.inverse_shape((7, 1, 2, 2)) == (7, 4)
    assert transform.domain.event_dim == 1
    assert transform.codomain.event_dim == 3
    assert transform(torch.randn(4)).shape == (1, 2, 2)
    cached = transform.with_cache()
    assert cached.inv(cached(z)) is z


def test_transform_with_context():
    bijection, context = ContextScale(), torch.randn(5, 2)
    theirs = TransformedDistribution(standard(3), as_transform(bijection, context=context))
    x = torch.randn(4, 5, 3)
    expected = Flow(bijection, StandardNormal((3,))).distribution(context).log_prob(x)
    torch.testing.assert_close(theirs.log_prob(x), expected)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: as_transform(LeakyReLU()), ConfigError, r"LeakyReLU does not determine, got none; pass event_shape=…"),
        (lambda: as_transform(Dense(3), (4,)), ShapeError, r"Dense: expected event shape \(3,\), got \(4,\)"),
        (
            lambda: as_transform(Dense(3))(torch.zeros(2, 4)),
            ShapeError,
            r"values with shape \(\*batch, 3\), got \(2, 4\)",
        ),
        (lambda: as_transform(Dense(3), context=torch.zeros(2)), ContextError, "Dense: expected no context, got one"),
        (lambda: as_transform(ContextScale()), ContextError, r"a context with shape \(\*batch, 2\), got none"),
        (lambda: as_transform(LeakyReLU(), 0), ConfigError, "as_transform: expected the shape of one event"),
        (lambda: as_transform(Dense(3)).forward_shape((2, 4)), ShapeError, r"ends in \(3,\), got \(2, 4\)"),
        (
            lambda: Flow(ContextScale(), StandardNormal((3,))).distribution(torch.zeros(4)),
            ShapeError,
            r"ContextScale: expected a context with shape \(\*batch, 2\), got \(4,\)",
        ),
        (lambda: Flow(ContextScale(), StandardNormal((3,))).distribution(), ContextError, "got none; pass context"),
    ],
)
def test_misuse(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_support_of_a_distribution_is_that_of_the_flow():
    flow = Flow(Chain([Affine(0.0, 10.0), Logit()]), StandardNormal(2))
    distribution = FlowDistribution(flow, validate_args=True)
    x = distribution.sample((5,))
    assert bool(distribution.support.check(x).all())
    assert bool(distribution.support.check(biject_to(distribution.support)(50 * torch.randn(9, 2))).all())
    with pytest.raises(ValueError, match="support"):
        distribution.log_prob(torch.tensor([5.0, 10.5]))
    transform = as_transform(flow.bijection, 2)
    assert bool(transform.codomain.check(transform(torch.randn(9, 2))).all())
    assert not bool(transform.codomain.check(torch.tensor([5.0, 10.5])))
    assert not bool(transform.domain.check(torch.tensor([0.0, 20.0])))
    assert transform.inv.domain.check(x).all()


def test_angles_stay_on_the_circle():
    distribution = flows.circular_spline(3).distribution()
    angles = biject_to(distribution.support)(50 * torch.randn(20, 3))
    assert bool((angles.abs() <= torch.pi).all())


def test_a_wrong_shape_is_our_error_with_validation_too():
    distribution = FlowDistribution(Flow(Dense(3), StandardNormal(3)), validate_args=True)
    with pytest.raises(ShapeError, match=r"\(\*batch, 3\), got \(2, 4\)"):
        distribution.log_prob(torch.zeros(2, 4))


def test_expand_fills_in_the_object_it_is_given():
    class Wrapped(FlowDistribution):
        def expand(self, batch_shape, _instance=None):
            return super().expand(batch_shape, self._get_checked_instance(Wrapped, _instance))

    context = torch.randn(5, 2)
    wrapped = Wrapped(Flow(ContextScale(), StandardNormal(3)), context, validate_args=True)
    wide = wrapped.expand((4, 5))
    assert type(wide) is Wrapped
    assert wide._validate_args
    x = torch.randn(4, 5, 3)
    torch.testing.assert_close(wide.log_prob(x), wrapped.log_prob(x))
    plain = FlowDistribution(Flow(Dense(3), StandardNormal(3)))
    plain.has_rsample = False  # as Pyro's has_rsample_ does
    assert not plain.expand((2,)).has_rsample
    # a subclass that does not say how its own attributes are expanded
    with pytest.raises(NotImplementedError, match="must also define a custom"):
        type("Other", (FlowDistribution,), {"__init__": lambda self, f: FlowDistribution.__init__(self, f)})(
            plain.flow
        ).expand((2,))


def test_transforms_of_the_same_bijection_and_context_are_equal():
    bijection, context = ContextScale(), torch.randn(5, 2)
    one, two = as_transform(bijection, context=context), as_transform(bijection, context=context.clone())
    assert one == two
    assert hash(one) == hash(two)
    assert one == one.with_cache()
    assert one != as_transform(bijection, context=context + 1)
    assert one != as_transform(ContextScale(), context=context)
    assert as_transform(LeakyReLU(), 2) != as_transform(LeakyReLU(), 3)
    assert one != Normal(0.0, 1.0)
    dense = Dense(3)
    assert as_transform(dense) == as_transform(dense)
    assert as_transform(dense) != as_transform(Dense(3))


def test_the_divergence_of_two_densities_under_one_transform():
    bijection = image_bijection()
    shifted = Independent(Normal(torch.ones(4), torch.ones(4)), 1)
    one, two = (TransformedDistribution(base, as_transform(bijection, (1, 2, 2))) for base in (standard(4), shifted))
    torch.testing.assert_close(kl_divergence(one, two), torch.tensor(2.0))


def test_a_transform_shows_its_parameters():
    bijection = Dense(3)
    transform = as_transform(bijection)
    assert dict(transform.named_parameters()).keys() == {"bijection.weight", "bijection.bias"}
    twin = copy.deepcopy(transform)
    x = torch.randn(2, 3)
    assert torch.equal(twin(x), transform(x))
    assert twin != transform
    assert transform.inv.inv is transform


def test_the_shape_of_an_inverse_is_known():
    assert as_transform(Inverse(Dense(3)))(torch.zeros(2, 3)).shape == (2, 3)


def test_a_transform_inverts_without_a_determinant():
    class Doubles(Bijection):
        def _forward(self, x, context):
            raise AssertionError

        def _encode(self, x, context):
            return 2 * x

        def _inverse(self, z, context):
            raise AssertionError

    assert as_transform(Doubles(), 2).inv(torch.ones(2)).tolist() == [2.0, 2.0]


def test_a_batch_can_only_grow():
    expanded = flows.maf(2, width=4).distribution().expand((2, 4))
    assert expanded.expand((3, 2, 4)).batch_shape == (3, 2, 4)
    for shape in ((3,), (4,), (2, 3)):
        with pytest.raises(ShapeError, match="to which the batch shape"):
            expanded.expand(shape)
