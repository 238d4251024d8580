"""Exact layers in eval() compile whole, with dynamic batch sizes, and give the results of the plain layers."""

import pytest
import torch

import snflow
from snflow.errors import NotInvertibleError

LAYERS = {
    "Dense": (lambda: snflow.Dense(4), (4,)),
    "Conv2d": (lambda: snflow.Conv2d(2), (2, 4, 3)),
    "SelfNormalizingConv2d": (lambda: snflow.SelfNormalizingConv2d(2), (2, 4, 3)),
    "PLUConv2d": (lambda: snflow.PLUConv2d(2), (2, 4, 3)),
    "Woodbury": (lambda: snflow.Woodbury((2, 4, 3), 2, 2), (2, 4, 3)),
    "EmergingConv2d": (lambda: snflow.EmergingConv2d(2), (2, 4, 3)),
    "ConvExponential": (lambda: snflow.ConvExponential(2), (2, 4, 3)),
    "PeriodicConv2d": (lambda: snflow.PeriodicConv2d(2), (2, 4, 3)),
    "LULinear": (lambda: snflow.LULinear(4), (4,)),
}


def compiled(function, backend="eager"):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, dynamic=True, backend=backend)


def shaken(build):
    layer = build().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return layer


@pytest.mark.parametrize("name", LAYERS)
def test_a_compiled_layer_has_the_values_and_gradients_of_the_plain_one(name):
    build, shape = LAYERS[name]
    layer = shaken(build)

    def plain(x):
        return *layer(x), *layer.inverse(x)

    fast = compiled(plain, "aot_eager" if name == "Conv2d" else "eager")  # autograd is traced for one: it takes long

    def results(function, x):
        values = function(x)
        loss = sum((value.square() * torch.linspace(0.5, 2, value.numel()).view_as(value)).sum() for value in values)
        used = [p for p in layer.parameters() if p is not getattr(layer, "inverse_weight", None)]
        return *values, *torch.autograd.grad(loss, [x, *used])

    for batch in (5, 3):
        x = torch.randn(batch, *shape, requires_grad=True)
        for got, wanted in zip(results(fast, x), results(plain, x), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(1.1)


def test_a_compiled_layer_refuses_a_singular_weight():
    layer = snflow.Dense(3).eval()
    fast = compiled(layer)
    fast(torch.randn(2, 3))
    torch.nn.init.zeros_(layer.weight)
    with pytest.raises(NotInvertibleError, match=r"Dense: .* a singular one"):
        fast(torch.randn(2, 3))


def test_compiled_evaluations_are_remembered_by_training():
    layer = snflow.SelfNormalizingDense(3).eval()
    log_det = compiled(layer)(torch.randn(2, 3))[1]
    assert torch.equal(layer.train()(torch.randn(1, 3))[1][0], log_det[0])


def test_exported_layers_need_nothing_of_the_object():
    layer, x = shaken(lambda: snflow.Dense(3)), torch.randn(4, 3)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert not any("snflow" in str(node.target) for node in program.graph.nodes)
    for got, wanted in zip(program.module()(x[:2]), layer(x[:2]), strict=True):
        torch.testing.assert_close(got, wanted)
