"""MNIST from idx files, complete and damaged."""

import gzip
from pathlib import Path

import pytest
import torch

from snflow.data import mnist
from snflow.errors import DataError

TRAIN, TEST = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte"
IMAGES, LABELS = 2051, 2049
"""The magic numbers of idx files."""


def idx(magic: int, array: torch.Tensor) -> bytes:
    header = b"".join(n.to_bytes(4, "big") for n in (magic, *array.shape))
    return header + array.contiguous().numpy().tobytes()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(256, (72, 28, 28), dtype=torch.uint8)


@pytest.fixture
def folder(tmp_path: Path, images: torch.Tensor) -> Path:
    (tmp_path / f"{TRAIN}.gz").write_bytes(gzip.compress(idx(IMAGES, images[:60])))
    (tmp_path / TEST).write_bytes(idx(IMAGES, images[60:]))
    return tmp_path


def test_splits(folder, images):
    data = mnist(path=str(folder))
    assert data.num_values == 256
    assert data.event_shape == (1, 28, 28)
    assert torch.equal(data.train.squeeze(1), images[:50])
    assert torch.equal(data.validation.squeeze(1), images[50:60])
    assert torch.equal(data.test.squeeze(1), images[60:])


def test_limits(folder, images):
    data = mnist(path=str(folder), limit_train=7, limit_eval=3)
    assert torch.equal(data.train.squeeze(1), images[:7])
    assert torch.equal(data.validation.squeeze(1), images[50:53])
    assert torch.equal(data.test.squeeze(1), images[60:63])


def test_folder_from_the_environment(folder, tmp_path_factory, monkeypatch):
    root = tmp_path_factory.mktemp("root")
    (root / "mnist").symlink_to(folder)
    monkeypatch.setenv("SNFLOW_DATA", str(root))
    assert len(mnist().train) == 50
    monkeypatch.delenv("SNFLOW_DATA")
    with pytest.raises(DataError, match=r"neither path nor the environment variable SNFLOW_DATA; set path"):
        mnist()


def test_a_file_of_labels_is_recognised(folder):
    (folder / TEST).write_bytes(idx(LABELS, torch.arange(10, dtype=torch.uint8)))
    with pytest.raises(DataError, match="ubyte: expected idx images, magic number 2051, got 2049, a file of labels"):
        mnist(folder)


WHOLE = idx(IMAGES, torch.zeros(6, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a header of 16 bytes, got 0 bytes; copy or download the file again"),
        (WHOLE[:9], "a header of 16 bytes, got 9 bytes"),
        (WHOLE[:-5], "96 bytes after the header, for 6 × 4 × 4, got 91; copy"),
        (WHOLE + b"!", "96 bytes after the header, for 6 × 4 × 4, got 97"),
        (WHOLE[::-1], "magic number 2051, got 0, not an idx file"),
        (gzip.compress(WHOLE, mtime=0)[:-12], "a complete gzip file, got "),
        (gzip.compress(WHOLE, mtime=0)[:12] + b"\xff" * 20, "a complete gzip file, got "),
        (gzip.compress(WHOLE, mtime=0) + b"tail", "a complete gzip file, got "),
        (idx(IMAGES, torch.zeros(0, 4, 4, dtype=torch.uint8)), "at least one row, got none"),
    ],
)
def test_damaged_files_are_named(folder, content, message):
    (folder / TEST).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        mnist(path=str(folder))
    assert TEST in str(error.value) or "test split" in str(error.value)


def test_missing_files_are_named(folder):
    (folder / TEST).unlink()
    with pytest.raises(DataError, match=rf"{TEST} or {TEST}.gz in {folder}, got no such file"):
        mnist(path=str(folder))
    with pytest.raises(DataError, match=r"nowhere, got no such folder"):
        mnist(path=str(folder / "nowhere"))


def test_images_of_another_size_are_refused(folder):
    (folder / TEST).write_bytes(WHOLE)
    with pytest.raises(DataError, match=r"test split: .*\(1, 28, 28\), as in the train split, got \(1, 4, 4\)"):
        mnist(path=str(folder))
