"""A gradient that is a constant to autograd refuses to be differentiated, by every route."""

import pytest
import torch
from torch.autograd import forward_ad

from snflow.errors import GradientError
from snflow.numerics.undifferentiable import once_differentiable


class Square(torch.autograd.Function):
    """x², whose slope depends on x through a saved tensor only."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.square()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    @once_differentiable("Square", fix="use x * x")
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad

    @staticmethod
    def jvp(ctx, tangent):
        return 2 * ctx.saved_tensors[0] * tangent


def total(x):
    return Square.apply(x).sum()


def by_hand(x):
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(total(x), x, create_graph=True)
    return torch.autograd.grad(slope.sum(), x)


def by_a_dual_number(x):
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x.clone().requires_grad_(), torch.ones_like(x))
        return torch.autograd.grad(total(dual), dual)


ROUTES = {
    "autograd": by_hand,
    "a dual number": by_a_dual_number,
    "functional.hessian": lambda x: torch.autograd.functional.hessian(total, x),
    "functional.hessian, vectorized": lambda x: torch.autograd.functional.hessian(total, x, vectorize=True),
    "func.hessian": torch.func.hessian(total),
    "jacrev of jacrev": torch.func.jacrev(torch.func.jacrev(total)),
    "vmap of func.hessian": lambda x: torch.func.vmap(torch.func.hessian(total))(x[:, None]),
    "vmap of jacrev of jacrev": lambda x: torch.func.vmap(torch.func.jacrev(torch.func.jacrev(total)))(x[:, None]),
}


@pytest.mark.parametrize("route", ROUTES)
def test_a_second_derivative_raises(route):
    with pytest.raises(GradientError, match="Square: expected first derivatives, got a derivative of one; use x"):
        ROUTES[route](torch.randn(3))


def test_first_derivatives_are_unchanged():
    x = torch.randn(3)
    leaf = x.clone().requires_grad_()
    for create_graph in (False, True):
        assert torch.equal(torch.autograd.grad(total(leaf), leaf, create_graph=create_graph)[0], 2 * x)
    assert torch.equal(torch.func.grad(total)(x), 2 * x)
    assert torch.equal(torch.func.vmap(torch.func.grad(total))(x), 2 * x)
    assert torch.equal(torch.autograd.functional.jacobian(total, x, create_graph=True), 2 * x)
