"""The base class of bijections: it checks what a layer returns, and what its constructor is given."""

import numpy as np
import pytest
import torch

import snflow
from snflow.errors import ArgumentError, ConfigError, DtypeError, NumericalWarning, ShapeError


class Returns(snflow.Bijection):
    """A layer that returns whatever it was given."""

    event_shape = (3,)

    def __init__(self, forward=None, inverse=None):
        super().__init__()
        self.result, self.inverse_result = forward, inverse

    def _forward(self, x, context):
        return self.result(x)

    def _inverse(self, z, context):
        return self.inverse_result(z)


def log_det(x):
    return x.new_zeros(len(x))


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (lambda x: x, DtypeError, r"return two tensors, the event and the log-determinant, got a Tensor"),
        (lambda x: (x, log_det(x), x), DtypeError, r"got a tuple of 3"),
        (lambda x: (x, 0.0), DtypeError, r"a log-determinant of a floating dtype, got float"),
        (lambda x: (x, log_det(x).long()), DtypeError, r"a floating dtype, got torch\.int64"),
        (lambda x: (x, x.sum()), ShapeError, r"a log-determinant of shape \(2,\), one per sample, got \(\)"),
        (lambda x: (x, x.new_zeros(2, 1)), ShapeError, r"shape \(2,\), one per sample, got \(2, 1\)"),
        (lambda x: (x[:, :2], log_det(x)), ShapeError, r"events of shape \(2, 3\), got \(2, 2\)"),
        (lambda x: (None, log_det(x)), DtypeError, r"a tensor of events, got NoneType"),
    ],
)
def test_what_a_layer_returns_is_checked_in_both_directions(result, error, message):
    x = torch.randn(2, 3)
    with pytest.raises(error, match=rf"Returns: expected _forward to .*{message}"):
        Returns(forward=result)(x)
    with pytest.raises(error, match=rf"Returns: expected _inverse to .*{message}"):
        Returns(inverse=result).inverse(x)


def test_a_batch_of_two_is_not_unpacked_as_a_pair():
    with pytest.raises(DtypeError, match="two tensors"):
        Returns(forward=lambda x: x)(torch.randn(2, 3))


