"""A process that dies at any change to its run folder: the run that is resumed leaves the files of one that did not."""

import contextlib
import itertools
import os
import shutil
import sys

import pytest

from run_files import Canvas, contents, difference
from snflow.train.fit import fit
from snflow.train.recipe import Recipe

RECIPE = Recipe.from_dict(
    {
        "description": "one step per epoch",
        "data": {"name": "toy", "train": 8, "validation": 4, "test": 4},
        "flow": {"name": "nice", "layers": 1, "width": 2},
        "training": {"epochs": 2, "batch_size": 8, "threads": 1},
        "optimizer": {"learning_rate": 0.05},
        "device": {"accelerator": "cpu"},
    }
)
LONGER = RECIPE.replace({"training.epochs": 3})


class Killed(BaseException):
    """No handler of the library's catches it."""


class Killer:
    """Counts the changes to files below a folder, and dies at one of them: all later ones fail too.

    Args:
        folder: the run folder.
        torn: whether a file that is opened for writing at that moment gets a part of its content.
    """

    def __init__(self, folder, torn):
        self.folder, self.torn, self.fatal, self.armed = str(folder), torn, None, False
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if not self.armed or not self._is_change(event, arguments):
            return
        self.changes, self.event = self.changes + 1, event
        if self.fatal is None or self.changes < self.fatal:
            return
        if self.changes == self.fatal and event == "open" and self.torn:
            self.armed = False
            with open(arguments[0], "ab" if "a" in arguments[1] else "wb") as file:
                file.write(b"half a r")
            self.armed = True
        raise Killed

    def _is_change(self, event, arguments):
        if event == "open":
            path, _, flags = arguments
            # The lock is no part of the run, and the system frees it.
            return flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(self.folder) and ".lock" not in str(path)
        # Relative names are those of shutil.rmtree.
        return event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir") and (
            str(arguments[0]).startswith(self.folder) or not os.path.isabs(arguments[0])
        )

    @contextlib.contextmanager
    def at(self, fatal):
        """Die at this change in the block."""
        self.changes, self.fatal, self.armed = 0, fatal, True
        try:
            yield
        finally:
            self.armed = False


@pytest.fixture
def cheap(monkeypatch):
    """Pictures that cost nothing, and a disk that need not be waited for: a kill loses nothing that it was given."""
    from snflow.train import pictures

    monkeypatch.setattr(pictures, "FigureCanvasAgg", Canvas)
    for name in ("draw_curves", "draw_samples"):
        drawn = lambda path, *rest: pictures._save(None, path)  # noqa: E731
        monkeypatch.setattr(sys.modules["snflow.train.fit"], name, drawn)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def check_kills(folder, quiet, torn, first=1, stride=1):
    """Kill a run at its change ``first`` and at every ``stride``-th one after it, and compare what it is resumed to."""
    begun, whole, broken = folder / "begun", folder / "whole", folder / "broken"
    fit(RECIPE, begun, console=quiet)
    shutil.copytree(begun, whole)
    fit(LONGER, whole, resume=True, console=quiet)
    expected, killer, ended = contents(whole), Killer(broken, torn), False
    assert len(expected["metrics.csv"]) == 4
    for fatal in itertools.count(first, stride):
        shutil.copytree(begun, broken)
        with killer.at(fatal):
            try:
                fit(LONGER, broken, resume=True, console=quiet)
                ended = True
            except Killed:
                pass
        if ended or not torn or killer.event == "open":
            fit(LONGER, broken, resume=True, console=quiet)
            found = difference(contents(broken), expected)
            assert found is None, f"killed at change {fatal}, {killer.event}: the runs differ in {found}"
        shutil.rmtree(broken)
        if ended:
            break
    assert fatal > 30


@pytest.mark.parametrize("torn", [False, True], ids=["before it", "in it"])
def test_a_kill_at_a_change_is_resumed_to_the_same_files(tmp_path, quiet, cheap, torn):
    check_kills(tmp_path, quiet, torn, first=2, stride=3)


def test_a_kill_before_the_first_checkpoint_leaves_a_folder_in_which_the_run_can_begin(tmp_path, quiet, cheap):
    killer = Killer(tmp_path / "run", torn=True)
    for fatal in range(1, 8):
        with killer.at(fatal), pytest.raises(Killed):
            fit(RECIPE, tmp_path / "run", console=quiet)
        assert fit(RECIPE, tmp_path / "run", console=quiet).summary is not None
        shutil.rmtree(tmp_path / "run")
