"""Flows and bijections as objects of torch.distributions: our numbers, torch's shapes."""

import pytest
import torch
from torch.distributions import Distribution, Independent, Normal, TransformedDistribution

from context_layer import ContextScale
from snflow.bijections.chain import Chain
from snflow.bijections.elementwise import Affine, LeakyReLU
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
