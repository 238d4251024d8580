"""A process that dies while it saves: at every single call to the disk, a whole checkpoint is left to go on with."""

import shutil
from pathlib import Path

import pytest
import torch

from snflow.train import checkpoints as format_module
from snflow.train.checkpoints import Checkpoint, CheckpointStore


class Killed(BaseException):
    """No exception handler of the library's sees it: what comes next does not happen."""


def make(step, value):
    model = {"weight": torch.full((3,), float(value))}
    return Checkpoint(step, model, {"tally": value}, {"best_step": step, "epochs": step})


def dying_at(patch, fatal):
    """Let the ``fatal``-th call that changes the disk do half of its work, and then no more."""
    calls = []

    def deadly(original, half):
        def call(*args, **kwargs):
            calls.append(original)
            if len(calls) == fatal:
                half(*args)
                raise Killed
            if len(calls) > fatal:
                raise Killed
            return original(*args, **kwargs)

        return call

    def write_half(path, content):
        path.write_bytes(content[: len(content) // 2])

    def remove_half(folder, **_):
        for path in sorted(Path(folder).glob("*"))[:1]:
            path.unlink()

    def nothing(*_):
        """The call did not come through."""

    patch.setattr(format_module, "write_synced", deadly(format_module.write_synced, write_half))
    patch.setattr(format_module, "sync_folder", deadly(format_module.sync_folder, nothing))
    patch.setattr(Path, "rename", deadly(Path.rename, nothing))
    patch.setattr(Path, "mkdir", deadly(Path.mkdir, nothing))
    patch.setattr(shutil, "rmtree", deadly(shutil.rmtree, remove_half))
    return calls


@pytest.mark.parametrize(
    ("before", "new"),
    [((), 1), ((1,), 2), ((1, 2), 3), ((1, 2, 3), 4), ((1,), 1), ((1, 2), 2), ((1, 2, 3), 3)],
    ids=["first", "second", "third", "one to delete", "the only one again", "the last again", "again with three"],
)
def test_a_kill_at_any_call_leaves_the_old_or_the_new_one(tmp_path, before, new):
    fatal, survived = 0, False
    while not survived:
        fatal += 1
        folder = tmp_path / str(fatal)
        store = CheckpointStore(folder)
        for step in before:
            store.save(make(step, 10 * step))
        with pytest.MonkeyPatch.context() as patch:
            dying_at(patch, fatal)
            try:
                store.save(make(new, 1000))
                survived = True
            except Killed:
                pass
        again = CheckpointStore(folder)
        again.clean()
        left = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        assert not [name for name in left if name.startswith(".tmp")]
        if not before and not again.ever_written():
            continue
        warnings = []
        found = again.latest(warnings.append)
        old = (before[-1], 10 * before[-1]) if before else None
        assert (found.step, found.state["tally"]) in ((new, 1000), old)
        assert not warnings
        assert torch.equal(found.model["weight"], torch.full((3,), float(found.state["tally"])))
        # The run goes on from there.
        again.save(make(new + 1, 5))
        assert again.latest(warnings.append).step == new + 1
    assert fatal > 5
