"""Where an image dataset lies."""

from __future__ import annotations

import os
from pathlib import Path

from snflow.errors import DataError


def dataset_folder(name: str, path: str | None, content: str) -> Path:
    """The folder that the options name, else the one called ``name`` in ``$SNFLOW_DATA``.

    Args:
        name: of the dataset, and of its folder.
        path: the option ``data.path``.
        content: what has to lie in it, for the error.

    Returns:
        The folder.

    Raises:
        DataError: neither is given, or there is no such folder.

    Example:
        >>> dataset_folder("example", ".", "nothing")
        PosixPath('.')
    """
    root = os.environ.get("SNFLOW_DATA")
    if path is None and not root:
        raise DataError(
            name,
            expected=f"a folder with {content}",
            got="neither data.path nor the environment variable SNFLOW_DATA",
            fix=f"set data.path to the folder, or SNFLOW_DATA to the one that holds {name}/",
        )
    return Path(path).expanduser() if path is not None else Path(str(root)).expanduser() / name


def missing(name: str, folder: Path, content: str) -> DataError:
    """The error for a file that is not there."""
    return DataError(
        name,
        expected=f"{content} in {folder}",
        got="no such file" if folder.is_dir() else "no such folder",
        fix=f"set data.path to the folder, or SNFLOW_DATA to the one that holds {name}/",
    )
