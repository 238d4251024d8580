"""Tables of numbers in text: the delimiter, the decimal mark and the header are found."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from snflow.data.files import parsing
from snflow.errors import DataError, DataWarning

Decimal = Literal[".", ","]
"""The mark before the fraction of a number."""

_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", None: "whitespace"}

_SAMPLE = 100
"""Number of lines from which the format is found."""

_CHUNK = 2**14
"""Number of lines that are converted at a time; only if one of them is wrong are they read one by one."""

_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")
_WITH_COMMA = re.compile(r"[-+]?\d+(,\d+)?([eE][-+]?\d+)?")


@final
@dataclass(frozen=True)
class Delimited:
    r"""A table in a text file: its lines, and how to read them.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "a.csv")
        ...     _ = path.write_text("x;y\n1,5;2\n")
        ...     table = Delimited.read(path)
        >>> table.delimiter, table.decimal, table.names, table.numbers([1, 0]).tolist()
        (';', ',', ['x', 'y'], [[2.0, 1.5]])
    """

    path: Path
    """The file."""
    delimiter: str | None
    """The delimiter; ``None`` for whitespace."""
    decimal: Decimal
    """The decimal mark."""
    names: list[str] | None
    """The names of all columns, if there is a header."""
    width: int
    """The number of columns."""
    lines: list[tuple[int, str]]
    """The lines that hold rows, each with its number in the file, from 1."""

    @classmethod
    def read(cls, path: Path, decimal: Decimal | None = None) -> Delimited:
        """Read a file and find its format: that in which most of the fields of the first lines are numbers.

        Args:
            path: the file.
            decimal: the decimal mark; found if ``None``.

        Raises:
            DataError: the file is not text, has no rows, or has numbers that could be thousands or fractions.

        Warns:
            DataWarning: the header has a name twice.
        """
        lines = _lines(path)
        rows = [(number, line) for number, line in lines if not line.startswith("#")]
        if not rows:
            raise DataError(str(path), expected="at least one row", got="none")
        with parsing(path, "a table in text", "repair the file"):
            sample = [line for _, line in rows[:_SAMPLE]]
            delimiter, found = _format(path, sample, decimal)
            first = _fields(rows[0][1], delimiter)
            names = None
            if any(first) and not any(map(_resembles_a_number, first)):
                names, rows = first, rows[1:]
            else:
                leading = [_fields(line.lstrip("#"), delimiter) for number, line in lines if number < rows[0][0]]
                names = next((fields for fields in leading if len(fields) == len(first)), None)
        return cls(path, delimiter, found, names and _unique(path, names), len(first), rows)

    def numbers(self, columns: Sequence[int]) -> NDArray[np.float64]:
        """The numbers in some columns, with shape ``(N, len(columns))``.

        Raises:
            DataError: a line has another number of fields, or a field is not a number; the message names it.
        """
        values = np.empty((len(self.lines), len(columns)))
        for start in range(0, len(self.lines), _CHUNK):
            lines = self.lines[start : start + _CHUNK]
            try:
                values[start : start + len(lines)] = self._at_once([line for _, line in lines], columns)
            except ValueError:
                with parsing(self.path, "a table in text", "repair the file"):
                    for row, (number, line) in enumerate(lines, start):
                        values[row] = self._row(number, line, columns)
        return values

    def fields(self) -> Iterator[list[str]]:
        """All fields, row by row."""
        return (_fields(line, self.delimiter) for _, line in self.lines)

    def _at_once(self, lines: Sequence[str], columns: Sequence[int]) -> NDArray[np.float64]:
        """The numbers of plain lines, by NumPy's parser; it would pass over fields too many in columns left out."""
        text = "".join(lines)
        widths = {len(line.split()) if self.delimiter is None else line.count(self.delimiter) + 1 for line in lines}
        if widths != {self.width} or any(mark in text for mark in ('"', "_", "." if self.decimal == "," else "_")):
            raise ValueError("lines that need a closer look")
        if self.decimal == ",":
            lines = [line.replace(",", ".") for line in lines]
        return np.loadtxt(lines, delimiter=self.delimiter, usecols=columns, comments=None, ndmin=2)

    def _row(self, number: int, line: str, columns: Sequence[int]) -> list[float]:
        fields = _fields(line, self.delimiter)
        if len(fields) != self.width:
            raise DataError(
                f"{self.path}, line {number}",
                expected=f"{self.width} fields separated by {_DELIMITERS[self.delimiter]}",
                got=f"{len(fields)}",
                fix="repair the line or remove it",
            )
        for column in columns:
            field = fields[column]
            if not _is_number(field, self.decimal):
                name = f" ({self.names[column]!r})" if self.names else ""
                raise DataError(
                    f"{self.path}, line {number}, column {column}{name}",
                    expected="a number",
                    got=repr(field) if field else "nothing",
                    fix="write it without separators of thousands, or set decimal to ','"
                    if _resembles_a_number(field)
                    else "repair it, remove the line, or leave the column out with drop_columns",
                )
        return [_number(fields[column], self.decimal) for column in columns]


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers from 1."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            stripped = [(number, line.strip("\r\n ")) for number, line in enumerate(file, start=1)]
    except UnicodeDecodeError as error:
        raise DataError(
            str(path),
            expected="a text file in UTF-8",
            got=f"bytes that are not ({error.reason})",
            fix="save it as .npy",
        ) from error
    except OSError as error:
        raise DataError(str(path), expected="a readable file", got=str(error), fix="check its permissions") from error
    return [(number, line) for number, line in stripped if line.strip()]


