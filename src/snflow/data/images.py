"""Image datasets, read from their published files."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snflow.data.dataset import Dataset, split_rows
from snflow.data.files import parsing
from snflow.errors import MAX_INT, ConfigError, DataError, check_count, check_seed, checked_arguments

_CORRUPT = "copy or download the file again"


@checked_arguments("data.digits")
def digits(*, train: int = 1197, validation: int = 300, test: int = 300, seed: int = 0) -> Dataset:
    """The 1,797 scanned digits of scikit-learn: 8×8 pixels with 17 gray values, split at random.

    Args:
        train: Number of training images.
        validation: Number of validation images, which select the best epoch.
        test: Number of test images, used for the reported likelihood.
        seed: Seed of the random split.

    Returns:
        Images with shape ``(N, 1, 8, 8)``, uint8, from 0 to 16.

    Raises:
        ConfigError: a number of images is below 1, or the splits need more images than there are.

    References:
        Alpaydin & Kaynak (1998), Optical recognition of handwritten digits.

    Example:
        >>> digits().test.shape
        torch.Size([300, 1, 8, 8])
    """
    from sklearn import datasets  # the import takes a second, and only this dataset needs it

    for split, size in (("train", train), ("validation", validation), ("test", test)):
        check_count("data.digits", split, size)
    check_seed("data.digits", "seed", seed)
    sizes = (train, validation, test)
    images = torch.from_numpy(datasets.load_digits().images).to(torch.uint8).unsqueeze(1)
    if sum(sizes) > len(images):
        raise ConfigError(
            "data.digits",
            expected=f"train + validation + test ≤ {len(images)}",
            got=f"{sum(sizes)}",
            fix="make a split smaller",
        )
    # A pixel is the number of dark dots in a 4×4 block of the scan: 0 to 16.
    return Dataset("digits", *split_rows(images, sizes, seed), num_values=17)


@checked_arguments("data.mnist")
def mnist(path: str | Path | None = None, *, limit_train: int | None = None, limit_eval: int | None = None) -> Dataset:
    """MNIST from its idx files: 28×28 pixels with 256 gray values, split 50,000 / 10,000 / 10,000.

    The last sixth of the training file is the validation split.

    Args:
        path: Folder with the idx files, plain or gzipped; by default the folder mnist in $SNFLOW_DATA.
        limit_train: Train on the first limit_train images only; by default all.
        limit_eval: Validate and test on the first limit_eval images of each split only; by default all.

    Returns:
        Images with shape ``(N, 1, 28, 28)``, uint8, from 0 to 255.

    Raises:
        ConfigError: a limit is below 1.
        DataError: the folder or a file is missing, truncated or damaged.

    References:
        LeCun, Bottou, Bengio, Haffner (1998), Gradient-based learning applied to document recognition.
    """
    _check_limits("mnist", limit_train=limit_train, limit_eval=limit_eval)
    folder = _folder("mnist", path, "the idx files")
    images = _read_idx(_find_idx(folder, "train-images-idx3-ubyte"))
    test = _read_idx(_find_idx(folder, "t10k-images-idx3-ubyte"))
    return _limited("mnist", images, len(images) // 6, test, limit_train, limit_eval)


@checked_arguments("data.cifar10")
def cifar10(
    path: str | Path | None = None, *, limit_train: int | None = None, limit_eval: int | None = None
) -> Dataset:
    """CIFAR-10 from its Python batches or an .npz file: 3×32×32 with 256 values, split 40,000 / 10,000 / 10,000.

    The last fifth of the training images is the validation split.

    Args:
        path: Folder with the Python batches or one .npz file; by default the folder cifar10 in $SNFLOW_DATA.
        limit_train: Train on the first limit_train images only; by default all.
        limit_eval: Validate and test on the first limit_eval images of each split only; by default all.

    Returns:
        Images with shape ``(N, 3, 32, 32)``, uint8, from 0 to 255.

    Raises:
        ConfigError: a limit is below 1.
        DataError: the folder or a file is missing or damaged.

    References:
        Krizhevsky (2009), Learning multiple layers of features from tiny images.
    """
    _check_limits("cifar10", limit_train=limit_train, limit_eval=limit_eval)
    content = "data_batch_1 … data_batch_5 and test_batch, or one .npz file"
    folder = _folder("cifar10", path, content)
    batches = [folder / f"data_batch_{n}" for n in range(1, 6)]
    archives = sorted(folder.glob("*.npz"))
    if all(file.is_file() for file in (*batches, folder / "test_batch")):
        images = _concatenated([_read_pickle(file) for file in batches])
        test = _concatenated([_read_pickle(folder / "test_batch")])
    elif len(archives) == 1:
        images, test = (_concatenated([_read_npz(archives[0], key)]) for key in ("train", "test"))
    else:
        raise _missing("cifar10", folder, content)
    return _limited("cifar10", images, len(images) // 5, test, limit_train, limit_eval)


@checked_arguments("data.imagenet32")
def imagenet32(
    path: str | Path | None = None,
    *,
    limit_train: int | None = None,
    limit_eval: int | None = None,
    memory_map: bool = False,
) -> Dataset:
    """ImageNet at 32×32 from its .npz batches: 3×32×32 with 256 values, split 1,261,167 / 20,000 / 50,000.

    The last 20,000 training images (a tenth, if there are fewer than 200,000) are the validation split; the published
    validation file is the test split. The whole training set takes 3.9 GB of memory; with ``limit_train``
    only as many images are read, and with ``memory_map`` they stay on disk.

    Args:
        path: Folder with the .npz batches; by default the folder imagenet32 in $SNFLOW_DATA.
        limit_train: Train on the first limit_train images only; by default all.
        limit_eval: Validate and test on the first limit_eval images of each split only; by default all.
        memory_map: Whether to unpack the training images into a file beside the batches, once, and map it into memory.

    Returns:
        Images with shape ``(N, 3, 32, 32)``, uint8, from 0 to 255.

    Raises:
        ConfigError: a limit is below 1.
        DataError: the folder or a file is missing or damaged.

    References:
        Chrabaszcz, Loshchilov, Hutter (2017), A downsampled variant of ImageNet.
    """
    _check_limits("imagenet32", limit_train=limit_train, limit_eval=limit_eval)
    content = "train_data_batch_1.npz … and val_data.npz"
    folder = _folder("imagenet32", path, content)
    numbers = {file: file.stem.rsplit("_", 1)[1] for file in folder.glob("train_data_batch_*.npz")}
    paths = sorted(
        (file for file, number in numbers.items() if number.isdecimal()), key=lambda file: int(numbers[file])
    )
    if not paths or not (folder / "val_data.npz").is_file():
        raise _missing("imagenet32", folder, content)
    wanted = None if limit_train is None else limit_train + max(1, limit_train // 9)
    images = _mapped(paths, folder) if memory_map else _read_batches(paths, wanted)
    images = images[:wanted]
    held_out = min(20_000, max(1, len(images) // 10))
    test = _concatenated([_read_npz(folder / "val_data.npz", "data")])
    return _limited("imagenet32", images, held_out, test, limit_train, limit_eval)


def _check_limits(name: str, **limits: int | None) -> None:
    for option, limit in limits.items():
        if limit is not None:
            check_count(f"data.{name}", option, limit, most=MAX_INT)


def _limited(
    name: str, images: Tensor, held_out: int, test: Tensor, limit_train: int | None, limit_eval: int | None
) -> Dataset:
    """Hold out the last training images for validation, and cut the splits to their limits."""
    held_out = min(held_out, len(images))
    train, validation = images.split([len(images) - held_out, held_out])
    return Dataset(name, train[:limit_train], validation[:limit_eval], test[:limit_eval], num_values=256)


def _folder(name: str, path: str | Path | None, content: str) -> Path:
    """Return the given folder, or else the folder ``name`` in ``$SNFLOW_DATA``."""
    root = os.environ.get("SNFLOW_DATA")
    if path is None and not root:
        raise DataError(
            f"data.{name}",
            expected=f"a folder with {content}",
            got="neither path nor the environment variable SNFLOW_DATA",
            fix=f"set path to the folder, or SNFLOW_DATA to the folder that contains {name}/",
        )
    return Path(path).expanduser() if path is not None else Path(str(root)).expanduser() / name


def _missing(name: str, folder: Path, content: str) -> DataError:
    return DataError(
        f"data.{name}",
        expected=f"{content} in {folder}",
        got="no such file" if folder.is_dir() else "no such folder",
        fix=f"set path to the folder, or SNFLOW_DATA to the folder that contains {name}/",
    )


# --- MNIST: idx files

_IDX_IMAGES, _IDX_LABELS = 2051, 2049
"""The magic numbers of idx files of images and of labels."""


def _find_idx(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise _missing("mnist", folder, f"{name} or {name}.gz")


def _read_idx(path: Path) -> Tensor:
    """Read an idx file of images, plain or gzipped: ``(N, 1, height, width)``, uint8."""
    content = _uncompressed(path)
    header = 16
    if len(content) < header:
        raise DataError(str(path), expected=f"a header of {header} bytes", got=f"{len(content)} bytes", fix=_CORRUPT)
    magic, *sizes = (int.from_bytes(content[at : at + 4], "big") for at in range(0, header, 4))
    if magic != _IDX_IMAGES:
        other = "a file of labels" if magic == _IDX_LABELS else "not an idx file of bytes"
        raise DataError(
            str(path),
            expected=f"idx images, magic number {_IDX_IMAGES}",
            got=f"{magic}, {other}",
            fix="check the file's name",
        )
    if len(content) - header != prod(sizes):
        raise DataError(
            str(path),
            expected=f"{prod(sizes)} bytes after the header, for {' × '.join(map(str, sizes))}",
            got=f"{len(content) - header}",
            fix=_CORRUPT,
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[header:].reshape(sizes).unsqueeze(1)


def _uncompressed(path: Path) -> bytes:
    with parsing(path, "a complete gzip file", _CORRUPT):
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


# --- CIFAR-10 and ImageNet: pickles and archives of numpy arrays

_SAFE = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class _SafeUnpickler(pickle.Unpickler):
    """Accepts arrays, strings and containers, but no code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _SAFE:
            raise pickle.UnpicklingError(f"a reference to {module}.{name}, which a batch of images does not need")
        return super().find_class(module, name)


