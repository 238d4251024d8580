"""A recipe that trains in well under a second, and one finished run of it that the tests share."""

import shutil

import pytest
import torch
from rich.console import Console

from snflow.train.fit import fit
from snflow.train.recipe import Recipe


def tiny(**changes):
    """The recipe, with `section__option=value` put in."""
    content = {
        "description": "tiny",
        "data": {"name": "digits", "train": 120, "validation": 40, "test": 40},
        "flow": {"name": "conv", "scales": 1, "layers": 2, "activation": "smooth_leaky_relu"},
        "optimizer": {"learning_rate": 1e-3},
        "schedule": {"warmup_epochs": 1, "decay": "cosine"},
        "training": {"epochs": 3, "batch_size": 20, "threads": 1},
        "device": {"accelerator": "cpu"},
    }
    for name, value in changes.items():
        section, option = name.split("__")
        content[section][option] = value
    return Recipe.from_dict(content)


@pytest.fixture
def recipe():
    return tiny


@pytest.fixture
def quiet():
    with open("/dev/null", "w") as nowhere:
        yield Console(file=nowhere)


@pytest.fixture(scope="session")
def _finished(tmp_path_factory):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    out = tmp_path_factory.mktemp("runs") / "finished"
    with open("/dev/null", "w") as nowhere:
        fit(tiny(training__checkpoint_every_epochs=1), out, console=Console(file=nowhere))
    torch.set_default_dtype(before)
    return out


@pytest.fixture
def finished(_finished):
    """A finished run; to be read only."""
    return _finished


@pytest.fixture
def copied(_finished, tmp_path):
    """A finished run to damage."""
    return shutil.copytree(_finished, tmp_path / "copied")