def _format(path: Path, lines: Sequence[str], decimal: Decimal | None) -> tuple[str | None, Decimal]:
    """The delimiter and the decimal mark with the largest share of numbers; of these, that with the most numbers.

    Raises:
        DataError: a decimal comma was found, but all numbers may also be in thousands.
    """
    marks: list[Decimal] = [".", ","] if decimal is None else [decimal]
    # a comma both delimits and separates only in quoted fields, as in "1,5","2,5"
    possible = [
        (delimiter, mark)
        for mark in marks
        for delimiter in _DELIMITERS
        if mark == "." or delimiter != "," or (decimal == "," and any('"' in line for line in lines))
    ]

    def numbers(chosen: tuple[str | None, Decimal]) -> tuple[float, int]:
        fields = [field for line in lines for field in _fields(line, chosen[0])]
        count = sum(_is_number(field, chosen[1]) for field in fields)
        return count / max(1, len(fields)), count

    delimiter, found = max(possible, key=numbers)
    if decimal is None and found == ",":
        commas = [field for line in lines for field in _fields(line, delimiter) if _is_number(field, ",")]
        commas = [field for field in commas if "," in field]
        if commas and all(map(_THOUSANDS.fullmatch, commas)):
            raise DataError(
                str(path),
                expected="numbers of one meaning",
                got=f"{commas[0]!r}, which may have a decimal comma or a separator of thousands",
                fix="set decimal to ',', or write numbers without separators of thousands",
            )
    return delimiter, found


def _unique(path: Path, names: list[str]) -> list[str]:
    """The names, with a number after those that occurred before."""
    result: list[str] = []
    for name in names:
        count, unique = 1, name
        while unique in result:
            count += 1
            unique = f"{name}_{count}"
        if count > 1:
            warnings.warn(
                f"{path}: the header has {name!r} more than once; column {len(result)} is called {unique!r} here: "
                "rename it, or choose columns by number",
                DataWarning,
                3,
            )
        result.append(unique)
    return result


def _fields(line: str, delimiter: str | None) -> list[str]:
    """Split a line; a field in double quotes may contain the delimiter."""
    if delimiter is None:
        fields = re.findall(r'"[^"]*"(?=\s|$)|\S+', line)
    else:
        fields = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [""])
    return [field.strip().strip('"').strip() for field in fields]


def _number(field: str, decimal: Decimal) -> float:
    if decimal == ",":
        return _with_comma(field)
    if "_" in field:
        raise ValueError(field)  # Python reads 1_000 as a number, but in a data file it is an error
    return float(field)


def _with_comma(field: str) -> float:
    """A number with a decimal comma, NaN or an infinity."""
    field = field.strip()
    if _WITH_COMMA.fullmatch(field):
        return float(field.replace(",", "."))
    if field and not field.lstrip("+-")[:1].isalpha():
        raise ValueError(field)
    return float(field)


def _resembles_a_number(field: str) -> bool:
    """Return whether a field is a number, possibly in a notation that is not read, such as ``1,000``."""
    return _is_number(field, ".") or re.fullmatch(r"[-+\d.,'_ ]*\d[-+\d.,'_ ]*", field) is not None


def _is_number(field: str, decimal: Decimal) -> bool:
    try:
        _number(field, decimal)
    except ValueError:
        return False
    return True
