"""Errors and argument checks. A message states where the error is, what was expected and given, and how to fix it."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
from abc import ABCMeta
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar, get_args

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class SnflowError(Exception):
    """Base class of all errors of this library.

    It can be built from its parts, or from a single message, as ``pickle``, ``multiprocessing`` and Pyro do.

    Args:
        where: the layer, file, option or command that raises the error; the whole message if ``expected`` is not given.
        expected: the expected value.
        got: the actual value.
        fix: how to fix the error, in the imperative.

    Example:
        >>> print(SnflowError("Squeeze", expected="an even height", got="7", fix="pad the images"))
        Squeeze: expected an even height, got 7; pad the images
        >>> print(SnflowError("a message"))
        a message
    """

    exit_code = 2

    def __init__(
        self, where: str, *, expected: str | None = None, got: str | None = None, fix: str | None = None
    ) -> None:
        self.where, self.expected, self.got, self.fix = where, expected, got, fix
        message = where if expected is None else f"{where}: expected {expected}, got {got}"
        # the parts are stored as attributes, which pickle and copy restore after building the error from its message
        super().__init__(f"{message}; {fix}" if fix else message)


class ShapeError(SnflowError, ValueError):
    """A tensor has the wrong number of dimensions or the wrong size."""


class DtypeError(SnflowError, TypeError):
    """The dtype of a tensor differs from that of the parameters, or is not supported by the operation."""


class DeviceError(SnflowError, ValueError):
    """A tensor and the parameters are on different devices."""


class ContextError(SnflowError, ValueError):
    """A context is missing, or was given to an unconditional layer."""


class NotInvertibleError(SnflowError, ArithmeticError):
    """The map has no inverse: its weight is singular, or the layer has only one direction."""


class ConvergenceError(NotInvertibleError):
    """An iterative inverse did not reach its tolerance."""


class GradientError(SnflowError, RuntimeError):
    """A derivative was requested that is not defined or not available, such as that of a self-normalized gradient."""


class DivergenceError(SnflowError, ArithmeticError):
    """Training produced a non-finite value."""

    exit_code = 3


class ConfigError(SnflowError, ValueError):
    """A recipe, an option or an argument is invalid."""


class DataError(SnflowError, ValueError):
    """A data file or its content is invalid."""


class ArgumentError(ConfigError, TypeError):
    """A function was called with an unknown argument, or without a required one."""


class CheckpointError(SnflowError, RuntimeError):
    """A checkpoint is missing, damaged or belongs to another run."""

    exit_code = 4


class ProcessError(SnflowError, RuntimeError):
    """A process of a run on several devices was lost, or does not answer."""

    exit_code = 5


class NumericalWarning(UserWarning):
    """A result is finite but poorly conditioned."""


class DataWarning(UserWarning):
    """Data were accepted, but hold something that a density cannot describe well, or were changed."""


class CompileWarning(UserWarning):
    """A part of a compiled flow runs uncompiled."""


def check_arguments(where: str, signature: inspect.Signature, args: Sequence[object], kwargs: Iterable[str]) -> None:
    """Raise an error if arguments do not fit a signature, suggesting the closest valid keyword.

    Args:
        where: the class or function that was called.
        signature: its signature, without ``self``.
        args: the positional arguments.
        kwargs: the names of the keyword arguments.

    Raises:
        ArgumentError: the arguments do not fit; the error is both a ``ConfigError`` and a ``TypeError``.

    Example:
        >>> def dense(features, *, bias=True): ...
        >>> check_arguments("dense", inspect.signature(dense), (3,), ["bais"])
        Traceback (most recent call last):
        snflow.errors.ArgumentError: dense: expected a keyword argument of dense(features, *, bias=True), got bais=; \
