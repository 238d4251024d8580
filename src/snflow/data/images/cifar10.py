"""CIFAR-10, from its Python batches or from an .npz file."""

from __future__ import annotations

from snflow.data.dataset import Dataset
from snflow.data.images.colour import joined, read_npz, read_pickle
from snflow.data.images.folder import dataset_folder, missing
from snflow.data.options import Cifar10Options

_CONTENT = "data_batch_1 … data_batch_5 and test_batch, or one .npz file"


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
    folder = dataset_folder("cifar10", options.path, _CONTENT)
    batches = [folder / f"data_batch_{n}" for n in range(1, 6)]
    archives = sorted(folder.glob("*.npz"))
    if all(path.is_file() for path in (*batches, folder / "test_batch")):
        images = joined([read_pickle(path) for path in batches])
        test = joined([read_pickle(folder / "test_batch")])
    elif len(archives) == 1:
        images, test = (joined([read_npz(archives[0], key)]) for key in ("train", "test"))
    else:
        raise missing("cifar10", folder, _CONTENT)
    held_out = len(images) // 5
    train, validation = images.split([len(images) - held_out, held_out])
    limit_train, limit_eval = options.limit_train, options.limit_eval
    return Dataset("cifar10", train[:limit_train], validation[:limit_eval], test[:limit_eval], levels=256)
