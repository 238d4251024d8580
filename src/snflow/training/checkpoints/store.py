"""The checkpoints of a run: the last two and the best, and the way back to the newest good one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from snflow.errors import CheckpointError
from snflow.training.checkpoints.checkpoint import (
    REPLACED,
    TEMPORARY,
    Checkpoint,
    read_checkpoint,
    read_manifest,
    write_checkpoint,
)

_PREFIX = "step-"


class CheckpointStore:
    """``RUN/checkpoints/step-00000123/``: saves, keeps the last two and the best, finds the newest good one.

    Args:
        folder: the run's folder of checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, step: int) -> Path:
        """The folder of the checkpoint after ``step`` steps."""
        return self.folder / f"{_PREFIX}{step:08d}"

    def steps(self) -> list[int]:
        """The steps of the checkpoints that are there, the oldest first."""
        names = [p.name.removeprefix(_PREFIX) for p in self.folder.glob(f"{_PREFIX}*") if p.is_dir()]
        return sorted(int(name) for name in names if name.isdecimal())

    def ever_written(self) -> bool:
        """Whether there is a checkpoint, good or damaged."""
        return bool(self.steps()) or any(self.folder.glob("damaged-*"))

    def clean(self) -> None:
        """Remove what a killed process left unfinished, and put back what it had moved aside to replace it."""
        for aside in self.folder.glob(f"{REPLACED}*"):
            whole = self.folder / aside.name.removeprefix(REPLACED).rpartition("-")[0]
            if not whole.exists():
                aside.rename(whole)
        for stale in self.folder.glob(f"{TEMPORARY}*"):
            shutil.rmtree(stale, ignore_errors=True)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then delete those that are neither one of the last two nor the best known to one of them.

        The best known to the last but one stays too: it is needed when the last turns out to be damaged.

        Raises:
            CheckpointError: the disk refuses; the checkpoints before are intact.
        """
        write_checkpoint(self.path(checkpoint.step), checkpoint)
        steps = self.steps()
        kept = set(steps[-2:]) | {checkpoint.step}
        for step in tuple(kept):
            kept.add(self._best_known_to(step))
        for step in steps:
            if step not in kept:
                shutil.rmtree(self.path(step), ignore_errors=True)

    def latest(self, warn: Callable[[str], None]) -> Checkpoint:
        """The newest checkpoint that verifies; damaged ones are set aside, with a warning that names both.

        Raises:
            CheckpointError: none is good, or there is none.
        """
        damage: list[CheckpointError] = []
        for step in reversed(self.steps()):
            try:
                checkpoint = read_checkpoint(self.path(step))
            except CheckpointError as error:
                damage.append(error)
                continue
            for reason in damage:
                warn(f"{reason}; continuing from {self.path(step)} instead")
            for newer in self.steps():
                if newer > step:
                    aside = self.folder / f"damaged-{self.path(newer).name}"
                    shutil.rmtree(aside, ignore_errors=True)
                    self.path(newer).rename(aside)
            return checkpoint
        if damage:
            raise CheckpointError(
                str(self.folder),
                expected="one good checkpoint",
                got=f"{len(damage)} damaged ({damage[0]})",
                fix="start again with another --out",
            )
        raise CheckpointError(
            str(self.folder), expected="a checkpoint", got="none", fix="start the run with `snflow fit RECIPE`"
        )

    def read(self, which: str, warn: Callable[[str], None]) -> Checkpoint:
        """The ``"best"`` checkpoint by validation, the ``"last"``, or that of a step, without setting anything aside.

        Raises:
            CheckpointError: it is missing or damaged; the message offers the newest good one.
        """
        steps = self.steps()
        if not steps:
            raise CheckpointError(
                str(self.folder), expected="a checkpoint", got="none", fix="train the run with `snflow fit` first"
            )
        named = {"best": self._best_known_to(steps[-1]), "last": steps[-1]} | {str(step): step for step in steps}
        if which not in named:
            known = f"one of the checkpoints {', '.join(named)}"
            raise CheckpointError(str(self.folder), expected=known, got=which)
        try:
            return read_checkpoint(self.path(named[which]))
        except CheckpointError as error:
            if which == "best" and named["best"] != named["last"]:
                warn(f"{error}; using the last checkpoint instead of the best")
                return self.read("last", warn)
            raise CheckpointError(
                error.where, expected=error.expected, got=error.got, fix=self._offer(named[which])
            ) from error

    def _offer(self, damaged: int) -> str:
        """What to do about a damaged checkpoint: take the newest good one."""
        for step in reversed(self.steps()):
            if step == damaged:
                continue
            try:
                read_checkpoint(self.path(step))
            except CheckpointError:
                continue
            return f"it is damaged, the newest good one is that of step {step}: give --checkpoint {step}"
        return "it is damaged and no other checkpoint is good: train the run again"

    def _best_known_to(self, step: int) -> int:
        """The step of the best checkpoint when this one was written; itself when there is no saying."""
        try:
            best = read_manifest(self.path(step))["notes"].get("best_step")
        except CheckpointError:
            return step
        return step if best is None else int(best)
