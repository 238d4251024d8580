"""CIFAR-10 and ImageNet32 from their published files, and files with other content."""

import os
import pickle

import numpy as np
import pytest
import torch

from snflow.data import cifar10, imagenet32
from snflow.errors import DataError


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def write_batches(folder):
    for n in range(1, 6):
        (folder / f"data_batch_{n}").write_bytes(pickle.dumps({b"data": images(4, n), b"labels": [0] * 4}, 2))
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": images(3, 9)}, 2))


def test_cifar10_from_its_python_batches(tmp_path):
    write_batches(tmp_path)
    data = cifar10(path=str(tmp_path))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [16, 4, 3]
    assert data.event_shape == (3, 32, 32)
    assert data.num_values == 256
    wanted = torch.from_numpy(images(4, 5)).view(4, 3, 32, 32)
    assert torch.equal(data.validation, wanted)


def test_cifar10_from_an_archive_and_its_limits(tmp_path, monkeypatch):
    (tmp_path / "cifar10").mkdir()
    np.savez(tmp_path / "cifar10" / "subset.npz", train=images(20).reshape(-1, 3, 32, 32), test=images(5))
    monkeypatch.setenv("SNFLOW_DATA", str(tmp_path))
    data = cifar10(limit_train=10, limit_eval=2)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [10, 2, 2]


def test_imagenet32_reads_batch_after_batch(tmp_path):
    for n in (1, 2, 10):
        np.savez(tmp_path / f"train_data_batch_{n}.npz", data=images(10, n), labels=np.zeros(10))
    np.savez(tmp_path / "val_data.npz", data=images(6))
    data = imagenet32(path=str(tmp_path))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [27, 3, 6]
    # In the order of their numbers, not of their names.
    assert torch.equal(data.validation, torch.from_numpy(images(10, 10)[-3:]).view(3, 3, 32, 32))
    limited = imagenet32(path=str(tmp_path), limit_train=5, limit_eval=1)
    assert [len(part) for part in (limited.train, limited.validation, limited.test)] == [5, 1, 1]
    assert torch.equal(limited.train, data.train[:5])


def test_imagenet32_on_the_disk_is_imagenet32_in_memory(tmp_path):
    for n in (1, 2):
        np.savez(tmp_path / f"train_data_batch_{n}.npz", data=images(10, n))
    np.savez(tmp_path / "val_data.npz", data=images(6))
    read, mapped = (imagenet32(path=str(tmp_path), memory_map=m) for m in (False, True))
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(mapped, split), getattr(read, split))
    (unpacked,) = (p for p in tmp_path.iterdir() if p.suffix != ".npz")
    assert unpacked.stat().st_size == 20 * 3072
    before = unpacked.stat().st_mtime_ns
    imagenet32(path=str(tmp_path), memory_map=True)
    assert unpacked.stat().st_mtime_ns == before
    np.savez(tmp_path / "train_data_batch_2.npz", data=images(10, 7))
    os.utime(unpacked, (0, 0))
    again = imagenet32(path=str(tmp_path), memory_map=True)
    assert torch.equal(again.validation, torch.from_numpy(images(10, 7)[-2:]).view(2, 3, 32, 32))


def test_the_unpacked_images_are_those_of_the_archives_that_are_there(tmp_path):
    for n in (1, 2):
        np.savez(tmp_path / f"train_data_batch_{n}.npz", data=images(10, n))
    np.savez(tmp_path / "val_data.npz", data=images(6))
    assert len(imagenet32(path=str(tmp_path), memory_map=True).train) == 18
    (tmp_path / "train_data_batch_2.npz").unlink()
    assert len(imagenet32(path=str(tmp_path), memory_map=True).train) == 9
    (tmp_path / "train_data_batch_1.npz").rename(tmp_path / "train_data_batch_3.npz")
    before = (tmp_path / "train_data_batch_3.npz").stat().st_mtime
    np.savez(tmp_path / "train_data_batch_3.npz", data=images(10, 5))
    os.utime(tmp_path / "train_data_batch_3.npz", (before, before - 60))  # an older file, as from a backup
    again = imagenet32(path=str(tmp_path), memory_map=True)
    assert torch.equal(again.validation, torch.from_numpy(images(10, 5)[-1:]).view(1, 3, 32, 32))
    assert len(list(tmp_path.glob("*.bytes"))) == 1


def test_a_damaged_archive_leaves_no_half_of_the_unpacked_file(tmp_path):
    for n in (1, 2):
        np.savez(tmp_path / f"train_data_batch_{n}.npz", data=images(10, n))
    np.savez(tmp_path / "val_data.npz", data=images(6))
    (tmp_path / "train_data_batch_2.npz").write_bytes(b"PK damaged")
    with pytest.raises(DataError, match=r"complete \.npz file"):
        imagenet32(path=str(tmp_path), memory_map=True)
    assert not list(tmp_path.glob("train_data*.bytes"))


class Code:
    def __reduce__(self):
        return print, ("a pickle that runs code",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({b"data": Code()}, 2), "a reference to .*print"),
        (pickle.dumps({b"labels": []}, 2), "uint8 images with shape .*, got NoneType"),
        (pickle.dumps({b"data": images(2).astype(float)}, 2), "got float64"),
        (pickle.dumps({b"data": images(2)[:, :100]}, 2), r"got uint8 with shape \(2, 100\)"),
        (b"\x80\x02", "a Python batch of CIFAR-10"),
        (b"", "a Python batch of CIFAR-10"),
        (b"c_codecs\nencode\n(Vabc\nVnocodec\ntR.", "unknown encoding: nocodec"),
        (b"cnumpy\nndarray\n((I1000000000\nI1000000000\nttR.", "Unable to allocate"),
        (b"\x80\x02}]K\x01s.", "unhashable type"),
        (b"(" * 100_000 + b".", "a Python batch of CIFAR-10"),
    ],
)
def test_a_batch_that_is_something_else_is_named(tmp_path, capsys, content, message):
    write_batches(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(content)
    with pytest.raises(DataError, match=f"data_batch_3: .*{message}"):
        cifar10(path=str(tmp_path))
    assert capsys.readouterr().out == ""


def test_damaged_and_missing_archives_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("SNFLOW_DATA", raising=False)
    with pytest.raises(DataError, match=r"cifar10: .*neither path nor"):
        cifar10()
    with pytest.raises(DataError, match="no such file"):
        imagenet32(path=str(tmp_path))
    with pytest.raises(DataError, match="no such folder"):
        cifar10(path=str(tmp_path / "none"))
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(DataError, match=r"a\.npz: expected a complete \.npz file"):
        cifar10(path=str(tmp_path))
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, images(3))
    with pytest.raises(DataError, match=r"a\.npz: expected an \.npz archive, got a single array"):
        cifar10(path=str(tmp_path))
    np.savez(tmp_path / "a.npz", train=images(0), test=images(0))
    with pytest.raises(DataError, match="train split: expected at least one row"):
        cifar10(path=str(tmp_path))
    np.savez(tmp_path / "a.npz", train=images(3))
    with pytest.raises(DataError, match="an array 'test', got only train"):
        cifar10(path=str(tmp_path))
