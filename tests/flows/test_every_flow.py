"""What every ready flow owes to PyTorch and its tools: state that can be saved, construction without memory."""

import pytest
import safetensors.torch
import torch

from snflow import flows
from snflow.errors import ShapeError

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
