"""MNIST from idx files, whole and damaged, made here."""

import gzip
from pathlib import Path

import pytest
import torch

from snflow.data import MnistOptions, load
from snflow.data.images import IMAGES, LABELS, read_idx
from snflow.errors import DataError

TRAIN, TEST = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte"


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
    mnist = load(MnistOptions(path=str(folder)))
    assert mnist.levels == 256
    assert mnist.event_shape == (1, 28, 28)
    assert torch.equal(mnist.train.squeeze(1), images[:50])
    assert torch.equal(mnist.validation.squeeze(1), images[50:60])
    assert torch.equal(mnist.test.squeeze(1), images[60:])


def test_limits(folder, images):
    mnist = load(MnistOptions(path=str(folder), limit_train=7, limit_eval=3))
    assert torch.equal(mnist.train.squeeze(1), images[:7])
    assert torch.equal(mnist.validation.squeeze(1), images[50:53])
    assert torch.equal(mnist.test.squeeze(1), images[60:63])


def test_folder_from_the_environment(folder, tmp_path_factory, monkeypatch):
    root = tmp_path_factory.mktemp("root")
    (root / "mnist").symlink_to(folder)
    monkeypatch.setenv("SNFLOW_DATA", str(root))
    assert len(load(MnistOptions()).train) == 50
    monkeypatch.delenv("SNFLOW_DATA")
    with pytest.raises(DataError, match=r"neither data\.path nor the environment variable SNFLOW_DATA; set data\.path"):
        load(MnistOptions())


def test_labels(tmp_path):
    labels = torch.arange(10, dtype=torch.uint8)
    path = tmp_path / "labels"
    path.write_bytes(idx(LABELS, labels))
    assert torch.equal(read_idx(path, LABELS), labels)
    with pytest.raises(DataError, match=r"labels: expected idx images, magic number 2051, got 2049, a file of labels"):
        read_idx(path, IMAGES)


WHOLE = idx(IMAGES, torch.zeros(6, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a header of 16 bytes, got 0 bytes; copy or download the file again"),
        (WHOLE[:9], "a header of 16 bytes, got 9 bytes"),
        (WHOLE[:-5], "96 bytes behind the header, for 6 × 4 × 4, got 91; copy"),
        (WHOLE + b"!", "96 bytes behind the header, for 6 × 4 × 4, got 97"),
        (WHOLE[::-1], "magic number 2051, got 0, no idx file"),
        (gzip.compress(WHOLE, mtime=0)[:-12], "a whole gzip file, got a damaged one"),
        (gzip.compress(WHOLE, mtime=0)[:12] + b"\xff" * 20, "a whole gzip file, got a damaged one"),
        (gzip.compress(WHOLE, mtime=0) + b"tail", "a whole gzip file, got a damaged one"),
        (idx(IMAGES, torch.zeros(0, 4, 4, dtype=torch.uint8)), "one row or more, got none"),
    ],
)
def test_damaged_files_are_named(folder, content, message):
    (folder / TEST).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load(MnistOptions(path=str(folder)))
    assert TEST in str(error.value) or "test split" in str(error.value)


def test_missing_files_are_named(folder):
    (folder / TEST).unlink()
    with pytest.raises(DataError, match=rf"{TEST} or {TEST}.gz in {folder}, got no such file"):
        load(MnistOptions(path=str(folder)))
    with pytest.raises(DataError, match=r"nowhere, got no such folder"):
        load(MnistOptions(path=str(folder / "nowhere")))


def test_images_of_another_size_are_refused(folder):
    (folder / TEST).write_bytes(WHOLE)
    with pytest.raises(DataError, match=r"test split: .*\(1, 28, 28\), as in the train split, got \(1, 4, 4\)"):
        load(MnistOptions(path=str(folder)))
