"""Custom gradients: of a solution computed outside of autograd, and of a value known in advance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from snflow.numerics.undifferentiable import once_differentiable

Solve = Callable[[Tensor], Tensor]


def implicit_solution(solution: Tensor, residual: Tensor, solve_transposed: Solve) -> Tensor:
    """x = x* + A⁻¹(y − A x*): the value x*, with the gradients of the exact solution of A x = y.

    Args:
        solution: x*, found by any method, with shape ``(batch, *event)``; no gradient flows through it.
        residual: y − A x*, close to zero, computed from y and the parameters of A under autograd.
        solve_transposed: v ↦ A⁻ᵀ v, called once in the backward pass.

    Returns:
        x*, with the gradient A⁻ᵀ δ with respect to y and −(A⁻ᵀ δ) x*ᵀ with respect to A (implicit function theorem).
        Second derivatives raise :class:`~snflow.errors.GradientError`.

    Example:
        >>> import torch
        >>> y = torch.tensor([[6.0]], requires_grad=True)
        >>> x = implicit_solution(torch.tensor([[2.0]]), y - 3 * torch.tensor([[2.0]]), lambda v: v / 3)
        >>> torch.autograd.grad(x.sum(), y)[0]
        tensor([[0.3333]])
    """
    correction: Tensor = _Implicit.apply(residual, solve_transposed)
    return solution.detach() + correction


class _Implicit(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(residual: Tensor, solve_transposed: Solve) -> Tensor:
        return torch.zeros_like(residual)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Solve], output: Tensor) -> None:
        residual, ctx.solve_transposed = inputs
        ctx.save_for_backward(residual)

    @staticmethod
    @once_differentiable("an inverse", fix="differentiate the other direction twice, which needs no solver")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.solve_transposed(grads[0]), None


def known_value(weight: Tensor, value: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """y = f(w) for a scalar f whose value is known; f itself is evaluated only in the backward pass.

    Args:
        weight: w, of any shape.
        value: f(w), a scalar.
        function: f, differentiable, called in the backward pass; higher derivatives are supported.

    Returns:
        The value, with the gradient of f.

    Example:
        >>> import torch
        >>> w = torch.tensor(3.0, requires_grad=True)
        >>> torch.autograd.grad(known_value(w, torch.tensor(9.0), torch.square), w)[0]
        tensor(6.)
    """
    if not (torch.is_grad_enabled() and weight.requires_grad):
        return value
    known: Tensor = _KnownValue.apply(weight, value, function)
    return known


class _KnownValue(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, value: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Callable[[Tensor], Tensor]], output: Tensor) -> None:
        weight, _, ctx.function = inputs
        ctx.save_for_backward(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        twice = torch.is_grad_enabled()
        with torch.enable_grad():
            w = weight if twice else weight.detach().requires_grad_()
            (slope,) = torch.autograd.grad(ctx.function(w), w, create_graph=twice)
        return slope * grads[0], None, None
