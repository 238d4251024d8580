"""Checkpoints: whole or absent, verified, and never a way to run code."""

import errno
import io
import os
import pickle
import shutil

import pytest
import torch

from snflow.errors import CheckpointError
from snflow.train import checkpoints as format_module
from snflow.train import generators
from snflow.train.checkpoints import Checkpoint, CheckpointStore, read_checkpoint, write_checkpoint


def make(step=1, best=None):
    weight = torch.arange(6.0).reshape(2, 3)
    model = {"w": weight.t(), "shared": weight, "count": torch.tensor(3), "flag": torch.tensor(True)}
    state = {"numbers": [1, 2.5, None, "x"], "t": torch.ones(2, dtype=torch.float64), "rng": generators.capture()}
    return Checkpoint(step, model, state, {"best_step": step if best is None else best, "epochs": step})


def test_what_is_written_comes_back(tmp_path):
    write_checkpoint(tmp_path / "step-00000001", make())
    read = read_checkpoint(tmp_path / "step-00000001")
    assert read.step == 1
    assert all(torch.equal(read.model[k], v) for k, v in make().model.items())
    assert read.state["numbers"] == [1, 2.5, None, "x"]
    assert read.state["t"].dtype == torch.float64
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "manifest.json"])
def test_every_single_bit_and_every_truncation_is_noticed(tmp_path, name):
    path = tmp_path / "step-00000001"
    write_checkpoint(path, make())
    original = (path / name).read_bytes()
    places = torch.linspace(0, len(original) - 1, 60, dtype=torch.float64).round().long().tolist()
    for at in places:
        damaged = bytearray(original)
        damaged[at] ^= 1 << (at % 8)
        (path / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"{name}: expected the file as it was written"):
            read_checkpoint(path)
    for length in places[::10]:
        (path / name).write_bytes(original[:length])
        with pytest.raises(CheckpointError, match=f"{name}: expected the file as it was written"):
            read_checkpoint(path)
    (path / name).unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        read_checkpoint(path)


class Attack:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_that_runs_code_is_refused_even_with_a_right_manifest(tmp_path, monkeypatch, writer):
    buffer = io.BytesIO()
    if writer == "torch":
        torch.save({"x": Attack()}, buffer)
    else:
        pickle.dump(Attack(), buffer, protocol=2)
    monkeypatch.setattr(format_module, "_state_bytes", lambda state: buffer.getvalue())
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "step-00000001", make())
    with pytest.raises(CheckpointError, match="expected tensors and plain values"):
        read_checkpoint(tmp_path / "step-00000001")
    assert not (tmp_path / "pwned").exists()


def test_an_unknown_format_is_refused_with_the_version_that_wrote_it(tmp_path, monkeypatch):
    monkeypatch.setattr(format_module, "FORMAT_VERSION", 99)
    write_checkpoint(tmp_path / "step-00000001", make())
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"expected checkpoint format 4, got 99; use the version of snflow"):
        read_checkpoint(tmp_path / "step-00000001")


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    store.save(make(1))

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for step in (1, 2):
        with pytest.raises(
            CheckpointError, match=r"no space left on device \(.* MiB needed, .* MiB free\); free some space"
        ):
            store.save(make(step))
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    assert read_checkpoint(store.path(1)).step == 1


def test_the_last_two_and_the_best_are_kept(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in range(1, 7):
        store.save(make(step, best=min(step, 2)))
    assert store.steps() == [2, 5, 6]
    assert store.read("best", pytest.fail).step == 2
    assert store.read("last", pytest.fail).step == 6


def test_the_best_of_the_last_but_one_is_there_when_the_last_is_damaged(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in range(1, 6):
        store.save(make(step, best=1 if step < 5 else 5))
    (store.path(5) / "state.pt").write_bytes(b"")
    store.latest(lambda text: None)
    assert store.read("best", pytest.fail).step == 1


def test_a_damaged_checkpoint_is_refused_and_the_newest_good_one_offered(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        store.save(make(step))
    (store.path(2) / "state.pt").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"got 0 bytes instead of \d+; it is damaged; use the newest good .* --checkpoint 1$"
    ):
        store.read("last", pytest.fail)
    assert store.read("1", pytest.fail).step == 1
    with pytest.raises(CheckpointError, match="one of the checkpoints best, last, 1, 2, got 7"):
        store.read("7", pytest.fail)
    (store.path(1) / "state.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="there is no good checkpoint: train the run again"):
        store.read("last", pytest.fail)


def test_damage_falls_back_with_a_warning_and_is_set_aside(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        store.save(make(step))
    (store.path(2) / "model.safetensors").write_bytes(b"broken")
    said = []
    assert store.latest(said.append).step == 1
    assert len(said) == 1
    assert "step-00000002" in said[0]
    assert "continuing from" in said[0]
    assert "step-00000001" in said[0]
    assert store.steps() == [1]
    assert (tmp_path / "damaged-step-00000002").is_dir()
    shutil.rmtree(store.path(1) / "model.safetensors", ignore_errors=True)
    (store.path(1) / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="expected a good checkpoint, got 1 damaged") as caught:
        store.latest(said.append)
    assert caught.value.exit_code == 4


def test_a_checkpoint_of_another_run_or_under_another_name_is_refused_not_skipped(tmp_path):
    store, other = CheckpointStore(tmp_path / "one", "recipe 1"), CheckpointStore(tmp_path / "other", "recipe 2")
    store.save(make(1))
    other.save(make(2))
    shutil.copytree(other.path(2), store.path(2))
    for read in (lambda: store.latest(pytest.fail), lambda: store.read("last", pytest.fail)):
        with pytest.raises(CheckpointError, match="step-00000002: expected a checkpoint of this run, got one of a run"):
            read()
    shutil.rmtree(store.path(2))
    store.path(1).rename(store.path(3))
    for read in (lambda: store.latest(pytest.fail), lambda: store.read("last", pytest.fail)):
        with pytest.raises(CheckpointError, match="expected the checkpoint of step 3, got that of step 1 under"):
            read()


@pytest.mark.parametrize("key", ["format_version", "run", "step", "notes", "files"])
def test_a_manifest_without_a_key_is_refused(tmp_path, monkeypatch, key):
    original = format_module._manifest_text
    monkeypatch.setattr(
        format_module, "_manifest_text", lambda manifest: original({k: v for k, v in manifest.items() if k != key})
    )
    write_checkpoint(tmp_path / "step-00000001", make())
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=f"got none; use the version|a manifest without {key}"):
        read_checkpoint(tmp_path / "step-00000001")


def test_what_a_killed_process_left_is_removed(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(make(1))
    (tmp_path / ".tmp-step-00000002-4711").mkdir()
    store.clean()
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_generators_come_back_and_survive_a_checkpoint(tmp_path):
    import random

    import numpy as np

    def draw():
        return torch.rand(2).tolist(), random.random(), random.gauss(0, 1), np.random.normal()  # noqa: NPY002

    draw()
    with generators.preserved():
        write_checkpoint(tmp_path / "step-00000001", Checkpoint(1, {}, {"g": generators.capture()}, {}))
        expected = draw()
    assert draw() == expected
    generators.restore(read_checkpoint(tmp_path / "step-00000001").state["g"])
    assert draw() == expected
