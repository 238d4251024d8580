"""Tables of numbers from a file, one row a sample."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from snflow.data.dataset import Dataset, check_values, split_rows
from snflow.data.delimited import read_delimited
from snflow.data.options import TableOptions
from snflow.errors import ConfigError, DataError, nearest

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
