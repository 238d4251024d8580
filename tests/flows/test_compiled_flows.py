"""Every ready flow compiles whole, for batches of any size, in both modes and directions, and equals the plain flow."""

import copy
import gc
import inspect
import warnings

import pytest
import torch

import snflow
from snflow import flows
from snflow.errors import CompileWarning, ConfigError, ConvergenceError, ShapeError
from snflow.numerics import compilation

READY = flows.ready_flows()
SMALL = {
    "layers": 1,
    "scales": 1,
    "width": 4,
    "depth": 1,
    "blocks": 1,
    "heads": 1,
    "bins": 4,
    "units": 2,
    "components": 2,
    "first_layers": 1,
    "channel_layers": 1,
    "last_layers": 1,
    "growth": 2,
    "groups": 1,
    "embedding": 4,
    "integrand_width": 4,
    "nodes": 4,
}
OWN = {"ffjord": {"solver": "rk4", "steps": 2}, "circular_spline": {"layers": 2}}


def build(name, **options):
    """A small flow with initialized act-norms, away from its initial weights."""
    function = READY[name]
    known = inspect.signature(function).parameters
    given = {key: value for key, value in {**SMALL, **OWN.get(name, {}), **options}.items() if key in known}
    try:
        flow = function(3, **given)
    except ShapeError:
        flow = function((1, 4, 4), **given)
    for _ in range(2):
        flow.log_prob(torch.rand(40, *flow.event_shape))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    flow.eval().log_prob(torch.rand(2, *flow.event_shape))
    return flow


def compiled(function, backend="eager"):
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    return torch.compile(function, fullgraph=True, dynamic=True, backend=backend)


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def results(function, inputs, parameters):
    """Values and gradients, with the same random numbers each time."""
    torch.manual_seed(1)
    values = function(*inputs)
    loss = sum((value * torch.linspace(0.5, 2, value.numel()).view_as(value)).sum() for value in values)
    slopes = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return *(value.detach() for value in values), *slopes


def compare(function, plain, inputs, parameters):
    for got, wanted in zip(results(function, inputs, parameters), results(plain, inputs, parameters), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)


# torch's own tracer instantiates the autograd functions that it traces
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::snflow.errors.CompileWarning"),
]


IN_TRAINING = ("conv", "dense", "ffjord", "gaussianization", "glow", "pair", "realnvp", "residual")
"""The flows that compute something else in train(). The nightly run compiles all flows in both modes."""


@pytest.mark.parametrize("name", IN_TRAINING)
def test_a_compiled_log_prob_in_training_is_that_of_the_flow(name):
    flow = build(name).train()
    fast = compiled(lambda x: (flow.log_prob(x),))
    for batch in (5, 3):
        compare(fast, lambda x: (flow.log_prob(x),), [torch.rand(batch, *flow.event_shape)], list(flow.parameters()))
    assert graphs() == 1


@pytest.mark.parametrize("name", sorted(READY.keys() - set(IN_TRAINING)))
def test_compiled_densities_and_samples_in_evaluation_are_those_of_the_flow(name):
    flow = build(name)

    def both(x, z):
        return flow.log_prob(x), flow.decode(z)

    fast = compiled(both)
    for batch in (5, 3):
        inputs = [torch.rand(batch, *flow.event_shape), torch.rand(batch, *flow.base.event_shape)]
        compare(fast, both, inputs, list(flow.parameters()))
    assert graphs() == 1


@pytest.mark.parametrize("name", ["residual", "pair"])
def test_plain_code_in_a_graph_has_the_gradients_of_autograd(name):
    flow = build(name).train()
    fast = compiled(lambda x: (flow.log_prob(2 * x),), "aot_eager")
    parameters = list(flow.parameters())
    for batch in (4, 3):
        x = torch.rand(batch, 3, requires_grad=True)
        compare(fast, lambda x: (flow.log_prob(2 * x),), [x], [x, *parameters])
    assert graphs() == 1


def test_a_graph_of_plain_code_is_freed_with_its_results():
    layer = snflow.Planar(2)
    value = compiled(layer.decode)(torch.rand(3, 2, requires_grad=True))
    assert len(compilation._graphs) == 1
    for _ in range(2):
        torch.autograd.grad(value.sum(), list(layer.parameters()), retain_graph=True)
    del value
    gc.collect()
    assert not compilation._graphs


def test_plain_code_in_a_graph_is_announced_once():
    compilation.warn_once.cache_clear()
    layer = snflow.Planar(2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            compiled(layer.decode)(torch.rand(3, 2))
    said = [str(warning.message) for warning in caught if warning.category is CompileWarning]
    assert said == [
        "Planar runs uncompiled, as one operation of the compiled graph: "
        "the number of steps of its root search depends on the data"
    ]


def test_plain_code_in_a_graph_raises_the_errors_of_the_layer():
    layer = snflow.InvertibleResidual(torch.nn.Linear(2, 2), (2,))
    torch.nn.init.constant_(layer.net.weight, 3.0)
    with pytest.raises(ConvergenceError, match="InvertibleResidual: expected a fixed point"):
        compiled(layer.decode)(torch.rand(3, 2))


def test_plain_code_in_a_graph_takes_the_parameters_of_a_functional_call():
    layer, z = snflow.Planar(2), torch.rand(3, 2)
    other = {name: torch.rand_like(value, requires_grad=True) for name, value in layer.named_parameters()}
    inverse = snflow.Inverse(layer)

    def call(z):
        return torch.func.functional_call(inverse, {f"bijection.{name}": value for name, value in other.items()}, z)

    compare(compiled(call), call, [z], list(other.values()))


def test_a_copy_of_a_compiled_layer_is_a_layer_of_its_own():
    layer = snflow.Planar(2)
    twin = copy.deepcopy(layer)
    torch.nn.init.constant_(twin.conditioned.offset, 1.0)
    z = torch.rand(3, 2)
    torch.testing.assert_close(compiled(twin.decode)(z), twin.decode(z))
    assert not torch.equal(twin.decode(z), layer.decode(z))


def test_the_first_batch_of_a_compiled_flow_initializes_it():
    layers, x = [snflow.ActNorm(2, vectors=True) for _ in range(2)], 5 + 3 * torch.randn(50, 2)
    fast = compiled(layers[0])
    for _ in range(2):
        for got, wanted in zip(fast(x), layers[1](x), strict=True):
            torch.testing.assert_close(got, wanted)
    assert layers[0].initialized


def test_an_exported_flow_needs_nothing_of_the_library():
    layer = snflow.InvertibleResidual(snflow.nets.LipschitzNet((2,)), (2,)).eval()
    with pytest.raises(ConfigError, match="InvertibleResidual: expected a computation that"):
        torch.export.export(layer, (torch.rand(3, 2),))


@pytest.mark.parametrize(
    "layer",
    [
        snflow.MaskedResidualConv2d(2, groups=1),
        snflow.Woodbury((2, 4, 4), 2, 2),
        snflow.PeriodicConv2d(2),
    ],
    ids=lambda layer: layer.label,
)
def test_an_exported_layer_takes_batches_of_any_size(layer):
    layer, x = layer.double().eval(), torch.rand(5, 2, 4, 4)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},)).module()
    for got, wanted in zip(program(x[:3]), layer(x[:3]), strict=True):
        torch.testing.assert_close(got, wanted)