did you mean 'bias'?
    """
    try:
        signature.bind(*args, **dict.fromkeys(kwargs))
    except TypeError as error:
        bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
        shown = f"{where}{inspect.Signature(bare)}"
        keywords = [p.name for p in signature.parameters.values() if p.kind in _KEYWORD_KINDS]
        unknown = [name for name in kwargs if name not in keywords]
        if unknown:
            expected, got = f"a keyword argument of {shown}", f"{unknown[0]}="
            raise ArgumentError(where, expected=expected, got=got, fix=nearest(unknown[0], keywords)) from None
        given = f"{len(args)} positional and {len(dict.fromkeys(kwargs))} keyword arguments"
        raise ArgumentError(where, expected=f"arguments of {shown}", got=given, fix=str(error)) from None


def checked_arguments(
    where: str | None = None,
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Make a function reject unknown arguments, suggesting the closest valid name.

    Args:
        where: the name of the function in error messages; the name of the decorated function by default.

    Returns:
        A decorator that preserves the signature and the docstring.

    Example:
        >>> @checked_arguments()
        ... def dense(features: int, *, bias: bool = True) -> None: ...
        >>> dense(3, bais=False)
        Traceback (most recent call last):
        snflow.errors.ArgumentError: dense: expected a keyword argument of dense(features, *, bias=True), got bais=; \
did you mean 'bias'?
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        signature, name = inspect.signature(function), where or function.__name__

        @functools.wraps(function)
        def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            check_arguments(name, signature, args, kwargs)
            return function(*args, **kwargs)

        checked.__signature__ = signature  # type: ignore[attr-defined]
        return checked

    return decorate


_KEYWORD_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


CONSTRUCTED_WITH = "_constructed_with"
"""Name of the entry of an instance's ``__dict__`` that holds its constructor's arguments."""


class CheckedConstructor(ABCMeta):
    """Metaclass that checks constructor arguments by :func:`check_arguments`, and records them for saving."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Build an instance; its arguments are recorded in ``vars(instance)[CONSTRUCTED_WITH]``."""
        args = tuple(list(value) if isinstance(value, Iterator) else value for value in args)  # to be read twice
        try:
            built = super().__call__(*args, **kwargs)
        except TypeError as error:
            if not isinstance(error, SnflowError):
                check_arguments(cls.__name__, cls.__signature__, args, kwargs)
            raise
        vars(built)[CONSTRUCTED_WITH] = args, kwargs
        return built

    @property
    def __signature__(cls) -> inspect.Signature:
        """The signature of ``__init__``; without this, ``inspect.signature`` would report that of ``__call__``."""
        parameters = list(inspect.signature(cls.__init__).parameters.values())  # type: ignore[misc]
        return inspect.Signature(parameters[1:])


def nearest(word: str, known: Iterable[str]) -> str:
    """Suggest the known word closest to a misspelled one, or list all known words.

    Args:
        word: the misspelled word.
        known: the valid words.

    Returns:
        The end of an error message: ``did you mean 'epochs'?`` or ``known: a, b``.

    Example:
        >>> nearest("epoch", ["epochs", "seed"])
        "did you mean 'epochs'?"
        >>> nearest("zzz", ["epochs", "seed"])
        'known: epochs, seed'
    """
    names = sorted(known)
    match = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else f"known: {', '.join(names)}"


def check_choice(where: str, option: str, value: str, choices: object) -> None:
    """Raise an error if a value is not among those of a ``Literal``.

    Args:
        where: the name of the caller, for error messages.
        option: the name of the argument.
        value: the value.
        choices: the ``Literal`` type.

    Raises:
        ConfigError: the value is unknown; the message suggests the closest valid one.

    Example:
        >>> from typing import Literal
        >>> check_choice("Dense", "log_det_rule", "exact", Literal["exact", "relative"])
    """
    known: tuple[str, ...] = get_args(choices)
    if value not in known:
        expected = f"{option} to be one of {', '.join(known)}"
        raise ConfigError(where, expected=expected, got=repr(value), fix=nearest(str(value), known))


MAX_INT = 2**63 - 1
"""The largest 64-bit integer: the largest number of rows, and the largest seed."""


def check_count(where: str, option: str, value: int, *, most: int = 10**6) -> None:
    """Raise an error if a count is not a positive integer, or is larger than can be meant.

    Args:
        where: the name of the caller, for error messages.
        option: the name of the argument.
        value: the count.
        most: the largest count; by default that of layers, units or features of a network.

    Raises:
        ConfigError: the count is below one, too large, or not an integer.
    """
    if not _is_whole(value) or value < 1:
        raise ConfigError(where, expected=f"{option} ≥ 1", got=repr(value), fix="use a positive integer")
    if value > most:
        raise ConfigError(where, expected=f"{option} ≤ {most}", got=in_digits(value), fix="use a smaller number")


def check_seed(where: str, option: str, value: int) -> None:
    """Raise an error if a seed is not an integer from 0 to 2⁶³ − 1, which every generator accepts.

    Raises:
        ConfigError: the seed is negative, too large, or not an integer.
    """
    if not _is_whole(value) or not 0 <= value <= MAX_INT:
        raise ConfigError(where, expected=f"{option} from 0 to 2**63 - 1", got=in_digits(value))


def in_digits(value: object) -> str:
    """The text of a value; of a huge integer only its size, because Python refuses to write more than 4,300 digits.

    Example:
        >>> in_digits(12), in_digits(10**5000)
        ('12', 'an integer of 16610 bits')
    """
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)


def check_event_shape(where: str, features: int | Sequence[int]) -> tuple[int, ...]:
    """The shape of one event, given as D or as a shape.

    Args:
        where: the name of the caller, for error messages.
        features: D for vectors ``(D,)``, or the shape itself.

    Returns:
        The shape, as a tuple of Python integers.

    Raises:
        ConfigError: the argument is neither a positive integer nor a sequence of positive integers.

    Example:
        >>> check_event_shape("flows.maf", 4), check_event_shape("flows.conv", [1, 28, 28])
        ((4,), (1, 28, 28))
    """
    expected = "the shape of one event: a number of features, or a tuple of positive integers"
    return _check_shape(where, features, expected, fix="omit the batch dimension: x.shape[1:]")