def _read_pickle(path: Path) -> NDArray[np.uint8]:
    """Read the images of a Python batch of CIFAR-10, ``(N, 3, 32, 32)``, without executing code from the pickle."""
    with parsing(path, "a Python batch of CIFAR-10", _CORRUPT):
        content = _SafeUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    data = content.get(b"data") if isinstance(content, dict) else None
    return _as_images(data, str(path))


def _read_npz(path: Path, key: str) -> NDArray[np.uint8]:
    """Read one array of images from an .npz file: ``(N, 3, 32, 32)``."""
    with parsing(path, "a complete .npz file", _CORRUPT), path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(str(path), expected="an .npz archive", got="a single array", fix="save it by numpy.savez")
        if key not in archive.files:
            got = f"only {', '.join(archive.files)}"
            raise DataError(str(path), expected=f"an array {key!r}", got=got, fix="check the file")
        return _as_images(archive[key], str(path))


def _as_images(data: Any, where: str) -> NDArray[np.uint8]:
    fits = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim in (2, 4)
    if not fits or data.shape[1:] not in ((3072,), (3, 32, 32)):
        got = f"{data.dtype} with shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(where, expected="uint8 images with shape (N, 3072) or (N, 3, 32, 32)", got=got, fix=_CORRUPT)
    images: NDArray[np.uint8] = data.reshape(-1, 3, 32, 32)
    return images


