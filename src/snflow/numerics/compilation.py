"""Operations of a compiled graph that run plain code: what a compiler cannot trace."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from snflow.errors import CompileWarning, ConfigError


class Reasons(NamedTuple):
    """Why a compiler cannot trace a direction of a layer or an inversion method; empty where it can."""

    forward: str = ""
    inverse: str = ""
    refined: str = ""


ROOT_SEARCH = Reasons(inverse="the number of steps of its root search depends on the data")
ITERATION = Reasons(inverse="the number of its iterations depends on the data")
REFINEMENT = Reasons(refined="the number of its iterations depends on the data")
FIRST_BATCH = Reasons(forward="its first batch in train() initializes it")


def in_both_directions(why: str) -> Reasons:
    """The reason for both directions.

    Example:
        >>> in_both_directions("it draws")
        Reasons(forward='it draws', inverse='it draws', refined='')
    """
    return Reasons(why, why)


_numbers = itertools.count()
numbered: WeakValueDictionary[int, Any] = WeakValueDictionary()
"""The objects that operations work with. An operation takes tensors and numbers only, hence a number for each."""


def number_of_new(owner: object) -> int:
    """Return a number under which the operations of a compiled graph find an object, as long as it exists.

    Example:
        >>> layer = nn.Identity()
        >>> numbered[number_of_new(layer)] is layer
        True
    """
    number = next(_numbers)
    numbered[number] = owner
    return number


def operation(*tags: torch.Tag) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: make a function an operation of compiled graphs, with its name in the namespace ``snflow``.

    Its code is plain: it reads values, which the recording of CUDA graphs does not allow.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        name = f"snflow::{function.__name__.strip('_')}"
        return torch.library.custom_op(name, function, mutates_args=(), tags=(torch.Tag.cudagraph_unsafe, *tags))

    return decorate


def run_uncompiled(
    layer: nn.Module,
    method: str,
    x: Tensor,
    context: Tensor | None,
    *how: str,
    shape: tuple[int, ...],
    why: str,
) -> tuple[Tensor, Tensor]:
    """The result of a layer's method as one operation of the compiled graph, which runs the plain code and says so.

    Gradients are those of the plain code, whose graph is kept until the last reference to the result is gone. They
    cannot be differentiated again.

    Args:
        layer: the layer, with a ``label`` and, by :func:`number_of_new`, a ``number``; its parameters get gradients.
        method: the name of the method, called with x, the context and the further argument.
        x: events, with shape ``(batch, *event)``.
        context: the context, if any.
        how: the further argument of the method, if any.
        shape: the event shape of the result.
        why: what prevents the compilation.

    Returns:
        Events, with shape ``(batch, *shape)``, and log-determinants, with shape ``(batch,)``: zeros if the method
        returns none.

    Raises:
        ConfigError: in ``torch.export``, whose result must not need the layer.

    Warns:
        CompileWarning: the first time for this kind of layer and this reason.
    """
    if torch.compiler.is_exporting():
        raise ConfigError(
            str(layer.label), expected="a computation that torch.export can trace", got=why, fix="export another flow"
        )
    given = [x] if context is None else [x, context]
    tensors = [*given, *layer.parameters()]
    wanted = [torch.is_grad_enabled() and tensor.requires_grad for tensor in tensors]
    events, log_det, _ = _plain_code(tensors, wanted, len(given), layer.number, method, *(how or ("",)), shape, why)
    return events, log_det


@functools.cache
def warn_once(where: str, why: str) -> None:
    """Warn, in each process once, that a layer runs uncompiled.

    Example:
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn_once("Example", "it is one")
        ...     warn_once("Example", "it is one")
        >>> print(*(warning.message for warning in caught))
        Example runs uncompiled, as one operation of the compiled graph: it is one
    """
    message = f"{where} runs uncompiled, as one operation of the compiled graph: {why}"
    warnings.warn(message, CompileWarning, stacklevel=3)


class _Graph(bytearray):
    """The graph that autograd recorded in plain code, as the memory of a tensor: it exists as long as the tensor."""

    outputs: list[Tensor]
    leaves: list[Tensor]


_graphs: WeakValueDictionary[int, _Graph] = WeakValueDictionary()


class _Method(nn.Module):
    """A method of a layer as a module, for ``torch.func.functional_call``."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, method: str, *arguments: Any) -> Any:
        return getattr(self.layer, method)(*arguments)


