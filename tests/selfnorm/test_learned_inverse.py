"""Derivatives of the learned inverse where it is no parameter: it follows the weight, and so do they."""

import pytest
import torch
from torch.func import functional_call, grad, jacrev, jvp, vmap

from snflow import Flow, Newton, Secant, SelfNormalizingConv2d, SelfNormalizingDense, StandardNormal
from snflow.errors import GradientError

LAYERS = {
    "dense": (lambda: SelfNormalizingDense(3, tracking=Newton()), (3,)),
    "dense, secant": (lambda: SelfNormalizingDense(3, tracking=Secant()), (3,)),
    "pointwise convolution": (lambda: SelfNormalizingConv2d(2, 1, tracking=Newton()), (2, 2, 3)),
}


def inverted(name):
    """A layer with R = W⁻¹, and latents."""
    build, shape = LAYERS[name]
    layer = build()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    layer.refresh_inverse(shape)
    return layer.eval(), torch.randn(4, *shape)


def objective(outputs):
    x, log_det = outputs
    return (x.sin().flatten(1).sum(1) * torch.arange(1.0, 5.0) + log_det * torch.arange(4.0)).sum()


@pytest.mark.parametrize("name", LAYERS)
def test_its_first_derivatives_are_those_of_the_exact_inverse(name):
    layer, z = inverted(name)
    wanted, got = (
        torch.autograd.grad(objective(layer.inverse(leaf, inverse=method)), [leaf, layer.weight, layer.bias])
        for method, leaf in (("exact", z.clone().requires_grad_()), ("learned", z.clone().requires_grad_()))
    )
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)
    (decoded,) = torch.autograd.grad(layer.decode(z, inverse="learned").sin().sum(), layer.weight)
    torch.testing.assert_close(decoded, torch.autograd.grad(layer.decode(z).sin().sum(), layer.weight)[0])


@pytest.mark.parametrize("name", LAYERS)
def test_also_under_transforms_and_in_forward_mode(name):
    layer, z = inverted(name)
    parameters = {key: value.detach() for key, value in layer.named_parameters()}

    class Learned(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, z):
            return objective(self.layer.inverse(z, inverse="learned"))

    def value(given, z):
        return functional_call(Learned(), {f"layer.{key}": v for key, v in given.items()}, (z,))

    wanted = torch.autograd.grad(objective(layer.inverse(z, inverse="learned")), list(layer.parameters()))
    by_weight = grad(value)(parameters, z)
    for got, expected in zip(by_weight.values(), wanted, strict=True):
        torch.testing.assert_close(got, expected)
    tangents = {key: torch.randn_like(v) for key, v in parameters.items()}
    along = jvp(lambda p: value(p, z), (parameters,), (tangents,))[1]
    torch.testing.assert_close(along, sum((by_weight[key] * tangents[key]).sum() for key in tangents))
    stacked = {key: torch.stack([v, v]) for key, v in parameters.items()}
    for key, got in vmap(grad(value), in_dims=(0, None))(stacked, z).items():
        torch.testing.assert_close(got[1], by_weight[key])


def test_second_derivatives_by_the_latent_are_right_and_by_the_weight_refused():
    layer, z = inverted("dense")

    def learned(v):
        return layer.decode(v, inverse="learned").sin().sum()

    step = 1e-5 * torch.randn_like(z)
    above, below = (grad(learned)(at) for at in (z + step, z - step))
    along = (jacrev(grad(learned))(z) * step).sum((2, 3))
    torch.testing.assert_close(along, (above - below) / 2, rtol=1e-5, atol=1e-10)
    (slope,) = torch.autograd.grad(learned(z), layer.weight, create_graph=True)
    with pytest.raises(GradientError, match="the learned inverse"):
        slope.square().sum().backward()


def test_samples_by_it_are_a_differentiable_function_of_the_parameters():
    layer, _ = inverted("dense")
    flow, gradients = Flow(layer, StandardNormal((3,))), []
    for method in ("exact", "learned"):
        torch.manual_seed(0)
        gradients.append(
            torch.autograd.grad(flow.rsample(50, inverse=method).square().mean(), list(layer.parameters()))
        )
    assert gradients[0][0].abs().max() > 0.1
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
