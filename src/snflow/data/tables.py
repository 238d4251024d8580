"""Tables of numbers from files."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from snflow.data.dataset import Dataset, TableOptions, check_values, split_rows
from snflow.errors import ConfigError, DataError, nearest

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


Columns = list[int | str]


def load_table(options: TableOptions) -> Dataset:
    """Load a table, dealt into three splits by the seed. NaN and infinite values are refused, not repaired.

    Args:
        options: the file, the columns, the fractions and the seed.

    Returns:
        Rows with shape ``(N, columns)``, float32.

    Raises:
        DataError: the file is missing, damaged or no table of finite numbers, or too short for the fractions.
        ConfigError: a column or an array of that name does not exist.
    """
    path = _find(options.path)
    if path.suffix in (".npy", ".npz"):
        values = _read_array(path, options.key)
        chosen = choose_columns(str(path), values.shape[1], None, options.columns, options.drop_columns)
        values, names = values[:, chosen], [str(column) for column in chosen]
    else:
        values, names = read_delimited(
            path, lambda count, names: choose_columns(str(path), count, names, options.columns, options.drop_columns)
        )
    # The cast comes before the check: 1e300 is finite as float64 and infinite as float32.
    with np.errstate(over="ignore"):
        rows = torch.from_numpy(values.astype(np.float32))
    check_values(str(path), rows, columns=names)
    validation, test = (round(f * len(rows)) for f in (options.validation_fraction, options.test_fraction))
    sizes = (len(rows) - validation - test, validation, test)
    return Dataset(path.name, *split_rows(rows, sizes, options.seed))


def choose_columns(
    where: str, count: int, names: list[str] | None, keep: Columns | None, drop: Columns | None
) -> list[int]:
    """Turn column names and numbers into positions.

    Args:
        where: the file.
        count: how many columns it has.
        names: what its header calls them, ``None`` without a header.
        keep: the columns to keep, in this order; ``None`` keeps all.
        drop: the columns to leave out.

    Returns:
        The positions that are left, counted from 0.

    Raises:
        ConfigError: there is no such column, or none is left.

    Example:
        >>> choose_columns("a.csv", 3, ["x", "y", "class"], None, ["class"])
        [0, 1]
        >>> choose_columns("a.csv", 3, None, [2, 0], None)
        [2, 0]
    """

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
        raise ConfigError(where, expected="one column or more to be left", got="none", fix="drop fewer columns")
    return left


def _find(path: str) -> Path:
    here = Path(path).expanduser()
    root = os.environ.get("SNFLOW_DATA")
    for candidate in [here, Path(root).expanduser() / path] if root else [here]:
        if candidate.is_file():
            return candidate
    raise DataError(
        "table", expected=f"a file at {here}", got="none", fix="set data.path, or SNFLOW_DATA to the folder it is in"
    )


def _read_array(path: Path, key: str | None) -> npt.NDArray[np.generic]:
    try:
        with path.open("rb") as file:
            # Never pickled objects: a data file must not be able to run code.
            loaded = np.load(file, allow_pickle=False)
            values = _pick(path, loaded, key) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except ConfigError:
        raise  # a key that does not exist, which is a ValueError too
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            str(path), expected="an array of numbers", got=f"{error}", fix="save it again with numpy.save"
        ) from error
    if values.ndim != 2 or values.dtype.kind not in "fiub":
        raise DataError(
            str(path),
            expected="a table of real numbers, with shape (rows, columns)",
            got=f"shape {values.shape} of {values.dtype}",
            fix="reshape a single column to (-1, 1)" if values.ndim == 1 else "save another array",
        )
    return values


def _pick(path: Path, archive: np.lib.npyio.NpzFile, key: str | None) -> npt.NDArray[np.generic]:
    if key is None and len(archive.files) == 1:
        key = archive.files[0]
    if key is None or key not in archive.files:
        raise ConfigError(
            f"data.key for {path}",
            expected=f"one of {', '.join(archive.files)}",
            got=repr(key),
            fix=nearest(key, archive.files) if key else "set data.key",
        )
    values: npt.NDArray[np.generic] = archive[key]
    return values
