"""What a recipe can say about its data. Plain dataclasses: reading them imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from snflow.arguments import check_option

ToyShape = Literal["two_moons", "rings", "pinwheel", "checkerboard", "eight_gaussians", "two_spirals"]


_require = partial(check_option, "data")


def _require_counts(options: Any, *fields: str) -> None:
    for field in fields:
        value = getattr(options, field)
        _require(options, field, value is None or (type(value) is int and value > 0), "a whole number above 0")


@dataclass(frozen=True)
class DigitsOptions:
    """The 1,797 scanned digits that scikit-learn ships: 8×8 pixels, 17 grey levels (Alpaydin & Kaynak 1998)."""

    train: int = 1197
    """Images to train on."""
    validation: int = 300
    """Images to choose the best epoch by."""
    test: int = 300
    """Images for the reported likelihood."""
    seed: int = 0
    """Seed of the split."""

    def __post_init__(self) -> None:
        _require_counts(self, "train", "validation", "test")


@dataclass(frozen=True)
class _ImageFiles:
    path: str | None = None
    """Folder with the published files; null: the one with the dataset's name in $SNFLOW_DATA."""
    limit_train: int | None = None
    """Train on the first so many images only; null takes all."""
    limit_eval: int | None = None
    """Validate and test on the first so many images only; null takes all."""

    def __post_init__(self) -> None:
        _require_counts(self, "limit_train", "limit_eval")


@dataclass(frozen=True)
class MnistOptions(_ImageFiles):
    """MNIST from its idx files: 28×28 pixels, 256 levels, split 50,000 / 10,000 / 10,000 (LeCun et al. 1998)."""


@dataclass(frozen=True)
class Cifar10Options(_ImageFiles):
    """CIFAR-10 from its Python batches or an .npz file: 3×32×32, 256 levels, 40,000 / 10,000 / 10,000."""


@dataclass(frozen=True)
class Imagenet32Options(_ImageFiles):
    """ImageNet at 32×32 from its .npz batches: 3×32×32, 256 levels, 1,261,167 / 20,000 / 50,000."""

    memory_map: bool = False
    """Unpack the train images once into a file beside the batches, and read them from there as they are asked for."""


@dataclass(frozen=True)
class TableOptions:
    """A table of numbers in a file: .npy, .npz, or text (.csv, .data, .txt, .tsv) with a row a line."""

    path: str
    """The file; a relative path that is not found here is looked up in $SNFLOW_DATA."""
    key: str | None = None
    """Array inside a .npz file; null takes the only one."""
    columns: list[int | str] | None = None
    """Columns to keep, in this order, by number from 0 or by the name in the header; null keeps all."""
    drop_columns: list[int | str] | None = None
    """Columns to leave out, a class label for one, by number from 0 or by name."""
    validation_fraction: float = 0.1
    """Part of the rows to choose the best epoch by."""
    test_fraction: float = 0.1
    """Part of the rows for the reported likelihood."""
    seed: int = 0
    """Seed of the split."""

    def __post_init__(self) -> None:
        _require(self, "validation_fraction", 0 < self.validation_fraction < 1, "a fraction between 0 and 1")
        _require(self, "test_fraction", 0 < self.test_fraction < 1, "a fraction between 0 and 1")
        rest = 1 - self.validation_fraction - self.test_fraction
        _require(self, "test_fraction", rest > 0, "fractions that leave rows to train on")
        both = self.columns is not None and self.drop_columns is not None
        _require(self, "drop_columns", not both, "either columns or drop_columns, not both")


@dataclass(frozen=True)
class ToyOptions:
    """Points in the plane whose density is known by sight."""

    shape: ToyShape = "two_moons"
    """Which picture the points draw."""
    train: int = 10_000
    """Points to train on."""
    validation: int = 2_000
    """Points to choose the best epoch by."""
    test: int = 2_000
    """Points for the reported likelihood."""
    seed: int = 0
    """Seed of the points."""

    def __post_init__(self) -> None:
        _require_counts(self, "train", "validation", "test")


DatasetOptions = DigitsOptions | MnistOptions | Cifar10Options | Imagenet32Options | TableOptions | ToyOptions

DATASETS: dict[str, type[DatasetOptions]] = {
    "digits": DigitsOptions,
    "mnist": MnistOptions,
    "cifar10": Cifar10Options,
    "imagenet32": Imagenet32Options,
    "table": TableOptions,
    "toy": ToyOptions,
}
"""The name by which a recipe asks for a dataset, and its options."""
