"""The masked network from input to input: with gradients, and in place without."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

import snflow
from snflow.nets import MaskedMLP


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("context_shape", [None, 3])
@pytest.mark.parametrize("input_bound", [None, 0.5])
@pytest.mark.parametrize("width", [5, 17])
def test_a_walk_and_steps_give_the_outputs_of_one_pass(
    residual: bool, context_shape: int, input_bound: float | None, width: int
) -> None:
    torch.manual_seed(0)
    net = MaskedMLP(
        5,
        3,
        width=width,
        depth=3,
        context_shape=context_shape,
        residual=residual,
        activation="silu",
        input_bound=input_bound,
    )
    x = torch.randn(4, 5)
    context = torch.randn(4, context_shape) if context_shape else None
    whole = net(x, context)
    walk, steps = net.walk(x, context), net.steps(context)
    for index in range(5):
        assert torch.allclose(walk.outputs(index), whole[:, :, index], atol=1e-12)
        assert torch.allclose(steps.outputs(index, x[:, :index]), whole[:, :, index], atol=1e-12)
        walk.put(index, x[:, index : index + 1])


def test_the_inverse_without_gradients_is_the_one_with() -> None:
    torch.manual_seed(0)
    layer = snflow.Autoregressive(6, snflow.AffineTransformer(), width=16, context_shape=2)
    z, context = torch.randn(7, 6), torch.randn(7, 2)
    x, log_det = layer.inverse(z, context)
    with torch.no_grad():
        fast, fast_log_det = layer.inverse(z, context)
    assert x.requires_grad
    assert not fast.requires_grad
    assert torch.allclose(fast, x, atol=1e-12)
    assert torch.allclose(fast_log_det, log_det, atol=1e-12)


def test_many_networks_at_once_are_inverted_without_gradients() -> None:
    torch.manual_seed(0)
    layers = [snflow.Inverse(snflow.Autoregressive(4, snflow.AffineTransformer(), width=8)) for _ in range(3)]
    parameters, buffers = stack_module_state(layers)
    z = torch.randn(5, 4)
    with torch.no_grad():
        whole = vmap(lambda p, b: functional_call(layers[0], (p, b), (z,))[0])(parameters, buffers)
        assert torch.allclose(whole, torch.stack([layer(z)[0] for layer in layers]), atol=1e-12)
