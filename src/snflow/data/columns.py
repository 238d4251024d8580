"""Columns of a table: which are real numbers, integers or categories, and how a density models each."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray

from snflow.errors import ConfigError, DataError, DataWarning, DtypeError, nearest

Name = int | str
"""A column: its number from 0, or its name in a data frame."""

_LARGEST = 2.0**53
"""Integers up to this one are exact in float64."""

_NAMED = 5
"""Number of columns that a message names."""

_COMPARED_ROWS = 2000
"""Number of rows on which columns are compared first; only those that agree there are compared as a whole."""


@dataclass(frozen=True)
class Column:
    """One column of a table, as the training data had it."""

    name: str
    """Its name in a data frame, or its number."""
    kind: Literal["real", "integer", "category"]
    """Real numbers; integers; or categories, which are numbered in the order of their labels."""
    labels: tuple[Any, ...] = ()
    """The labels of a category, in sorted order."""

    def read(self, where: str, values: NDArray[Any]) -> NDArray[np.float64]:
        """Real numbers, integers, or numbers of labels, all in float64; NaN where a value is missing."""
        where = f"{where}, column {self.name!r}"
        if self.kind == "category":
            codes = {label: code for code, label in enumerate(self.labels)}
            missing = _missing(values)
            unknown = next((v for v in values[~missing].tolist() if v not in codes), None)
            if unknown is not None:
                raise DataError(
                    where,
                    expected=f"one of the {len(codes)} labels of the training data",
                    got=repr(unknown),
                    fix="train on rows of all categories, or leave such rows out",
                )
            return np.array([codes.get(v, np.nan) for v in values.tolist()], dtype=np.float64)
        numbers = _numbers(where, values)
        if np.isinf(numbers).any():
            row = int(np.isinf(numbers).argmax())
            raise DataError(where, expected="finite numbers", got=f"inf in row {row}", fix="remove or impute such rows")
        if self.kind == "integer":
            given = numbers[~np.isnan(numbers)]
            wrong = given[(given != np.floor(given)) | (np.abs(given) > _LARGEST)]
            if len(wrong):
                raise DataError(
                    where,
                    expected="integers up to 2⁵³, as in the training data",
                    got=f"{wrong[0]}",
                    fix="round the column, or train on a column of real numbers",
                )
        return numbers


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a table: what each holds, and how to go from the table to vectors of real numbers and back.

    Integers k and the numbers of categories become k + u with u in [0, 1). The density of these vectors, averaged over
    u, is the probability of k: its logarithm, averaged over u, is a lower bound on the log-probability.

    Example:
        >>> import numpy as np
        >>> table = np.array([["red", 0.5], ["blue", 1.5], ["red", 2.5]], dtype=object)
        >>> columns = Columns.of("paints", table)
        >>> [column.kind for column in columns.columns]
        ['category', 'real']
        >>> rows = columns.read("paints", table)
        >>> rows.tolist()
        [[1.0, 0.5], [0.0, 1.5], [1.0, 2.5]]
        >>> bool((columns.table(rows + 0.9 * columns.discrete) == table).all())
        True
    """

    columns: tuple[Column, ...]
    """The columns, in order."""
    frame: type | None
    """The class of the data frame; ``None`` for an array."""
    dtypes: tuple[Any, ...]
    """The dtype of each column, as the table had it."""
    low: NDArray[np.float64]
    """The lowest value of each column, with shape ``(D,)``."""
    high: NDArray[np.float64]
    """The highest."""

    @classmethod
    def of(
        cls,
        where: str,
        table: Any,
        *,
        integers: Sequence[Name] | None = None,
        categories: Sequence[Name] | None = None,
    ) -> Self:
        """Find out what the columns of the training data hold.

        Columns of an integer dtype are integers. Columns of labels (text, booleans, or a dtype of categories) are
        categories. All others are real numbers.

        Args:
            where: the name of the data in errors.
            table: an array with shape ``(N, D)``, of numbers or of objects, or a pandas or polars data frame.
            integers: further columns that are integers, by name or by number.
            categories: further columns that are categories, by name or by number.

        Raises:
            DataError: two columns have the same name, or one holds neither numbers nor labels.
            DtypeError: a value is neither a number nor a label.
            ConfigError: a listed column does not exist.
        """
        names, arrays, dtypes = _arrays(where, table)
        whole, labelled = (_listed(where, names, chosen) for chosen in (integers, categories))
        columns = []
        for number, (name, values, dtype) in enumerate(zip(names, arrays, dtypes, strict=True)):
            if number in labelled or (number not in whole and _is_category(where, name, values, dtype)):
                present = set(values[~_missing(values)].tolist())
                columns.append(Column(name, "category", tuple(sorted(present, key=lambda v: (isinstance(v, str), v)))))
            elif number in whole or str(dtype).lower().startswith(("int", "uint")):
                columns.append(Column(name, "integer"))
            else:
                columns.append(Column(name, "real"))
        values = _read(where, columns, arrays)
        frame = type(table) if is_frame(table) else None
        # unlike min and max, fmin and fmax pass over NaN
        return cls(tuple(columns), frame, tuple(dtypes), np.fmin.reduce(values, 0), np.fmax.reduce(values, 0))

    @property
    def discrete(self) -> NDArray[np.bool_]:
        """Which columns are integers or categories, with shape ``(D,)``."""
        return np.array([column.kind != "real" for column in self.columns])

    def read(self, where: str, table: Any) -> NDArray[np.float64]:
        """The values of a table with the same columns.

        Args:
            where: the name of the data in errors.
            table: an array or a data frame.

        Returns:
            Real numbers, integers, and numbers of categories, with shape ``(N, D)``; NaN where a value is missing.

        Raises:
            DataError: a value is infinite, no integer where the training data had integers, or an unknown label.
            DtypeError: a value is neither a number nor a label.
        """
        return _read(where, self.columns, _arrays(where, table)[1])

    def indicators(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Numbers as they are, and for each category a 1 in the place of its label among zeros, as a context."""
        parts = [
            np.eye(len(column.labels))[values[:, j].astype(int)] if column.kind == "category" else values[:, j, None]
            for j, column in enumerate(self.columns)
        ]
        return np.concatenate(parts, axis=1)

    def table(self, rows: NDArray[np.float64]) -> Any:
        """A table of the kind of the training data from rows of real numbers, such as samples.

        Integers and categories are rounded down, and clamped to the range of the training data.

        Args:
            rows: real numbers, with shape ``(N, D)``.

        Returns:
            A data frame with the dtypes of the training data, or an array; an array of float64 for real numbers.
        """
        clamped = np.clip(np.floor(rows), self.low, self.high)
        values = np.where(self.discrete, clamped, rows)
        restored = [
            [column.labels[int(code)] for code in values[:, j]] if column.kind == "category" else values[:, j]
            for j, column in enumerate(self.columns)
        ]
        if self.frame is not None:
            named = zip(self.columns, restored, strict=True)
            frame: Any = self.frame({column.name: values for column, values in named})
            dtypes = dict(zip((column.name for column in self.columns), self.dtypes, strict=True))
            return frame.astype(dtypes) if hasattr(frame, "astype") else frame.cast(dtypes)
        array = np.empty(rows.shape, dtype=object)
        for j, column_values in enumerate(restored):
            array[:, j] = column_values
        dtype = np.dtype(self.dtypes[0])
        return array.astype(np.float64 if dtype.kind == "f" else dtype)

    def warn(self, where: str, values: NDArray[np.float64]) -> None:
        """Say which columns of the training data a density cannot describe, and what to do.

        Args:
            where: the name of the data in warnings.
            values: the training data, as :meth:`read` returns them.

        Warns:
            DataWarning: a column is constant, equal to another one up to scale and shift, or of whole numbers though it
                is taken as real.
        """
        constant = np.ptp(values, axis=0) == 0
        whole = ~self.discrete & ~constant & (values == np.floor(values)).all(0)
        equal = [f"{self.columns[i].name!r} and {self.columns[j].name!r}" for i, j in _equal(values, ~constant)]
        remarks = (
            ("constant", self._named(constant), "they say nothing, and real numbers have no density: leave them out"),
            ("equal up to scale and shift", equal, "real numbers have no joint density: leave one of each pair out"),
            (
                "whole numbers of a floating dtype",
                self._named(whole),
                "single values would get any density: list them as integers, or convert their dtype",
            ),
        )
        for problem, names, remedy in remarks:
            if names:
                warnings.warn(f"{where}: columns that are {problem}: {_some(names)}; {remedy}", DataWarning, 3)

    def check_complete(self, where: str, values: NDArray[np.float64], fix: str) -> None:
        """Raise an error if values are missing.

        Raises:
            DataError: NaN or an empty field; the message names the columns and how many rows lack a value there.
        """
        counts = np.isnan(values).sum(0)
        if counts.any():
            got = [f"{c.name!r} ({count})" for c, count in zip(self.columns, counts, strict=True) if count]
            raise DataError(where, expected="no missing values", got=f"NaN in columns {_some(got)}", fix=fix)

    def _named(self, chosen: NDArray[np.bool_]) -> list[str]:
        return [repr(column.name) for column, is_chosen in zip(self.columns, chosen, strict=True) if is_chosen]


def _read(where: str, columns: Sequence[Column], arrays: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    return np.stack([column.read(where, values) for column, values in zip(columns, arrays, strict=True)], axis=1)


def is_frame(table: Any) -> bool:
    """Whether a table is a pandas or polars data frame."""
    return hasattr(table, "columns") and hasattr(table, "to_numpy")


def _arrays(where: str, table: Any) -> tuple[list[str], list[NDArray[Any]], list[Any]]:
    """The names, the values and the dtypes of the columns; a missing value is NaN or ``None``."""
    if not is_frame(table):
        values = np.asarray(table)
        return [str(j) for j in range(values.shape[1])], list(values.T), [values.dtype] * values.shape[1]
    names = [str(name) for name in table.columns]
    repeated = [repr(name) for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(where, expected="columns with different names", got=_some(repeated), fix="rename or drop one")
    series = [table[name] for name in table.columns]
    return names, [_values(one) for one in series], [one.dtype for one in series]


def _values(series: Any) -> NDArray[Any]:
    missing = np.asarray(series.isna() if hasattr(series, "isna") else series.is_null(), dtype=bool)
    values = np.asarray(series)
    if missing.any() and values.dtype.kind != "f":
        values = values.astype(object)
        values[missing] = None
    return values


def _listed(where: str, names: list[str], chosen: Sequence[Name] | None) -> set[int]:
    numbers = set()
    for name in chosen or ():
        if str(name) in names:
            numbers.add(names.index(str(name)))
        elif not isinstance(name, str) and 0 <= name < len(names):
            numbers.add(int(name))
        else:
            raise ConfigError(
                where, expected="the name or the number of a column", got=repr(name), fix=nearest(str(name), names)
            )
    return numbers


def _is_category(where: str, name: str, values: NDArray[Any], dtype: Any) -> bool:
    """Whether a column holds labels; text that reads as a number could be either, and is refused."""
    if values.dtype.kind == "b" or str(dtype).lower().startswith(("categor", "enum", "bool")):
        return True
    if values.dtype.kind not in "OUST":
        return False
    present = values[~_missing(values)].tolist()
    if not present or not all(isinstance(value, str | bool) for value in present):
        return False
    if all(isinstance(value, str) and _reads_as_number(value) for value in present):
        raise DataError(
            f"{where}, column {name!r}",
            expected="numbers or labels",
            got=f"numbers written as text, such as {present[0]!r}",
            fix="convert the column to numbers, or list it in categories",
        )
    return True


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind != "O":
        return np.asarray(np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool))
    return np.array([value is None or value != value for value in values], dtype=bool)


def _numbers(where: str, values: NDArray[Any]) -> NDArray[np.float64]:
    if values.dtype.kind in "fiu":
        return values.astype(np.float64)
    if values.dtype.kind != "O":
        raise DataError(
            where, expected="numbers or labels", got=f"{values.dtype}", fix="convert it to numbers, such as seconds"
        )
    try:
        return np.where(_missing(values), np.nan, values).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DtypeError(
            where, expected="numbers, or labels in all rows", got=str(error), fix="repair or drop such rows"
        ) from error


def _equal(values: NDArray[np.float64], varying: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Pairs of columns that are equal up to scale and shift."""
    candidates = np.flatnonzero(varying & (np.ptp(values[:_COMPARED_ROWS], axis=0) > 0))
    if len(values) < 3 or len(candidates) < 2:
        return []

    def correlated(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
        centered = rows - rows.mean(0)
        scaled = centered / np.linalg.norm(centered, axis=0)
        return cast(NDArray[np.bool_], np.triu(np.abs(scaled.T @ scaled) > 1 - 1e-12, 1))

    pairs = np.argwhere(correlated(values[:_COMPARED_ROWS, candidates]))
    numbers = [(int(candidates[i]), int(candidates[j])) for i, j in pairs]
    return [pair for pair in numbers if correlated(values[:, pair])[0, 1]]


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
