"""Datasets in memory, and the order in which a training run sees them.

The options are plain dataclasses and cost nothing to import; everything that needs torch loads on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snflow.data.options import DATASETS as DATASETS
from snflow.data.options import Cifar10Options as Cifar10Options
from snflow.data.options import DatasetOptions as DatasetOptions
from snflow.data.options import DigitsOptions as DigitsOptions
from snflow.data.options import Imagenet32Options as Imagenet32Options
from snflow.data.options import MnistOptions as MnistOptions
from snflow.data.options import TableOptions as TableOptions
from snflow.data.options import ToyOptions as ToyOptions
from snflow.lazy import lazily

if TYPE_CHECKING:
    from snflow.data.batches import Batches as Batches
    from snflow.data.batches import in_order as in_order
    from snflow.data.dataset import Dataset as Dataset
    from snflow.data.registry import load as load

_LAZY = {
    "Batches": "snflow.data.batches",
    "in_order": "snflow.data.batches",
    "Dataset": "snflow.data.dataset",
    "load": "snflow.data.registry",
}
_OPTIONS = (
    "DATASETS",
    "Cifar10Options",
    "DatasetOptions",
    "DigitsOptions",
    "Imagenet32Options",
    "MnistOptions",
    "TableOptions",
    "ToyOptions",
)

__all__ = sorted([*_LAZY, *_OPTIONS])

__getattr__ = lazily(__name__, _LAZY)


def __dir__() -> list[str]:
    return __all__
