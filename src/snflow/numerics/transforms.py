"""Utilities for code that runs under the transforms of torch.func."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.autograd import forward_ad

from snflow.errors import ConfigError


def under_transform() -> bool:
    """Whether ``vmap``, ``grad`` or another transform of ``torch.func`` is active.

    Under a transform a tensor may represent many: its values can be neither inspected nor cached, and a plain tensor
    cannot be written to. The result is False in a compiled call, where the compiler traces the transforms.

    Example:
        >>> under_transform()
        False
        >>> seen = []
        >>> _ = torch.func.vmap(lambda x: seen.append(under_transform()) or x)(torch.ones(2))
        >>> seen
        [True]
    """
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


def outside_transforms() -> AbstractContextManager[object]:
    """A context manager that suspends active transforms, so that plain tensors can be read, cached and written to.

    Example:
        >>> total = torch.zeros(())
        >>> def square(x):
        ...     with outside_transforms():
        ...         _ = total.add_(1)
        ...     return x**2
        >>> torch.func.grad(square)(torch.tensor(3.0)), total
        (tensor(6.), tensor(1.))
    """
    if not under_transform():
        return nullcontext()
    block: AbstractContextManager[object] = torch._functorch.pyfunctorch.temporarily_clear_interpreter_stack()
    return block


def is_traced(tensor: Tensor) -> bool:
    """Whether a transform or forward-mode differentiation tracks this tensor, so that its values must not be cached.

    Example:
        >>> seen, plain = [], torch.ones(2)
        >>> _ = torch.func.grad(lambda x: (seen.append((is_traced(x), is_traced(plain))), x.sum())[1])(torch.ones(2))
        >>> seen
        [(True, False)]
    """
    if torch.compiler.is_compiling():
        return False
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return True
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None


def is_recorded() -> bool:
    """Whether this code is compiled, or recorded as a CUDA graph: no value can be read, and memory is bound for good.

    Example:
        >>> is_recorded()
        False
    """
    if torch.compiler.is_compiling():
        return True
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def stands_for_many(tensor: Tensor) -> bool:
    """Whether this tensor is batched by ``vmap``, so that control flow cannot depend on its values.

    Example:
        >>> seen = []
        >>> _ = torch.func.vmap(lambda x: seen.append(stands_for_many(x)) or x)(torch.ones(2))
        >>> _ = torch.func.grad(lambda x: seen.append(stands_for_many(x)) or x)(torch.tensor(1.0))
        >>> seen
        [True, False]
    """
    if torch.compiler.is_compiling():
        return False
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return True
        tensor = functorch.get_unwrapped(tensor)
    return False


def value_of(tensor: Tensor) -> Tensor:
    """The plain tensor with the values of a tensor that is not batched by ``vmap``.

    Example:
        >>> seen = []
        >>> _ = torch.func.grad(lambda x: (seen.append(value_of(x)), x**2)[1])(torch.tensor(3.0))
        >>> seen, is_traced(seen[0])
        ([tensor(3.)], False)
    """
    if torch.compiler.is_compiling():
        return tensor
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return forward_ad.unpack_dual(tensor).primal if forward_ad._current_level >= 0 else tensor


def is_known_true(condition: Tensor) -> bool:
    """``bool(condition)``, but False under ``vmap``, so that a loop with an early exit runs for all its iterations.

    Example:
        >>> is_known_true(torch.tensor(True))
        True
    """
    return not stands_for_many(condition) and bool(condition)


def refuse_transforms(where: str, fix: str) -> None:
    """Raise an error if a transform is active.

    Args:
        where: the layer whose computation depends on values.
        fix: what to do instead.

    Raises:
        ConfigError: under a transform of ``torch.func``.

    Example:
        >>> refuse_transforms("a layer", "call it once outside the transform")
    """
    if under_transform():
        raise ConfigError(
            where, expected="an ordinary call", got="one under a transform of torch.func (vmap, grad, …)", fix=fix
        )


def add_scaled(into: Tensor, other: Tensor, scale: Tensor) -> None:
    """Compute ``into += scale · other`` in place with a scalar tensor ``scale``, fused unless a transform is active.

    Example:
        >>> into = torch.ones(2)
        >>> add_scaled(into, torch.ones(2), torch.tensor(2.0))
        >>> into
        tensor([3., 3.])
    """
    if under_transform():
        into.add_(scale * other)
    else:
        into.addcmul_(other, scale)
