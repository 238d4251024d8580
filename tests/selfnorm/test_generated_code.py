"""Gradients of code that torch's default compiler generates, against those of the same layers run plainly."""

import shutil
import warnings

import pytest
import torch
from torch._inductor import config

import snflow
from snflow.selfnorm.followers import Followers

LAYERS = {
    "penalty": lambda: snflow.SelfNormalizingDense(6),
    "tracked": lambda: snflow.SelfNormalizingDense(6, tracking=snflow.Newton()),
    "tracked with a pull": lambda: snflow.SelfNormalizingDense(6, tracking=snflow.Newton(pull=0.5)),
    "symmetric": lambda: snflow.SelfNormalizingDense(6, tracking=snflow.Penalty(symmetric=True)),
    "few rows": lambda: snflow.SelfNormalizingDense(6, tracking=snflow.Penalty(samples=2)),
    "relative": lambda: snflow.Dense(6, log_det_rule="relative"),
    "convolution": lambda: snflow.SelfNormalizingConv2d(2, 3),
    "1x1 convolution": lambda: snflow.SelfNormalizingConv2d(2, 1),
    "tracked convolution": lambda: snflow.SelfNormalizingConv2d(2, 3, tracking=snflow.Newton()),
}


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile generates C++, which needs a compiler")
@pytest.mark.parametrize("name", LAYERS)
def test_generated_code_has_the_gradients_of_the_layer(name):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    x = torch.randn(5, *((2, 4, 4) if "convolution" in name else (6,)))
    layer.eval()(x)
    Followers(layer)
    layer.train()
    with torch.no_grad():
        for tensor in layer.state_dict().values():
            if tensor.is_floating_point() and tensor.dim() > 1:
                tensor.add_(0.1 * torch.randn_like(tensor))

    def gradients(function):
        torch.manual_seed(1)
        z, log_det = function(x)
        loss = (torch.linspace(0.5, 2.0, 5) * (0.5 * z.square().flatten(1).sum(1) - log_det)).mean()
        found = torch.autograd.grad(loss, list(layer.parameters()))
        return dict(zip(dict(layer.named_parameters()), found, strict=True))

    wanted = gradients(layer)
    torch._dynamo.reset()
    with warnings.catch_warnings(), config.patch(fallback_random=True):
        warnings.simplefilter("ignore")  # torch's own, about what it traces
        got = gradients(torch.compile(layer))
    assert got.keys() == wanted.keys()
    for key in wanted:
        # Of the first layer of a flow: x has no gradient, and what is computed only for it may be fused away.
        torch.testing.assert_close(got[key], wanted[key], rtol=1e-9, atol=1e-9)
