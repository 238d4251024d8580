"""The errors that this library raises: each says where, what was expected, what came, and what to do.

Every message has one form, built here and nowhere else::

    SelfNormalizingDense: expected event shape (784,), got (28, 28); put a Flatten before it

All of them derive from :class:`SnflowError`, and from the built-in exception that a caller would expect, so that
``except ValueError`` keeps working.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SnflowError(Exception):
    """Base of all errors of this library.

    Args:
        where: the layer, file, option or command that refused.
        expected: what would have been right.
        got: what came instead.
        fix: what to do about it, in the imperative.

    Example:
        >>> print(SnflowError("Squeeze", expected="an even height", got="7", fix="pad the images"))
        Squeeze: expected an even height, got 7; pad the images
    """

    exit_code = 2

    def __init__(self, where: str, *, expected: str, got: str, fix: str | None = None) -> None:
        self.where, self.expected, self.got, self.fix = where, expected, got, fix
        message = f"{where}: expected {expected}, got {got}"
        super().__init__(f"{message}; {fix}" if fix else message)

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the parts when an error travels between processes."""
        return _rebuild, (type(self), self.where, self.expected, self.got, self.fix)


def _rebuild(kind: type[SnflowError], where: str, expected: str, got: str, fix: str | None) -> SnflowError:
    return kind(where, expected=expected, got=got, fix=fix)


class ShapeError(SnflowError, ValueError):
    """A tensor has the wrong number of dimensions or the wrong size."""


class DtypeError(SnflowError, TypeError):
    """A tensor has another dtype than the parameters, or none that the operation takes."""


class DeviceError(SnflowError, ValueError):
    """A tensor lies on another device than the parameters."""


class ContextError(SnflowError, ValueError):
    """A context was given to a layer that takes none, or is missing where one is needed."""


class NotInvertibleError(SnflowError, ArithmeticError):
    """The map has no inverse: a singular weight, or a direction that the layer does not have."""


class ConvergenceError(NotInvertibleError):
    """An iterative inverse did not reach its tolerance."""


class DivergenceError(SnflowError, ArithmeticError):
    """Training left the finite numbers."""

    exit_code = 3


class ConfigError(SnflowError, ValueError):
    """A recipe, an option or an argument is wrong."""


class DataError(SnflowError, ValueError):
    """A data file or its content is wrong."""


class CheckpointError(SnflowError, RuntimeError):
    """A checkpoint is missing, damaged or of another model."""

    exit_code = 4


class NumericalWarning(UserWarning):
    """A result is finite but poorly conditioned."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Suggest the known word closest to a misspelt one, or list what is known.

    Args:
        word: what the user wrote.
        known: what would have been accepted.

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
