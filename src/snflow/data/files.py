"""Files of other programs: whatever a parser raises for their bytes is an error of this library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snflow.errors import DataError, SnflowError


@contextmanager
def parsing(path: Path, expected: str, fix: str) -> Iterator[None]:
    """Turn the errors of a block that reads a file into a ``DataError`` that names the file.

    Damaged bytes make the parsers of NumPy, ``zipfile`` and ``pickle`` raise almost any error: ``MemoryError`` for the
    dimensions in a header, ``TokenError`` for its syntax, ``RuntimeError`` for an encrypted member, ``LookupError`` for
    an unknown codec.

    Args:
        path: The file.
        expected: What the file should be.
        fix: How to fix the error, if the file can be read but not parsed.

    Raises:
        DataError: the block raised an error that is not of this library.

    Example:
        >>> with parsing(Path("a.npy"), "an array", "save it again"):
        ...     raise MemoryError("6.94 EiB")
        Traceback (most recent call last):
        snflow.errors.DataError: a.npy: expected an array, got 6.94 EiB; save it again
    """
    try:
        yield
    except SnflowError:
        raise
    except OSError as error:
        if error.errno is None:  # raised by a parser
            raise DataError(str(path), expected=expected, got=str(error), fix=fix) from error
        raise DataError(str(path), expected="a readable file", got=str(error), fix="check its permissions") from error
    except Exception as error:
        got = " ".join(str(error).split()) or type(error).__name__
        raise DataError(str(path), expected=expected, got=got, fix=fix) from error
