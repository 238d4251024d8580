"""What the self-normalized and the relative gradient say when they are differentiated again."""

import copy

import pytest
import torch
from torch.func import functional_call, hessian, jacrev, jvp, vmap

from snflow import Newton, flows
from snflow.errors import GradientError

IMAGE = (1, 2, 2)
FLOWS = {
    "dense": lambda: flows.dense(IMAGE),
    "dense, newton": lambda: flows.dense(IMAGE, tracking=Newton()),
    "dense, relative": lambda: flows.dense(IMAGE, log_det_rule="relative"),
    "conv": lambda: flows.conv(IMAGE, scales=1, layers=2, activation="smooth_leaky_relu"),
}


def trained(name):
    """A flow in ``train()`` that has been evaluated once, and data."""
    flow, x = FLOWS[name](), torch.randn(2, *IMAGE)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    flow.eval().log_prob(x)
    return flow.train(), x


@pytest.mark.parametrize("name", FLOWS)
def test_the_hessian_by_the_data_is_exact(name):
    flow, x = trained(name)
    exact = copy.deepcopy(flow).eval()
    wanted = torch.autograd.functional.hessian(lambda v: exact.log_prob(v).sum(), x)

    def objective(v):
        return flow.log_prob(v).sum()

    assert wanted.abs().max() > 0.1
    for got in (
        torch.autograd.functional.hessian(objective, x),
        torch.autograd.functional.hessian(objective, x, vectorize=True),
        jacrev(jacrev(objective))(x),
        hessian(objective)(x),
    ):
        torch.testing.assert_close(got, wanted)
    by_row = vmap(hessian(lambda row: flow.log_prob(row[None])[0]))(x)
    torch.testing.assert_close(by_row, torch.stack([wanted[row, ..., row, :, :, :] for row in range(2)]))


@pytest.mark.parametrize("name", FLOWS)
def test_second_derivatives_by_the_weights_are_refused(name):
    flow, x = trained(name)
    parameters = {key: value.detach() for key, value in flow.named_parameters()}

    def objective(given):
        return functional_call(flow, given, (x,)).sum()

    def by_hand():
        gradients = torch.autograd.grad(flow.log_prob(x).sum(), list(flow.parameters()), create_graph=True)
        sum(gradient.square().sum() for gradient in gradients).backward()

    key = next(key for key in parameters if key.endswith(".weight"))

    def of_one(weight):
        return objective({**parameters, key: weight})

    for derivative in (
        by_hand,
        lambda: torch.autograd.functional.hessian(of_one, parameters[key]),
        lambda: jacrev(jacrev(objective))(parameters),
        lambda: hessian(objective)(parameters),
        lambda: jvp(objective, (parameters,), (parameters,)),
    ):
        with pytest.raises(GradientError, match=r"gradient: expected .*; call eval\(\)"):
            derivative()


@pytest.mark.parametrize("name", FLOWS)
def test_score_matching_has_its_gradient_or_an_error(name):
    """∂/∂w of ‖∂log p/∂x‖²: right if w receives the whole gradient, refused if it receives a part of it."""

    def gradient(flow):
        leaf = x.clone().requires_grad_()
        (score,) = torch.autograd.grad(flow.log_prob(leaf).sum(), leaf, create_graph=True)
        weights = [p for key, p in flow.named_parameters() if not key.endswith("inverse_weight")]
        return torch.autograd.grad(score.square().sum(), weights, allow_unused=True, materialize_grads=True)

    flow, x = trained(name)
    if name != "dense, newton":
        with pytest.raises(GradientError, match=r"call eval\(\)"):
            gradient(flow)
        return
    for got, wanted in zip(gradient(flow), gradient(copy.deepcopy(flow).eval()), strict=True):
        torch.testing.assert_close(got, wanted)
