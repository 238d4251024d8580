"""Parts of layers that a compiler cannot trace."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from snflow.errors import CompileWarning

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def uncompiled(where: str, why: str) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Run a function as ordinary Python in compiled code, which then has a graph break, and say so once.

    Args:
        where: the layer, for the warning.
        why: what prevents its compilation.

    Returns:
        A decorator. Outside compiled code the function is unchanged; ``torch.compile(fullgraph=True)`` refuses it, with
        the reason.

    Example:
        >>> @uncompiled("Loop", "the number of steps depends on the data")
        ... def steps(x):
        ...     return int(x.sum())
        >>> steps(torch.ones(3))
        3
    """

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        def warned(*args: Any, **kwargs: Any) -> Any:
            warn_once(where, why)
            return function(*args, **kwargs)

        outside = torch.compiler.disable(warned, reason=f"{where}: {why}")

        @functools.wraps(function)
        def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            if torch.compiler.is_compiling():
                result: Result = outside(*args, **kwargs)
                return result
            return function(*args, **kwargs)

        return call

    return decorate


@functools.cache
def warn_once(where: str, why: str) -> None:
    """Warn, in each process once, that a layer runs uncompiled.

    Example:
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn_once("Example", "it is one")
        ...     warn_once("Example", "it is one")
        >>> print(*(warning.message for warning in caught))
        Example runs uncompiled, between compiled graphs: it is one
    """
    message = f"{where} runs uncompiled, between compiled graphs: {why}"
    warnings.warn(message, CompileWarning, stacklevel=3)
