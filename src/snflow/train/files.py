"""Files that a killed process leaves whole: old or new, never half."""

from __future__ import annotations

import os
from pathlib import Path

TEMPORARY = ".tmp-"
"""Prefix of the name of an unfinished file or folder."""


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and sync it to disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, sync it to disk, then rename it."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    write_synced(temporary, content)
    temporary.replace(path)


def sync_folder(path: Path) -> None:
    """Sync the names in a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
