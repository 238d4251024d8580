"""Datasets that need no file, the checks that all of them pass, and the options that import no torch."""

import subprocess
import sys
from typing import get_args

import pytest
import torch

from snflow.data import DATASETS, Dataset, DigitsOptions, MnistOptions, TableOptions, ToyOptions, load
from snflow.data.dataset import ToyShape
from snflow.errors import ConfigError, DataError


def rows(**changes):
    parts = {split: torch.zeros(4, 2) for split in ("train", "validation", "test")}
    return Dataset("rows", **(parts | changes))


def with_value(value, *place, shape=(4, 2), dtype=torch.float32):
    data = torch.zeros(shape, dtype=dtype)
    data[place] = value
    return data


def test_digits():
    digits = load(DigitsOptions())
    assert digits.event_shape == (1, 8, 8)
    assert digits.levels == 17
    assert [len(split) for split in (digits.train, digits.validation, digits.test)] == [1197, 300, 300]
    assert digits.train.dtype == torch.uint8
    assert (digits.train.min(), digits.train.max()) == (0, 16)
    everything = torch.cat([digits.train, digits.validation, digits.test])
    assert len(everything.unique(dim=0)) == 1797  # no image twice, none lost


def test_digits_split_is_a_function_of_the_seed():
    first, again, other = (load(DigitsOptions(seed=seed)).test for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_digits_in_other_sizes():
    small = load(DigitsOptions(train=20, validation=3, test=4))
    assert [len(split) for split in (small.train, small.validation, small.test)] == [20, 3, 4]
    with pytest.raises(ConfigError, match="splits of 1797 images together, got 1800"):
        load(DigitsOptions(train=1200))


@pytest.mark.parametrize("shape", get_args(ToyShape))
def test_toys(shape):
    toy = load(ToyOptions(shape=shape, train=2000, validation=30, test=40))
    assert toy.train.shape == (2000, 2)
    assert toy.train.dtype == torch.float32
    assert toy.levels is None
    assert [len(toy.validation), len(toy.test)] == [30, 40]
    assert toy.train.abs().max() < 6
    assert toy.train.std(0).min() > 0.7
    assert len(toy.train.unique(dim=0)) == 2000
    again, other = (load(ToyOptions(shape=shape, train=2000, seed=seed)) for seed in (0, 1))
    assert torch.equal(load(ToyOptions(shape=shape, train=2000)).train, again.train)
    assert not torch.equal(again.train, other.train)


def test_toys_do_not_depend_on_the_default_dtype():
    torch.set_default_dtype(torch.float64)
    double = load(ToyOptions()).train
    torch.set_default_dtype(torch.float32)
    assert torch.equal(load(ToyOptions()).train, double)


def test_every_toy_draws_its_picture():
    def points(shape):
        return load(ToyOptions(shape=shape, train=4000)).train

    cells = (points("checkerboard") / 2 + 2).floor()
    assert bool((cells.sum(1) % 2 == 0).all())
    radius = points("rings").norm(dim=1) / 0.75
    assert (radius - radius.round()).abs().mean() < 0.1
    centres = points("eight_gaussians")
    assert (centres.norm(dim=1) - 2.8).abs().mean() < 0.25
    moons = points("two_moons")
    upper = moons[moons[:, 1] > 0.6]
    assert upper[:, 0].mean() < -0.5  # one moon opens down on the left, the other up on the right


@pytest.mark.parametrize(
    ("changes", "levels", "message"),
    [
        ({"test": torch.zeros(0, 2)}, None, "rows, test split: expected one row or more, got none"),
        ({"validation": torch.zeros(4, 3)}, None, r"validation split: .* \(2,\), as in the train split, got \(3,\)"),
        ({"train": with_value(float("nan"), 3, 1)}, None, "finite numbers, got nan in row 3, column 1"),
        ({"train": with_value(-float("inf"), 2, 0)}, None, "finite numbers, got -inf in row 2, column 0"),
        ({"train": torch.zeros(4, 2, dtype=torch.uint8)}, None, "floating dtype for continuous data, got torch.uint8"),
        ({}, 17, "an integer dtype for levels, got torch.float"),
    ],
)
def test_wrong_rows(changes, levels, message):
    with pytest.raises(DataError, match=message):
        rows(levels=levels, **changes)


@pytest.mark.parametrize(
    ("value", "dtype"), [(17, torch.uint8), (255, torch.uint8), (-1, torch.int64), (2**32, torch.int64)]
)
def test_values_outside_the_levels(value, dtype):
    images = with_value(value, 2, 0, 1, 1, shape=(5, 1, 2, 2), dtype=dtype)
    good = torch.zeros(1, 1, 2, 2, dtype=dtype)
    with pytest.raises(DataError, match=rf"from 0 to 16, got {value} in row 2, position \(0, 1, 1\)"):
        Dataset("images", good, images, good, levels=17)


def test_every_byte_is_a_level_of_256():
    images = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)
    assert Dataset("bytes", images, images, images, levels=256).event_shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DigitsOptions(train=0), r"data\.train: expected a whole number above 0, got 0"),
        (lambda: MnistOptions(limit_train=-5), r"data\.limit_train: expected a whole number above 0, got -5"),
        (lambda: TableOptions("a.csv", test_fraction=1.0), r"data\.test_fraction: .* between 0 and 1, got 1.0"),
        (lambda: TableOptions("a.csv", validation_fraction=0.6, test_fraction=0.4), "leave rows to train on"),
        (lambda: TableOptions("a.csv", columns=[0], drop_columns=[1]), "either columns or drop_columns, not both"),
        (lambda: load(ToyOptions(shape="two_moon")), r"data\.shape: .*'two_moon'; did you mean 'two_moons'"),
        (lambda: load("digits"), r"one of DigitsOptions, .*, got str; make the options first"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_registry():
    assert {name: kind.__name__ for name, kind in DATASETS.items()} == {
        "cifar10": "Cifar10Options",
        "digits": "DigitsOptions",
        "imagenet32": "Imagenet32Options",
        "mnist": "MnistOptions",
        "table": "TableOptions",
        "toy": "ToyOptions",
    }


def test_options_import_no_torch():
    code = "import sys, snflow.data as d; d.ToyOptions(); print({'torch', 'numpy', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
