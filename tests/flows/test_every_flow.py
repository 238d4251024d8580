"""What every ready flow owes to PyTorch and its tools: state that can be saved, construction without memory."""

import pytest
import safetensors.torch
import torch

from snflow import flows
from snflow.errors import CompileWarning, ShapeError
from snflow.numerics.compilation import warn_once

READY = flows.ready_flows()


def build(name):
    """The flow on vectors, or on images if it takes no others."""
    try:
        return READY[name](4)
    except ShapeError:
        return READY[name]((1, 4, 4))


@pytest.mark.parametrize("name", sorted(READY))
def test_the_state_is_saved_by_safetensors(name):
    state = build(name).state_dict()
    loaded = safetensors.torch.load(safetensors.torch.save(state))
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


@pytest.mark.parametrize("name", sorted(READY))
def test_a_flow_built_on_the_meta_device_takes_the_state_of_another(name):
    flow = build(name).eval()
    with torch.device("meta"):
        twin = build(name).eval()
    assert all(parameter.is_meta for parameter in twin.parameters())
    twin.load_state_dict(flow.state_dict(), assign=True)
    x = torch.rand(3, *flow.event_shape)
    torch.testing.assert_close(twin.log_prob(x), flow.log_prob(x), rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("residual", {"layers": 1, "width": 8}),
        ("ffjord", {"width": 8, "solver": "rk4", "steps": 2}),
    ],
)
def test_a_flow_that_solves_or_keeps_breaks_the_graph_and_says_so_once(name, options, training):
    torch.compiler.reset()
    warn_once.cache_clear()
    flow = READY[name](4, **options).train(training)
    flow.log_prob(torch.randn(9, 4))  # initializes the act-norms
    compiled = torch.compile(flow, backend="aot_eager", dynamic=True)
    parameters = list(flow.parameters())

    def compare():
        for batch in (3, 5):
            x, found = torch.randn(batch, 4), []
            for function in (flow, compiled):
                torch.manual_seed(1)
                value = function(x)
                slopes = torch.autograd.grad(value.sum(), parameters, allow_unused=True, materialize_grads=True)
                found.append((value, *slopes))
            torch.testing.assert_close(found[1], found[0], rtol=1e-7, atol=1e-9)

    with pytest.warns(CompileWarning, match="runs uncompiled") as caught:
        compare()
    assert len(caught) == 1
