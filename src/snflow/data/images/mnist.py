"""MNIST from its idx files, as they were published: big-endian, plain or compressed."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from snflow.data.dataset import Dataset
from snflow.data.images.folder import dataset_folder, missing
from snflow.data.options import MnistOptions
from snflow.errors import DataError

LEVELS = 256

IMAGES, LABELS = 2051, 2049
"""The magic numbers at the head of a file of images, and of one of labels."""

_DIMENSIONS = {IMAGES: 3, LABELS: 1}
_AGAIN = "copy or download the file again"


def load_mnist(options: MnistOptions) -> Dataset:
    """Load MNIST: the last sixth of the train file validates, so 50,000 / 10,000 / 10,000 of the original files.

    Args:
        options: the folder, and limits for short runs.

    Returns:
        Images with shape ``(N, 1, 28, 28)``, uint8 in 256 levels.

    Raises:
        DataError: the folder or a file is missing, truncated or damaged.
    """
    folder = dataset_folder("mnist", options.path, "the idx files")
    images = read_idx(_find(folder, "train-images-idx3-ubyte"), IMAGES).unsqueeze(1)
    test = read_idx(_find(folder, "t10k-images-idx3-ubyte"), IMAGES).unsqueeze(1)
    held_out = len(images) // 6
    train, validation = images.split([len(images) - held_out, held_out])
    limit_train, limit_eval = options.limit_train, options.limit_eval
    return Dataset("mnist", train[:limit_train], validation[:limit_eval], test[:limit_eval], levels=LEVELS)


def read_idx(path: Path, magic: int) -> Tensor:
    """Read one idx file of bytes, compressed or not.

    Args:
        path: the file.
        magic: the number it must start with, ``IMAGES`` or ``LABELS``.

    Returns:
        Images with shape ``(N, height, width)`` or labels with shape ``(N,)``, uint8.

    Raises:
        DataError: the file is unreadable, of another kind, shorter or longer than its header says.
    """
    content = _read(path)
    rank = _DIMENSIONS[magic]
    header = 4 * (1 + rank)
    if len(content) < header:
        raise DataError(str(path), expected=f"a header of {header} bytes", got=f"{len(content)} bytes", fix=_AGAIN)
    found, *sizes = (int.from_bytes(content[at : at + 4], "big") for at in range(0, header, 4))
    if found != magic:
        kind = "images" if magic == IMAGES else "labels"
        other = {IMAGES: "a file of images", LABELS: "a file of labels"}.get(found, "no idx file of bytes")
        raise DataError(
            str(path),
            expected=f"idx {kind}, magic number {magic}",
            got=f"{found}, {other}",
            fix="check the file's name",
        )
    if len(content) - header != prod(sizes):
        raise DataError(
            str(path),
            expected=f"{prod(sizes)} bytes behind the header, for {' × '.join(map(str, sizes))}",
            got=f"{len(content) - header}",
            fix=_AGAIN,
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[header:].reshape(sizes)


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(str(path), expected="a whole gzip file", got=f"a damaged one ({error})", fix=_AGAIN) from error
    except OSError as error:
        raise DataError(str(path), expected="a readable file", got=str(error), fix="check its permissions") from error


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise missing("mnist", folder, f"{name} or {name}.gz")
