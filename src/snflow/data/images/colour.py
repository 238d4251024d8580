"""Arrays of 32×32 colour images out of the files in which CIFAR-10 and ImageNet32 are passed on."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snflow.errors import DataError

_AGAIN = "copy or download the file again"
_PLAIN = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class _PlainUnpickler(pickle.Unpickler):
    """Admits arrays, strings and containers, and no code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PLAIN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no list of images needs")
        return super().find_class(module, name)


def read_pickle(path: Path) -> NDArray[np.uint8]:
    """Read the images of one of CIFAR-10's Python batches, without running what a pickle could hold.

    Args:
        path: the file.

    Returns:
        Images with shape ``(N, 3, 32, 32)``.

    Raises:
        DataError: the file is unreadable, damaged, or holds something else.
    """
    try:
        content = _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise DataError(str(path), expected="a Python batch of CIFAR-10", got=f"{error}", fix=_AGAIN) from error
    except OSError as error:
        raise DataError(str(path), expected="a readable file", got=str(error), fix="check its permissions") from error
    data = content.get(b"data") if isinstance(content, dict) else None
    return _as_images(data, str(path))


def read_npz(path: Path, key: str) -> NDArray[np.uint8]:
    """Read one array of images from an .npz file.

    Args:
        path: the file.
        key: the array's name.

    Returns:
        Images with shape ``(N, 3, 32, 32)``.

    Raises:
        DataError: the file is unreadable or damaged, lacks the array, or the array holds no such images.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if key not in archive.files:
                got = f"only {', '.join(archive.files)}"
                raise DataError(str(path), expected=f"an array {key!r}", got=got, fix="check the file")
            return _as_images(archive[key], str(path))
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(str(path), expected="a whole .npz file", got=f"{error}", fix=_AGAIN) from error
    except OSError as error:
        raise DataError(str(path), expected="a readable file", got=str(error), fix="check its permissions") from error


def joined(parts: Sequence[NDArray[np.uint8]]) -> Tensor:
    """One tensor of several arrays of images, filled part by part.

    Example:
        >>> joined([np.zeros((2, 3, 32, 32), np.uint8), np.ones((1, 3, 32, 32), np.uint8)]).shape
        torch.Size([3, 3, 32, 32])
    """
    whole = torch.empty(sum(map(len, parts)), 3, 32, 32, dtype=torch.uint8)
    at = 0
    for part in parts:
        whole[at : at + len(part)] = torch.from_numpy(part)
        at += len(part)
    return whole


def mapped(paths: Sequence[Path], key: str, file: Path) -> Tensor:
    """Images of several .npz files as one tensor that stays on the disk: read as they are asked for.

    The bytes are written once into ``file``, an archive at a time, whole or not at all; again when one is newer.

    Args:
        paths: the archives, in order.
        key: the array's name in each.
        file: where the bytes go, 3072 an image.

    Returns:
        Images with shape ``(N, 3, 32, 32)``; mapped into memory; what is changed in it is not written.

    Raises:
        DataError: an archive is wrong, or the file cannot be written.
    """
    try:
        if not file.is_file() or file.stat().st_mtime < max(path.stat().st_mtime for path in paths):
            temporary = file.with_name(f".tmp-{file.name}")
            with temporary.open("wb") as out:
                for path in paths:
                    out.write(read_npz(path, key).tobytes())
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(file)
        size = file.stat().st_size
    except OSError as error:
        raise DataError(
            str(file), expected="a file that can be written", got=str(error), fix="set data.memory_map false"
        ) from error
    return torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8).view(-1, 3, 32, 32)


def _as_images(data: Any, where: str) -> NDArray[np.uint8]:
    fits = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim in (2, 4)
    if not fits or data.shape[1:] not in ((3072,), (3, 32, 32)):
        got = f"{data.dtype} with shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(where, expected="uint8 images with shape (N, 3072) or (N, 3, 32, 32)", got=got, fix=_AGAIN)
    images: NDArray[np.uint8] = data.reshape(-1, 3, 32, 32)
    return images