def test_decode_is_checked_too():
    class Decodes(Returns):
        def _decode(self, z, context):
            return z[:, :1]

    with pytest.raises(ShapeError, match=r"_decode to return events of shape \(2, 3\), got \(2, 1\)"):
        Decodes(inverse=lambda z: (z, log_det(z))).decode(torch.randn(2, 3))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: snflow.SelfNormalizingDense(64, 32), ArgumentError, "too many positional arguments"),
        (lambda: snflow.SelfNormalizingConv2d(3, 5, 3), ArgumentError, "too many positional arguments"),
        (lambda: snflow.SelfNormalizingDense(3, biass=True), ArgumentError, "did you mean 'bias'"),
        (lambda: snflow.Chain(snflow.LeakyReLU(), snflow.LeakyReLU()), ConfigError, r"write Chain\(\[LeakyReLU, L"),
        (lambda: snflow.Chain(snflow.LeakyReLU()), ConfigError, r"write Chain\(\[LeakyReLU\]\)"),
        (lambda: snflow.Penalty(weight=-1), ConfigError, "Penalty: expected weight ≥ 0 and finite, got -1"),
    ],
)
def test_wrong_constructor_arguments_are_refused_with_advice(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_part_of_a_chain_is_a_chain_of_the_same_layers():
    chain = snflow.Chain([snflow.Dense(3), snflow.LeakyReLU(), snflow.Dense(3)]).eval()
    part = chain[1:]
    assert isinstance(part, snflow.Chain)
    assert list(part) == list(chain)[1:]
    assert not part.training
    x = torch.randn(2, 3)
    assert torch.equal(part.encode(chain[:1].encode(x)), chain.encode(x))
    assert len(chain[:0]) == 0
    assert chain[-1] is chain.layers[2]


@pytest.mark.parametrize(
    ("bijection", "event_shape"),
    [
        (snflow.Dense(3), (3,)),
        (snflow.Flatten((1, 2)), (2,)),
        (snflow.Chain([snflow.Flatten((1, 2)), snflow.Dense(2)]), (2,)),
        (snflow.ActNorm(3), (3, None, None)),
        (snflow.Squeeze(), None),
        (snflow.LeakyReLU(), None),
    ],
)
def test_an_inverse_takes_events_of_the_shape_of_the_latents(bijection, event_shape):
    assert snflow.Inverse(bijection).event_shape == event_shape


def nested(dtype=torch.float64):
    return torch.nested.nested_tensor([torch.zeros(3, dtype=dtype), torch.zeros(3, dtype=dtype)])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize(
    "call",
    [
        lambda: snflow.LeakyReLU()(nested()),
        lambda: snflow.Dense(3).decode(nested()),
        lambda: snflow.flows.maf(3).log_prob(nested()),
        lambda: snflow.flows.maf(3, context_shape=3).log_prob(torch.zeros(2, 3), nested()),
        lambda: snflow.StandardNormal(3).log_prob(nested()),
        lambda: snflow.UniformDequantization(3)(nested().long()),
        lambda: snflow.Flow(snflow.Dense(3), snflow.StandardNormal(3)).distribution().log_prob(nested()),
    ],
)
def test_nested_tensors_are_refused(call):
    with pytest.raises(DtypeError, match="expected a tensor of one shape, got a nested tensor; stack its parts"):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda x: snflow.Dense(3)(x),
        lambda x: snflow.Dense(3).encode(x),
        lambda x: snflow.flows.maf(3).log_prob(x),
        lambda x: snflow.flows.maf(3).base.log_prob(x),
        lambda x: snflow.flows.maf(3).distribution().log_prob(x),
        lambda x: snflow.Affine.standardizing(x),
        lambda x: snflow.standardized(snflow.flows.maf(3), x),
    ],
)
def test_arrays_are_refused(call):
    with pytest.raises(DtypeError, match=r"expected a torch\.Tensor, got ndarray; use torch\.as_tensor"):
        call(np.zeros((2, 3)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "call",
    [
        lambda x: snflow.flows.maf(3).to(x.dtype).log_prob(x),
        lambda x: snflow.flows.maf(3).to(x.dtype).log_prob(x.float()),
        lambda x: snflow.flows.maf(3).to(x.dtype).sample(2),
        lambda x: snflow.Dense(3).to(x.dtype).decode(x),
        lambda x: snflow.LeakyReLU()(x),
        lambda x: snflow.StandardNormal(3).to(x.dtype).log_prob(x),
        lambda x: snflow.StandardNormal(3).to(x.dtype).sample(2),
    ],
)
def test_sixteen_bits_are_refused(dtype, call):
    """The log-density of a flow in bfloat16 was off by up to 6.4 nats."""
    with pytest.raises(DtypeError, match=rf"expected torch\.float32 or torch\.float64.*got {dtype}; call flow\.to"):
        call(torch.zeros(2, 3, dtype=dtype))


class Logarithm(snflow.Bijection):
    def _forward(self, x, context):
        return x.log(), -x.log().sum(1)

    def _inverse(self, z, context):
        return z.exp(), z.sum(1)


@pytest.mark.parametrize("call", ["decode", "inverse"])
def test_an_inverse_that_overflows_says_so(call):
    chain = snflow.Chain([Logarithm(), snflow.LeakyReLU()])
    with pytest.warns(NumericalWarning, match="Logarithm: some finite latents have no finite inverse"):
        getattr(chain, call)(torch.tensor([[1.0], [1e4]]))


@pytest.mark.parametrize("row", [[1.0, 2.0], [1.0, torch.inf], [torch.nan, 1.0]])
def test_an_inverse_of_latents_that_are_not_finite_does_not_warn(row):
    Logarithm().decode(torch.tensor([[0.5, 0.5], row]))
