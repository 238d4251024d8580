"""Image datasets from their published files."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import zipfile
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snflow.data.dataset import Cifar10Options, Dataset, DigitsOptions, Imagenet32Options, MnistOptions, split_rows
from snflow.errors import ConfigError, DataError


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


DIGITS_LEVELS = 17
"""A pixel counts the dark dots in a 4×4 block of the scan: 0 to 16."""


def load_digits(options: DigitsOptions) -> Dataset:
    """Load the 8×8 digits, dealt into three splits by the seed.

    Args:
        options: the sizes of the splits, and the seed.

    Returns:
        Images with shape ``(N, 1, 8, 8)``, uint8 in 17 levels.

    Raises:
        ConfigError: the splits ask for more images than there are.

    Example:
        >>> load_digits(DigitsOptions()).test.shape
        torch.Size([300, 1, 8, 8])
    """
    from sklearn import datasets  # a second to import, and only this dataset needs it

    images = torch.from_numpy(datasets.load_digits().images).to(torch.uint8).unsqueeze(1)
    sizes = (options.train, options.validation, options.test)
    if sum(sizes) > len(images):
        raise ConfigError(
            "digits", expected=f"splits of {len(images)} images together", got=f"{sum(sizes)}", fix="ask for fewer"
        )
    return Dataset("digits", *split_rows(images, sizes, options.seed), levels=DIGITS_LEVELS)


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
    content = _read_idx(path)
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


def _read_idx(path: Path) -> bytes:
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


_CIFAR10_CONTENT = "data_batch_1 … data_batch_5 and test_batch, or one .npz file"


def load_cifar10(options: Cifar10Options) -> Dataset:
    """Load CIFAR-10: the last fifth of the train images validates, so 40,000 / 10,000 / 10,000 of the original files.

    Args:
        options: the folder, and limits for short runs.

    Returns:
        Images with shape ``(N, 3, 32, 32)``, uint8 in 256 levels.

    Raises:
        DataError: the folder or a file is missing or damaged.

    References:
        Krizhevsky (2009), Learning multiple layers of features from tiny images.
    """
    folder = dataset_folder("cifar10", options.path, _CIFAR10_CONTENT)
    batches = [folder / f"data_batch_{n}" for n in range(1, 6)]
    archives = sorted(folder.glob("*.npz"))
    if all(path.is_file() for path in (*batches, folder / "test_batch")):
        images = joined([read_pickle(path) for path in batches])
        test = joined([read_pickle(folder / "test_batch")])
    elif len(archives) == 1:
        images, test = (joined([read_npz(archives[0], key)]) for key in ("train", "test"))
    else:
        raise missing("cifar10", folder, _CIFAR10_CONTENT)
    held_out = len(images) // 5
    train, validation = images.split([len(images) - held_out, held_out])
    limit_train, limit_eval = options.limit_train, options.limit_eval
    return Dataset("cifar10", train[:limit_train], validation[:limit_eval], test[:limit_eval], levels=256)


_IMAGENET32_CONTENT = "train_data_batch_1.npz … and val_data.npz"
_MAPPED = "train_data.bytes"


def load_imagenet32(options: Imagenet32Options) -> Dataset:
    """Load ImageNet32: the last 20,000 train images validate (a tenth of fewer), the published validation file tests.

    The batches are read one after the other into one array of bytes, 3.9 GB for all of them; ``limit_train`` stops
    reading as soon as there are enough, and ``memory_map`` leaves them on the disk.

    Args:
        options: the folder, and limits for short runs.

    Returns:
        Images with shape ``(N, 3, 32, 32)``, uint8 in 256 levels.

    Raises:
        DataError: the folder or a file is missing or damaged.

    References:
        Chrabaszcz, Loshchilov, Hutter (2017), A downsampled variant of ImageNet.
    """
    folder = dataset_folder("imagenet32", options.path, _IMAGENET32_CONTENT)
    numbered = {int(p.stem.rsplit("_", 1)[1]): p for p in folder.glob("train_data_batch_*.npz") if _number(p.stem)}
    if not numbered or not (folder / "val_data.npz").is_file():
        raise missing("imagenet32", folder, _IMAGENET32_CONTENT)
    limit = options.limit_train
    wanted = None if limit is None else limit + max(1, limit // 9)
    paths = [numbered[number] for number in sorted(numbered)]
    images = mapped(paths, "data", folder / _MAPPED) if options.memory_map else _read_npz(paths, wanted)
    if wanted is not None:
        images = images[:wanted]
    held_out = min(20_000, max(1, len(images) // 10))
    train, validation = images.split([len(images) - held_out, held_out])
    test = joined([read_npz(folder / "val_data.npz", "data")])
    limit_eval = options.limit_eval
    return Dataset("imagenet32", train[:limit], validation[:limit_eval], test[:limit_eval], levels=256)


def _read_npz(paths: list[Path], wanted: int | None) -> Tensor:
    """The images of the archives, of as many as are needed for ``wanted`` of them."""
    parts: list[NDArray[np.uint8]] = []
    for path in paths:
        parts.append(read_npz(path, "data"))
        if wanted is not None and sum(map(len, parts)) >= wanted:
            break
    return joined(parts)


def _number(stem: str) -> bool:
    return stem.rsplit("_", 1)[1].isdecimal()