def check_context_shape(where: str, context_shape: int | Sequence[int] | None) -> tuple[int, ...] | None:
    """The shape of one sample's context, given as C, as a shape, or as ``None`` for no context.

    Args:
        where: the name of the caller, for error messages.
        context_shape: C for vectors ``(C,)``, the shape itself, or ``None``.

    Returns:
        The shape, as a tuple of Python integers, or ``None``.

    Raises:
        ConfigError: the argument is neither ``None``, nor a positive integer, nor a sequence of positive integers.

    Example:
        >>> check_context_shape("Coupling", 2), check_context_shape("Coupling", None)
        ((2,), None)
    """
    if context_shape is None:
        return None
    expected = "context_shape to be a number of features, or a tuple of positive integers"
    fix = "omit the batch dimension: context.shape[1:], or use None for no context"
    return _check_shape(where, context_shape, expected, fix)


def _check_shape(where: str, shape: int | Sequence[int], expected: str, fix: str) -> tuple[int, ...]:
    sizes = shape if isinstance(shape, Sequence) else (shape,)
    if not sizes or not all(_is_whole(size) and size >= 1 for size in sizes):
        raise ConfigError(where, expected=expected, got=repr(shape), fix=fix)
    return tuple(int(size) for size in sizes)


def check_context_vector(where: str, context_shape: int | Sequence[int] | None) -> int:
    """The number of features of the context of a network that accepts only vectors; 0 for no context.

    Raises:
        ConfigError: the context is not a vector.

    Example:
        >>> check_context_vector("MLP", (3,)), check_context_vector("MLP", None)
        (3, 0)
    """
    shape = check_context_shape(where, context_shape)
    if shape is None:
        return 0
    if len(shape) > 1:
        raise ConfigError(
            where,
            expected="a context vector, context_shape=C",
            got=f"context_shape={shape}",
            fix="flatten the context, or map it to a vector by another network",
        )
    return shape[0]


def check_shape_kept(where: str, shape: Sequence[int], event_shape: Sequence[int]) -> None:
    """Raise an error if a network has changed the shape of events.

    Raises:
        ShapeError: the two shapes differ.
    """
    if tuple(shape) != tuple(event_shape):
        raise ShapeError(
            where,
            expected=f"a network that keeps the shape {tuple(event_shape)}",
            got=f"{tuple(shape)}",
            fix="use a network whose outputs have the shape of its inputs",
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_kernel(where: str, kernel_size: int) -> None:
    """Raise an error if a kernel size is not odd.

    Raises:
        ConfigError: the size is even, below one, or not an integer.
    """
    if not _is_whole(kernel_size) or kernel_size < 1 or kernel_size % 2 == 0:
        expected = "an odd kernel_size, so that padding can preserve the image size"
        fix = f"use {max(1, kernel_size - 1)} or {max(1, kernel_size + 1)}" if _is_whole(kernel_size) else "use 3"
        raise ConfigError(where, expected=expected, got=repr(kernel_size), fix=fix)


def check_weight(where: str, option: str, value: float, *, fix: str = "use 1") -> None:
    """Raise an error if the weight of a penalty is negative or not finite.

    Args:
        where: the name of the caller, for error messages.
        option: the name of the argument.
        value: the weight.
        fix: how to fix the error, for example which value to use.

    Raises:
        ConfigError: the weight is negative, infinite or not a number.
    """
    if not (_is_real(value) and math.isfinite(value) and value >= 0):
        raise ConfigError(where, expected=f"{option} ≥ 0 and finite", got=repr(value), fix=fix)


def check_positive(where: str, option: str, value: float, *, fix: str | None = None) -> None:
    """Raise an error if a number is not positive and finite.

    Raises:
        ConfigError: the number is zero, negative, infinite or not a number.
    """
    if not (_is_real(value) and math.isfinite(value) and value > 0):
        raise ConfigError(where, expected=f"{option} > 0 and finite", got=repr(value), fix=fix)


def check_option(section: str, options: object, field: str, holds: bool, expected: str) -> None:
    """Raise an error, with the path of the option in the recipe, if an option is out of range.

    Args:
        section: the section of the recipe.
        options: the dataclass of options.
        field: the name of the option.
        holds: whether the option is in range.
        expected: a description of the range.

    Raises:
        ConfigError: the option is out of range.
    """
    if not holds:
        raise ConfigError(f"{section}.{field}", expected=expected, got=in_digits(getattr(options, field)))


def _is_real(value: object) -> bool:
    return isinstance(value, Real)
