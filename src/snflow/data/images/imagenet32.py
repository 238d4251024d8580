"""ImageNet at 32×32, from its .npz batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from snflow.data.dataset import Dataset
from snflow.data.images.colour import joined, mapped, read_npz
from snflow.data.images.folder import dataset_folder, missing
from snflow.data.options import Imagenet32Options

_CONTENT = "train_data_batch_1.npz … and val_data.npz"
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
    folder = dataset_folder("imagenet32", options.path, _CONTENT)
    numbered = {int(p.stem.rsplit("_", 1)[1]): p for p in folder.glob("train_data_batch_*.npz") if _number(p.stem)}
    if not numbered or not (folder / "val_data.npz").is_file():
        raise missing("imagenet32", folder, _CONTENT)
    limit = options.limit_train
    wanted = None if limit is None else limit + max(1, limit // 9)
    paths = [numbered[number] for number in sorted(numbered)]
    images = mapped(paths, "data", folder / _MAPPED) if options.memory_map else _read(paths, wanted)
    if wanted is not None:
        images = images[:wanted]
    held_out = min(20_000, max(1, len(images) // 10))
    train, validation = images.split([len(images) - held_out, held_out])
    test = joined([read_npz(folder / "val_data.npz", "data")])
    limit_eval = options.limit_eval
    return Dataset("imagenet32", train[:limit], validation[:limit_eval], test[:limit_eval], levels=256)


def _read(paths: list[Path], wanted: int | None) -> Tensor:
    """The images of the archives, of as many as are needed for ``wanted`` of them."""
    parts: list[NDArray[np.uint8]] = []
    for path in paths:
        parts.append(read_npz(path, "data"))
        if wanted is not None and sum(map(len, parts)) >= wanted:
            break
    return joined(parts)


def _number(stem: str) -> bool:
    return stem.rsplit("_", 1)[1].isdecimal()