def _read_batches(paths: Sequence[Path], wanted: int | None) -> Tensor:
    """Read archives in order until ``wanted`` images are read."""
    parts: list[NDArray[np.uint8]] = []
    for path in paths:
        parts.append(_read_npz(path, "data"))
        if wanted is not None and sum(map(len, parts)) >= wanted:
            break
    return _concatenated(parts)


def _concatenated(parts: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Copy arrays of images into one tensor, part by part, without a second copy of the whole."""
    whole = torch.empty(sum(map(len, parts)), 3, 32, 32, dtype=torch.uint8)
    at = 0
    for part in parts:
        whole[at : at + len(part)] = torch.from_numpy(part)
        at += len(part)
    return whole


def _mapped(paths: Sequence[Path], folder: Path) -> Tensor:
    """Map the images of several .npz files into memory, from one file of bytes in ``folder``.

    The file is written atomically, archive by archive. Its name holds a hash of the names, sizes and times of the
    archives, so that it belongs to exactly these; files of others are removed. Changes to the tensor are not written
    back.
    """
    file = folder / "train_data"
    try:
        read = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
        file = folder / f"train_data-{hashlib.sha256(repr(read).encode()).hexdigest()[:16]}.bytes"
        if not file.is_file():
            temporary = file.with_name(f".tmp-{file.name}-{os.getpid()}")
            with temporary.open("wb") as out:
                for path in paths:
                    out.write(_read_npz(path, "data").tobytes())
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(file)
            for stale in {*folder.glob("train_data*.bytes")} - {file}:
                stale.unlink()
        size = file.stat().st_size
    except OSError as error:
        raise DataError(str(file), expected="a writable file", got=str(error), fix="set memory_map to false") from error
    return torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8).view(-1, 3, 32, 32)
