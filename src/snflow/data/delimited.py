"""Text tables: the delimiter and the header are found out, a wrong value is named by line and column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from snflow.errors import DataError

_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", None: "white space"}

Choose = Callable[[int, list[str] | None], list[int]]
"""From the number of columns and their names, if any, to the positions of the wanted ones."""


def read_delimited(path: Path, choose: Choose) -> tuple[npt.NDArray[np.float64], list[str]]:
    r"""Read numbers from text, a row a line, between commas, tabs, semicolons or white space.

    The delimiter is the one that finds most numbers in the first two lines. The header is the first line when no field
    of it is a number, or a line that starts with ``#`` when it has as many fields as the first row behind it; other
    lines that start with ``#``, and blank ones, are comments. Columns that are not wanted may hold anything.

    Args:
        path: the file, in UTF-8.
        choose: which columns are wanted.

    Returns:
        The wanted columns, with shape ``(rows, columns)``, and their names, their numbers where there is no header.

    Raises:
        DataError: the file is no text, a row has another number of fields, or a wanted field is no number.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "a.csv")
        ...     _ = path.write_text("# x, y\n1, 2\n3, 4e-1\n")
        ...     read_delimited(path, lambda count, names: list(range(count)))
        (array([[1. , 2. ],
               [3. , 0.4]]), ['x', 'y'])
    """
    lines = _lines(path)
    rows = [(number, line) for number, line in lines if not line.startswith("#")]
    if not rows:
        raise DataError(str(path), expected="one row or more", got="none")
    delimiter = _sniff([line for _, line in rows[:2]])
    header = None
    first = _fields(rows[0][1], delimiter)
    if any(first) and not any(map(_is_number, first)):
        header, rows = first, rows[1:]
    else:
        leading = [_fields(line.lstrip("#"), delimiter) for number, line in lines if number < rows[0][0]]
        header = next((names for names in leading if len(names) == len(first)), None)
    columns = choose(len(first), header)
    names = [header[column] if header else str(column) for column in columns]
    values = np.empty((len(rows), len(columns)))
    for row, (number, line) in enumerate(rows):
        fields = _fields(line, delimiter)
        if len(fields) != len(first):
            raise DataError(
                f"{path}, line {number}",
                expected=f"{len(first)} fields between {_DELIMITERS[delimiter]}",
                got=f"{len(fields)}",
                fix="repair the line or remove it",
            )
        try:
            values[row] = [_number(fields[column]) for column in columns]
        except ValueError as error:
            wrong = next(column for column in columns if not _is_number(fields[column]))
            name = f" ({header[wrong]!r})" if header else ""
            raise DataError(
                f"{path}, line {number}, column {wrong}{name}",
                expected="a number",
                got=repr(fields[wrong]) if fields[wrong] else "nothing",
                fix="repair it, remove the line, or leave the column out with data.drop_columns",
            ) from error
    return values, names


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers counted from 1."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            stripped = [(number, line.strip("\r\n ")) for number, line in enumerate(file, start=1)]
    except UnicodeDecodeError as error:
        raise DataError(
            str(path),
            expected="a text file in UTF-8",
            got=f"bytes that are none ({error.reason})",
            fix="save it as .npy",
        ) from error
    except OSError as error:
        raise DataError(str(path), expected="a readable file", got=str(error), fix="check its permissions") from error
    return [(number, line) for number, line in stripped if line.strip()]


def _sniff(lines: list[str]) -> str | None:
    """Return the delimiter that finds most numbers, on a tie the one listed first."""
    return max(
        _DELIMITERS, key=lambda delimiter: sum(_is_number(f) for line in lines for f in _fields(line, delimiter))
    )


def _fields(line: str, delimiter: str | None) -> list[str]:
    return [field.strip().strip('"').strip() for field in line.split(delimiter)]


def _number(field: str) -> float:
    if "_" in field:
        raise ValueError(field)  # Python reads 1_000 as a number; a data file that holds it does not mean one
    return float(field)


def _is_number(field: str) -> bool:
    try:
        _number(field)
    except ValueError:
        return False
    return True
