"""Datasets by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snflow.data.dataset import (
    Cifar10Options,
    Dataset,
    DatasetOptions,
    DigitsOptions,
    Imagenet32Options,
    MnistOptions,
    TableOptions,
    ToyOptions,
)
from snflow.data.images import load_cifar10, load_digits, load_imagenet32, load_mnist
from snflow.data.tables import load_table
from snflow.data.toys import load_toy
from snflow.errors import ConfigError

_LOADERS: dict[type[DatasetOptions], Callable[[Any], Dataset]] = {
    DigitsOptions: load_digits,
    MnistOptions: load_mnist,
    Cifar10Options: load_cifar10,
    Imagenet32Options: load_imagenet32,
    TableOptions: load_table,
    ToyOptions: load_toy,
}


def load(options: DatasetOptions) -> Dataset:
    """Load the dataset that the options describe, checked.

    Args:
        options: an instance of one of the classes in ``DATASETS``.

    Returns:
        Train, validation and test rows, with shape ``(N, *event)`` each.

    Raises:
        DataError: a file is missing or damaged, or a value is NaN, infinite or out of range.
        ConfigError: the options are of no registered dataset, or ask for more than it has.

    Example:
        >>> from snflow.data import ToyOptions
        >>> load(ToyOptions(shape="rings", train=100, validation=10, test=10)).train.shape
        torch.Size([100, 2])
    """
    loader = _LOADERS.get(type(options))
    if loader is None:
        raise ConfigError(
            "load",
            expected=f"one of {', '.join(kind.__name__ for kind in _LOADERS)}",
            got=type(options).__name__,
            fix="make the options first: load(DigitsOptions())",
        )
    return loader(options)
