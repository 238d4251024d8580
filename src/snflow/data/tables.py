"""Tables of numbers, read from files."""

from __future__ import annotations

import csv
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from snflow.data.columns import Column, Columns
from snflow.data.dataset import Dataset, check_values, split_rows
from snflow.data.delimited import Decimal, Delimited
from snflow.data.files import parsing
from snflow.errors import ConfigError, DataError, check_seed, checked_arguments, nearest

Selection = list[int | str] | int | str | None
"""Columns by number or name: a list, a single one, or ``None``."""


@checked_arguments("data.table")
def table(
    path: str | Path,
    *,
    key: str | None = None,
    columns: Selection = None,
    drop_columns: Selection = None,
    context_columns: Selection = None,
    integer_columns: Selection = None,
    decimal: Decimal | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Dataset:
    r"""A table of numbers from a file: .npy, .npz, .parquet, or text (.csv, .data, .txt, .tsv), one row per line.

    Text may be delimited by commas, tabs, semicolons or whitespace, with decimal points or commas: whichever makes most
    fields of the first lines numbers. A field in double quotes may contain the delimiter. Separators of thousands, as
    in 1,000, are refused. The header is the first line if none of its fields is a number, or an earlier line starting
    with ``#`` if it has as many fields as the first row; other lines starting with ``#``, and blank lines, are ignored.
    Columns that are not used may contain anything. NaN and infinite values are rejected, not repaired.

    Integers k become k + u, with u uniform on [0, 1) and drawn once: the log-density of the rows, averaged over u, is
    a lower bound on the log-probability of the integers.

    Args:
        path: File; a relative path that does not exist is looked up in $SNFLOW_DATA.
        key: Name of the array in an .npz file; optional if there is only one.
        columns: Columns to keep, in this order, by number from 0 or by name in the header; by default all.
        drop_columns: Columns to omit, such as a class label, by number from 0 or by name in the header.
        context_columns: Columns on which the density of the others is conditioned.
        integer_columns: Columns of integers, such as counts or codes, which get uniform noise.
        decimal: Decimal mark of text, "." or ","; by default it is found.
        validation_fraction: Fraction of the rows used to select the best epoch.
        test_fraction: Fraction of the rows used for the reported likelihood.
        seed: Seed of the random split, and of the noise.

    Returns:
        Rows with shape ``(N, columns)``, and contexts with shape ``(N, context columns)`` if asked for, float64.

    Raises:
        DataError: the file is missing or damaged, is not a table of finite numbers, or is too short for the fractions.
        ConfigError: a fraction or the seed is out of range, both ``columns`` and ``drop_columns`` are given, or a
            column or an array of that name does not exist.

    Warns:
        DataWarning: a column is constant, equal to another one up to scale and shift, or of whole numbers but not
            among ``integer_columns``; or the header has a name twice.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "a.csv")
        ...     _ = path.write_text("# x, age\n" + "".join(f"{0.1 * n}, {n * n}\n" for n in range(20)))
        ...     data = table(path, context_columns="age")
        >>> data.train.shape, data.train_context.shape
        (torch.Size([16, 1]), torch.Size([16, 1]))
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
    source = read_source(file, key=key, decimal=decimal)
    dropped, contexts, integers = map(source.positions, (drop_columns, context_columns, integer_columns))
    kept = list(range(source.width)) if columns is None else source.positions(columns)
    if columns is not None and not {*kept}.isdisjoint(contexts):
        both = source.name(next(column for column in contexts if column in kept))
        raise ConfigError(str(file), expected="columns or context_columns", got=f"{both!r} in both", fix="drop one")
    chosen = [column for column in kept if column not in (*dropped, *contexts)]
    if not chosen:
        raise ConfigError(str(file), expected="at least one column", got="none", fix="drop fewer columns")
    if stray := [column for column in integers if column not in chosen]:
        raise ConfigError(
            str(file),
            expected="integer_columns among the columns of the density",
            got=repr(source.name(stray[0])),
            fix="leave it out",
        )
    values = source.finite([*chosen, *contexts])
    events, conditions = values[:, : len(chosen)], values[:, len(chosen) :]
    described = described_columns(
        [source.name(column) for column in chosen], {source.name(column) for column in integers}, events
    )
    rows = dequantized_rows(str(file), described, events, seed)
    if len(rows):
        described.warn(str(file), events)
    validation, test = (round(fraction * len(rows)) for fraction in (validation_fraction, test_fraction))
    sizes = (len(rows) - validation - test, validation, test)
    train, validated, tested = split_rows(torch.from_numpy(rows), sizes, seed)
    given = split_rows(torch.from_numpy(conditions), sizes, seed) if contexts else (None, None, None)
    return Dataset(
        file.name,
        train,
        validated,
        tested,
        train_context=given[0],
        validation_context=given[1],
        test_context=given[2],
        columns=described,
        context_columns=tuple(source.name(column) for column in contexts),
    )


def described_columns(names: Sequence[str], integers: set[str], values: NDArray[np.float64]) -> Columns:
    """The columns of a table of numbers, with their lowest and highest values in ``values`` ``(N, D)``."""
    made = tuple(Column(name, "integer" if name in integers else "real") for name in names)
    empty = np.zeros(len(made))
    low, high = (values.min(0), values.max(0)) if len(values) else (empty, empty)
    return Columns(made, None, (np.dtype(np.float64),) * len(made), low, high)


def dequantized_rows(where: str, columns: Columns, values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Rows ``(N, D)`` of numbers, with uniform noise on the integers.

    Raises:
        DataError: a value in a column of integers is none.
    """
    if not columns.discrete.any():
        return values
    for column, given in zip(columns.columns, values.T, strict=True):
        column.read(where, given)
    return values + columns.discrete * np.random.default_rng(seed).random(values.shape)


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


# --- Sources


class Source(ABC):
    """A table in a file, whose columns are read when they are asked for.

    Args:
        path: the file.
        names: the names of all columns, if the file has them.
        width: the number of columns.
    """

    def __init__(self, path: Path, names: list[str] | None, width: int) -> None:
        self.path, self.names, self.width = path, names, width

    @abstractmethod
    def numbers(self, columns: Sequence[int]) -> NDArray[np.float64]:
        """The numbers in some columns, with shape ``(N, len(columns))``."""

    def name(self, column: int) -> str:
        """The name of a column; its number, if the file has no names."""
        return self.names[column] if self.names else str(column)

    def positions(self, columns: Selection) -> list[int]:
        """The positions of columns that are given by number or name.

        Raises:
            ConfigError: there is no such column.
        """
        chosen = columns if isinstance(columns, list) else [] if columns is None else [columns]
        return [self._position(column) for column in chosen]

    def finite(self, columns: Sequence[int]) -> NDArray[np.float64]:
        """The numbers in some columns.

        Raises:
            DataError: a value is NaN or infinite; the message gives its row and column.
        """
        values = self.numbers(columns)
        check_values(str(self.path), torch.from_numpy(values), columns=[self.name(column) for column in columns])
        return values

    def position_of(self, name: str) -> int:
        """The position of a column by its name, which is its number where the table that gave it has no names.

        Raises:
            ConfigError: there is no such column.
        """
        return self._position(int(name) if name.isdecimal() and name not in (self.names or ()) else name)

    def with_columns(self, names: Sequence[str], added: Iterable[Sequence[str]]) -> Iterator[str]:
        """The lines of the table in text, with further columns; a header if the table has names.

        Args:
            names: the names of the further columns.
            added: their fields, row by row.
        """
        if self.names:
            yield csv_line([*self.names, *names])
        for row, fields in zip(self._rows(), added, strict=True):
            yield csv_line([*row, *fields])

    @abstractmethod
    def _rows(self) -> Iterable[Sequence[object]]:
        """All fields, row by row."""

    def _position(self, column: int | str) -> int:
        if self.names is not None and column in self.names:
            return self.names.index(str(column))
        if isinstance(column, int) and 0 <= column < self.width:
            return column
        known = f"a column number from 0 to {self.width - 1}"
        known += " or a name in the header" if self.names else "; no header"
        fix = nearest(column, self.names) if self.names and isinstance(column, str) else None
        raise ConfigError(str(self.path), expected=known, got=repr(column), fix=fix)


def read_source(path: Path, *, key: str | None = None, decimal: Decimal | None = None) -> Source:
    """Open a table, by the end of its name.

    Args:
        path: the file.
        key: name of the array in an .npz file.
        decimal: decimal mark of text.

    Raises:
        DataError: the file is damaged, or is no table of numbers.
        ConfigError: an archive has no array of that name.
    """
    if path.suffix in (".npy", ".npz"):
        return _Array(path, key)
    if path.suffix in (".parquet", ".pq"):
        return _Parquet(path)
    return Text(path, decimal)


@final
class Text(Source):
    """A table in text."""

    def __init__(self, path: Path, decimal: Decimal | None) -> None:
        self.text = Delimited.read(path, decimal)
        super().__init__(path, self.text.names, self.text.width)

    def numbers(self, columns: Sequence[int]) -> NDArray[np.float64]:
        """The numbers in some columns."""
        return self.text.numbers(columns)

    def _rows(self) -> Iterable[Sequence[object]]:
        return self.text.fields()


@final
class _Array(Source):
    """An array of NumPy."""

    def __init__(self, path: Path, key: str | None) -> None:
        self._values = _read_array(path, key)
        super().__init__(path, None, self._values.shape[1])

    def numbers(self, columns: Sequence[int]) -> NDArray[np.float64]:
        """The numbers in some columns."""
        return self._values[:, list(columns)].astype(np.float64)

    def _rows(self) -> Iterable[Sequence[object]]:
        return map(np.ndarray.tolist, self._values)


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


@final
class _Parquet(Source):
    """A Parquet file, read column by column with pyarrow or polars."""

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow import parquet
        except ImportError:
            raise DataError(
                str(path),
                expected="pyarrow, which reads Parquet",
                got="no such package",
                fix="pip install 'snflow[parquet]', or save the table as .csv or .npy",
            ) from None
        with parsing(path, "a Parquet file", "write it again"):
            self._file: Any = parquet.ParquetFile(path)
            names = [str(name) for name in self._file.schema_arrow.names]
        super().__init__(path, names, len(names))

    def numbers(self, columns: Sequence[int]) -> NDArray[np.float64]:
        """The numbers in some columns; a missing value is NaN."""
        names = [self.name(column) for column in columns]
        with parsing(self.path, "a Parquet file", "write it again"):
            read = self._file.read(columns=names)
            arrays = [read[name].to_numpy() for name in names]
        for name, values in zip(names, arrays, strict=True):
            if values.dtype.kind not in "fiu":
                raise DataError(
                    f"{self.path}, column {name!r}",
                    expected="numbers",
                    got=f"{read[name].type}",
                    fix="convert it, or leave it out with drop_columns",
                )
        return np.stack([values.astype(np.float64) for values in arrays], axis=1)

    def _rows(self) -> Iterable[Sequence[object]]:
        return zip(*(column.to_pylist() for column in self._file.read().columns), strict=True)


# --- Writing


def csv_line(fields: Sequence[object]) -> str:
    """One line of a table in text, delimited by commas, with quotes where a field needs them."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(fields)
    return line.getvalue()


def write_table(path: Path, columns: Columns, rows: NDArray[np.float64], digits: int) -> None:
    """Write rows ``(N, D)`` in text, with the names of the columns as a header.

    Args:
        path: the file.
        columns: the columns.
        rows: the numbers; those of integers are written as such.
        digits: significant digits of real numbers: 9 for those of float32, 17 for float64.
    """
    formats = ["%d" if discrete else f"%.{digits}g" for discrete in columns.discrete]
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line([column.name for column in columns.columns]))
        np.savetxt(file, rows, fmt=formats, delimiter=",")
