"""Tables of numbers, read from files."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from snflow.data.dataset import Dataset, check_values, split_rows
from snflow.data.files import parsing
from snflow.errors import ConfigError, DataError, check_seed, checked_arguments, nearest


@checked_arguments("data.table")
def table(
    path: str | Path,
    *,
    key: str | None = None,
    columns: list[int | str] | None = None,
    drop_columns: list[int | str] | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Dataset:
    r"""A table of numbers from a file: .npy, .npz, or text (.csv, .data, .txt, .tsv) with one row per line.

    Text may be delimited by commas, tabs, semicolons or whitespace, whichever yields the most numbers in the first two
    lines; a field in double quotes may contain the delimiter. Separators of thousands, as in 1,000, are refused. The
    header is the first line if none of its fields is a number, or an earlier line starting with ``#`` if it has as many
    fields as the first row; other lines starting with ``#``, and blank lines, are ignored. Columns that are not used
    may contain anything. NaN and infinite values are rejected, not repaired.

    Args:
        path: File; a relative path that does not exist is looked up in $SNFLOW_DATA.
        key: Name of the array in an .npz file; optional if there is only one.
        columns: Columns to keep, in this order, by number from 0 or by name in the header; by default all.
        drop_columns: Columns to omit, such as a class label, by number from 0 or by name in the header.
        validation_fraction: Fraction of the rows used to select the best epoch.
        test_fraction: Fraction of the rows used for the reported likelihood.
        seed: Seed of the random split.

    Returns:
        Rows with shape ``(N, columns)``, float32.

    Raises:
        DataError: the file is missing or damaged, is not a table of finite numbers, or is too short for the fractions.
        ConfigError: a fraction or the seed is out of range, both ``columns`` and ``drop_columns`` are given, or a
            column or an array of that name does not exist.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "a.csv")
        ...     _ = path.write_text("# x, y\n" + 20 * "1, 2\n")
        ...     table(path, drop_columns=["y"]).train.shape
        torch.Size([16, 1])
    """
    for option, fraction in (("validation_fraction", validation_fraction), ("test_fraction", test_fraction)):
        if not 0 < fraction < 1:
            raise ConfigError("data.table", expected=f"0 < {option} < 1", got=repr(fraction))
    if validation_fraction + test_fraction >= 1:
        raise ConfigError(
            "data.table",
            expected="validation_fraction + test_fraction < 1",
            got=f"{validation_fraction + test_fraction}",
            fix="leave rows to train on",
        )
    check_seed("data.table", "seed", seed)
    if columns is not None and drop_columns is not None:
        raise ConfigError("data.table", expected="either columns or drop_columns", got="both", fix="leave one out")
    file = _find(Path(path))

    def choose(count: int, names: list[str] | None) -> list[int]:
        return _positions(str(file), count, names, columns, drop_columns)

    if file.suffix in (".npy", ".npz"):
        values: NDArray[np.generic] = _read_array(file, key)
        chosen = choose(values.shape[1], None)
        values, names = values[:, chosen], [str(column) for column in chosen]
    else:
        values, names = _read_text(file, choose)
    # The cast precedes the check: 1e300 is finite in float64 but infinite in float32.
    with np.errstate(over="ignore"):
        rows = torch.from_numpy(values.astype(np.float32))
    check_values(str(file), rows, columns=names)
    validation, test = (round(fraction * len(rows)) for fraction in (validation_fraction, test_fraction))
    sizes = (len(rows) - validation - test, validation, test)
    return Dataset(file.name, *split_rows(rows, sizes, seed))


def _find(path: Path) -> Path:
    here = path.expanduser()
    root = os.environ.get("SNFLOW_DATA")
    for candidate in [here, Path(root).expanduser() / path] if root else [here]:
        if candidate.is_file():
            return candidate
    raise DataError(
        "data.table",
        expected=f"a file at {here}",
        got="none",
        fix="set path to the file, or SNFLOW_DATA to the folder that contains it",
    )


def _positions(
    where: str,
    count: int,
    names: list[str] | None,
    keep: list[int | str] | None,
    drop: list[int | str] | None,
) -> list[int]:
    """Turn the columns to keep or to drop, given by number or name, into the positions of those that are kept."""

    def position(column: int | str) -> int:
        if names is not None and column in names:
            return names.index(str(column))
        if isinstance(column, int) and 0 <= column < count:
            return column
        known = f"a column number from 0 to {count - 1}" + (" or a name in the header" if names else "; no header")
        fix = nearest(column, names) if names and isinstance(column, str) else None
        raise ConfigError(where, expected=known, got=repr(column), fix=fix)

    kept = list(range(count)) if keep is None else [position(column) for column in keep]
    dropped = {position(column) for column in drop or ()}
    left = [column for column in kept if column not in dropped]
    if not left:
        raise ConfigError(where, expected="at least one column", got="none", fix="drop fewer columns")
    return left


# --- Arrays


def _read_array(path: Path, key: str | None) -> NDArray[np.generic]:
    with parsing(path, "an array of numbers", "save it again with numpy.save"), path.open("rb") as file:
        # No pickled objects: a data file must not be able to run code.
        loaded = np.load(file, allow_pickle=False)
        values = _pick(path, loaded, key) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    if not isinstance(values, np.ndarray):
        raise DataError(str(path), expected="an array of numbers", got="other bytes", fix="save it by numpy.save")
    if values.ndim != 2 or values.dtype.kind not in "fiub":
        raise DataError(
            str(path),
            expected="real numbers with shape (rows, columns)",
            got=f"shape {values.shape} of {values.dtype}",
            fix="reshape a single column to (-1, 1)" if values.ndim == 1 else "save another array",
        )
    return values


def _pick(path: Path, archive: np.lib.npyio.NpzFile, key: str | None) -> NDArray[np.generic]:
    if key is None and len(archive.files) == 1:
        key = archive.files[0]
    if key is None or key not in archive.files:
        raise ConfigError(
            f"{path}, key",
            expected=f"one of {', '.join(archive.files)}",
            got=repr(key),
            fix=nearest(key, archive.files) if key else "set key",
        )
    values: NDArray[np.generic] = archive[key]
    return values


# --- Text

_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", None: "whitespace"}


def _read_text(
    path: Path, choose: Callable[[int, list[str] | None], list[int]]
) -> tuple[NDArray[np.float64], list[str]]:
    """Read the chosen columns of a text file, ``(rows, columns)``, and their names (numbers without a header).

    ``choose`` maps the number of columns and their names, if there is a header, to the positions of the columns to
    read.
    """
    lines = _lines(path)
    rows = [(number, line) for number, line in lines if not line.startswith("#")]
    if not rows:
        raise DataError(str(path), expected="at least one row", got="none")
    delimiter = _sniff([line for _, line in rows[:2]])
    header = None
    first = _fields(rows[0][1], delimiter)
    if any(first) and not any(map(_resembles_a_number, first)):
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
                expected=f"{len(first)} fields separated by {_DELIMITERS[delimiter]}",
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
                fix="write it without separators of thousands"
                if _resembles_a_number(fields[wrong])
                else "repair it, remove the line, or leave the column out with drop_columns",
            ) from error
    return values, names


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


def _sniff(lines: list[str]) -> str | None:
    """Return the delimiter that yields the most numbers; the first one in a tie."""
    return max(
        _DELIMITERS, key=lambda delimiter: sum(_is_number(f) for line in lines for f in _fields(line, delimiter))
    )


def _fields(line: str, delimiter: str | None) -> list[str]:
    """Split a line; a field in double quotes may contain the delimiter."""
    if delimiter is None:
        fields = re.findall(r'"[^"]*"|\S+', line)
    else:
        fields = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [""])
    return [field.strip().strip('"').strip() for field in fields]


def _number(field: str) -> float:
    if "_" in field:
        raise ValueError(field)  # Python reads 1_000 as a number, but in a data file it is an error
    return float(field)


def _resembles_a_number(field: str) -> bool:
    """Return whether a field is a number, possibly in a notation that is not read, such as ``1,000``."""
    return _is_number(field) or re.fullmatch(r"[-+\d.,'_ ]*\d[-+\d.,'_ ]*", field) is not None


def _is_number(field: str) -> bool:
    try:
        _number(field)
    except ValueError:
        return False
    return True