def _as_usual() -> AbstractContextManager[object]:
    """A context manager in which torch works as usual, within an operation, where autograd and transforms are off."""
    guard: AbstractContextManager[object] = torch._C._ForceDispatchKeyGuard(*_usual_dispatch())
    return guard


@functools.cache
def _usual_dispatch() -> tuple[Any, Any]:
    """What a new thread dispatches to: the keys that are included, and those that are excluded."""
    keys = torch._C._dispatch_tls_local_include_set, torch._C._dispatch_tls_local_exclude_set
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: (keys[0](), keys[1]())).result()


@operation(torch.Tag.nondeterministic_seeded)
def _plain_code(
    tensors: Sequence[Tensor],
    wanted: Sequence[bool],
    count: int,
    number: int,
    method: str,
    how: str,
    shape: Sequence[int],
    why: str,
) -> list[Tensor]:
    """Events, log-determinants, and a number for the graph; ``count`` tensors are data, the others parameters."""
    layer = numbered[number]
    warn_once(layer.label, why)
    leaves = [tensor.detach().requires_grad_(want) for tensor, want in zip(tensors, wanted, strict=True)]
    own = dict(layer.named_parameters())
    swapped = {}
    if all(map(_is_same, own.values(), tensors[count:])):
        leaves[count:] = own.values()
    else:  # compiled within torch.func.functional_call
        swapped = {f"layer.{name}": leaf for name, leaf in zip(own, leaves[count:], strict=True)}
    arguments = (method, leaves[0], leaves[1] if count > 1 else None, *((how,) if how else ()))
    with _as_usual(), torch.set_grad_enabled(any(wanted)):
        found = torch.func.functional_call(_Method(layer), swapped, arguments)
    outputs = list(found) if isinstance(found, tuple) else [found, found.new_zeros(len(found))]
    graph = _Graph(8)
    graph.outputs, graph.leaves = outputs, [leaf for leaf, want in zip(leaves, wanted, strict=True) if want]
    ticket = torch.frombuffer(graph, dtype=torch.int64).fill_(next(_numbers))
    _graphs[int(ticket)] = graph
    return [*(output.detach().clone(memory_format=torch.contiguous_format) for output in outputs), ticket]


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape


@operation()
def _plain_gradient(grads: Sequence[Tensor], ticket: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The gradients with respect to the wanted tensors, whose shapes are those of ``like``."""
    graph = _graphs[int(ticket)]
    followed = [(output, grad) for output, grad in zip(graph.outputs, grads, strict=True) if output.requires_grad]
    if not followed:
        return [torch.zeros_like(leaf) for leaf in like]
    outputs, grads = zip(*followed, strict=True)
    # the tensor of the number frees the graph, not this pass, which may be repeated
    with _as_usual():
        found = torch.autograd.grad(
            outputs, graph.leaves, grads, retain_graph=True, allow_unused=True, materialize_grads=True
        )
    return [gradient.clone(memory_format=torch.contiguous_format) for gradient in found]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    tensors, ctx.wanted = inputs[:2]
    ctx.save_for_backward(*tensors, output[2])
    ctx.shapes = [part.shape for part in output[:2]]


def _plain_code_backward(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    *tensors, ticket = ctx.saved_tensors
    given = [
        tensors[0].new_zeros(shape) if grad is None else grad for grad, shape in zip(grads, ctx.shapes, strict=False)
    ]
    like = [tensor for tensor, want in zip(tensors, ctx.wanted, strict=True) if want]
    found = iter(_plain_gradient(given, ticket, like))
    return [next(found) if want else None for want in ctx.wanted], *[None] * 7


def _shapes_of_plain_code(
    tensors: Sequence[Tensor],
    wanted: Sequence[bool],
    count: int,
    number: int,
    method: str,
    how: str,
    shape: Sequence[int],
    why: str,
) -> list[Tensor]:
    x = tensors[0]
    batch = x.shape[0]
    return [x.new_empty(batch, *shape), x.new_empty(batch), torch.empty(1, dtype=torch.int64, device="cpu")]


_plain_code.register_fake(_shapes_of_plain_code)
_plain_gradient.register_fake(lambda grads, ticket, like: [leaf.new_empty(leaf.shape) for leaf in like])
_plain_code.register_autograd(_plain_code_backward, setup_context=_save)
