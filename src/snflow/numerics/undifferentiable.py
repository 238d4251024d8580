"""Gradients that cannot be differentiated again, and raise an error if they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

from snflow.errors import GradientError

Backward = Callable[..., Any]

EXACT_IN_EVAL = "call eval(), where all derivatives are exact"
"""What to do if a gradient that approximates the exact one cannot be differentiated."""


def undifferentiable(value: Tensor, *on: Tensor | None, where: str, fix: str) -> Tensor:
    """The same value; a derivative of it with respect to anything on which it or ``on`` depends raises an error.

    A gradient that is computed without a graph is a constant to autograd: its derivatives are silently zero. This
    function gives it a graph whose only purpose is to raise an error, in reverse and forward mode and under
    ``torch.func``. It does nothing in compiled code, since ``torch.compile`` itself refuses second derivatives.

    Args:
        value: a gradient, of any shape.
        on: the tensors from which it was computed without a graph.
        where: the layer, for the error message.
        fix: what to do instead.

    Returns:
        The value.

    Raises:
        GradientError: when the value is differentiated.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> slope = undifferentiable(2 * x.detach(), x, where="Square", fix="use x * x")
        >>> slope.sum().backward()
        Traceback (most recent call last):
        snflow.errors.GradientError: Square: expected first derivatives, got a derivative of one; use x * x
    """
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() or forward_ad._current_level >= 0):
        return value
    error = functools.partial(GradientError, where, expected="first derivatives", got="a derivative of one", fix=fix)
    same: Tensor = _Undifferentiable.apply(value, error, *on)
    return same


class _Undifferentiable(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, error: Callable[[], Exception], *on: Tensor | None) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.error = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> NoReturn:
        raise ctx.error()

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> NoReturn:
        raise ctx.error()


def once_only(*tensors: Tensor, where: str, fix: str) -> Tensor:
    """0, whose gradient by the tensors is zero and must not be differentiated again.

    Added to a surrogate, a value whose gradient contains constants that depend on these tensors, it makes second
    derivatives of the surrogate raise an error.

    Args:
        tensors: what the constants depend on.
        where: the layer, for the error message.
        fix: what to do instead.

    Returns:
        A scalar.

    Raises:
        GradientError: when a gradient of it is differentiated.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> square = 2 * x.detach() * x + once_only(x, where="Square", fix="use x * x")
        >>> (slope,) = torch.autograd.grad(square, x, create_graph=True)
        >>> slope.backward()
        Traceback (most recent call last):
        snflow.errors.GradientError: Square: expected first derivatives, got a derivative of one; use x * x
    """
    if torch.compiler.is_compiling():
        return tensors[0].new_zeros(())
    zero: Tensor = _OnceOnly.apply(where, fix, *tensors)
    return zero


class _OnceOnly(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(where: str, fix: str, *tensors: Tensor) -> Tensor:
        return tensors[0].new_zeros(())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.where, ctx.fix, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        on = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return None, None, *(None for _ in on)
        zeros = (undifferentiable(torch.zeros_like(v), *grads, *on, where=ctx.where, fix=ctx.fix) for v in on)
        return None, None, *zeros

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> NoReturn:
        raise GradientError(ctx.where, expected="a derivative in reverse mode", got="forward mode", fix=ctx.fix)


def once_differentiable(where: str, fix: str) -> Callable[[Backward], Backward]:
    """Make the gradients of an autograd function raise an error if they are differentiated again.

    Unlike the decorator of torch with this name, it also does so if a gradient depends on the inputs only through the
    saved tensors, and not through the gradient of the output.

    Args:
        where: the layer, for the error message.
        fix: what to do instead.

    Returns:
        A decorator of ``backward(ctx, *grads)``.

    Example:
        >>> class Square(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x**2
        ...
        ...     @staticmethod
        ...     @once_differentiable("Square", fix="use x * x")
        ...     def backward(ctx, grad):
        ...         return 2 * ctx.saved_tensors[0] * grad
        >>> torch.autograd.functional.hessian(Square.apply, torch.tensor(3.0))
        Traceback (most recent call last):
        snflow.errors.GradientError: Square: expected first derivatives, got a derivative of one; use x * x
    """

    def decorate(backward: Backward) -> Backward:
        @functools.wraps(backward)
        def once(ctx: Any, *grads: Any) -> Any:
            with torch.no_grad():
                found = backward(ctx, *grads)
            on = [tensor for tensor in (*grads, *ctx.saved_tensors) if isinstance(tensor, Tensor)]

            def checked(gradient: object) -> object:
                if not isinstance(gradient, Tensor):
                    return gradient
                return undifferentiable(gradient, *on, where=where, fix=fix)

            return tuple(map(checked, found)) if isinstance(found, tuple) else checked(found)

        return once

    return decorate
