"""Checkpoints: always intact on disk, and verified when read."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from snflow.errors import CheckpointError
from snflow.train.files import TEMPORARY, sync_folder, write_synced

FORMAT_VERSION = 4
"""Version of the file format, which includes the names and the meaning of the tensors."""

_DAMAGED = "the checkpoint is damaged: use another"

_MODEL, _STATE, _MANIFEST = "model.safetensors", "state.pt", "manifest.json"
_KEYS = {"run", "step", "notes", "files"}


@dataclass(frozen=True)
class Checkpoint:
    """(step, model, state, notes): everything needed to continue a run as if it had not been interrupted.

    Attributes:
        step: number of optimizer steps taken.
        model: weights and buffers by name, of any shapes.
        state: optimizer, generators, position in the data, averages; plain values and tensors only.
        notes: plain values that can be read without loading the rest, such as the epoch and the best step.
    """

    step: int
    model: dict[str, Tensor]
    state: dict[str, Any]
    notes: dict[str, Any]


def write_checkpoint(path: Path, checkpoint: Checkpoint, run: str = "") -> None:
    """Write a checkpoint to the folder ``path``: write a temporary folder, sync it to disk, then rename it.

    Args:
        path: the folder of the checkpoint.
        checkpoint: what to write.
        run: fingerprint of the run's recipe.

    Raises:
        CheckpointError: the disk is full or not writable; a previous checkpoint at ``path`` is intact.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    files = {_MODEL: _model_bytes(checkpoint.model), _STATE: _state_bytes(checkpoint.state)}
    files[_MANIFEST] = _manifest_text(
        {
            "format_version": FORMAT_VERSION,
            "snflow": version("snflow"),
            "torch": torch.__version__,
            "run": run,
            "step": checkpoint.step,
            "notes": checkpoint.notes,
            "files": {
                name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for name, content in files.items()
            },
        }
    ).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, content in files.items():
            write_synced(temporary / name, content)
        sync_folder(temporary)
        replaced = path.with_name(f"{REPLACED}{path.name}-{os.getpid()}")
        if path.exists():
            path.rename(replaced)
        temporary.rename(path)
        sync_folder(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        need = sum(map(len, files.values())) / 2**20
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(path.parent).free / 2**20
            need_and_free = f"{need:.1f} MiB needed, {free:.1f} MiB free"
            raise CheckpointError(
                str(path),
                expected="enough disk space for the checkpoint",
                got=f"{(error.strerror or str(error)).lower()} ({need_and_free})",
                fix="free some space, then continue with --resume; the previous checkpoint is intact",
            ) from error
        raise CheckpointError(str(path), expected="a writable folder", got=str(error)) from error


REPLACED = f"{TEMPORARY}replaced-"
"""Prefix of the name of a complete folder that is being replaced by another of the same step."""


def read_manifest(path: Path) -> dict[str, Any]:
    """Read and verify the manifest of the checkpoint at ``path``.

    Raises:
        CheckpointError: it is missing, damaged, or has another format version.
    """
    text = _read(path, _MANIFEST)
    try:
        manifest = json.loads(text)
        genuine = _manifest_text({k: v for k, v in manifest.items() if k != "checksum"}).encode() == text
    except (ValueError, AttributeError):
        genuine = False
    if not genuine:
        raise _damaged(path, _MANIFEST, "a manifest with a wrong checksum")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            str(path),
            expected=f"checkpoint format {FORMAT_VERSION}",
            got=str(manifest.get("format_version", "none")),
            fix=f"use the version of snflow that wrote it ({manifest.get('snflow', 'unknown')}), or train again",
        )
    missing = _KEYS - manifest.keys()
    if missing:
        raise _damaged(path, _MANIFEST, f"a manifest without {', '.join(sorted(missing))}")
    return manifest  # type: ignore[no-any-return]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify the checkpoint at ``path``, into CPU memory.

    The bytes that are hashed are those that are loaded, and pickles are loaded weights-only.

    Raises:
        CheckpointError: it is missing, damaged, or contains more than tensors and plain values.
    """
    manifest = read_manifest(path)
    contents: dict[str, bytes] = {}
    for name in (_MODEL, _STATE):
        content = contents[name] = _read(path, name)
        expected = manifest["files"][name]
        if len(content) != expected["bytes"]:
            raise _damaged(path, name, f"{len(content)} bytes instead of {expected['bytes']}")
        if hashlib.sha256(content).hexdigest() != expected["sha256"]:
            raise _damaged(path, name, "a SHA-256 that differs from the manifest's")
    try:
        model = safetensors.torch.load(contents[_MODEL])
        state = torch.load(io.BytesIO(contents[_STATE]), map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            str(path),
            expected="tensors and plain values",
            got=f"something else ({reason})",
            fix="use only checkpoints that you wrote yourself",
        ) from None
    return Checkpoint(manifest["step"], model, state, manifest["notes"])


def _model_bytes(model: dict[str, Tensor]) -> bytes:
    # safetensors accepts neither shared nor strided tensors.
    return safetensors.torch.save({name: t.detach().cpu().clone().contiguous() for name, t in model.items()})


def _state_bytes(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _manifest_text(manifest: dict[str, Any]) -> str:
    """Return the canonical text of a manifest with its checksum; a file that differs from it is damaged."""
    checksum = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return json.dumps({**manifest, "checksum": checksum}, sort_keys=True, indent=2) + "\n"


def _read(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except OSError as error:
        raise _damaged(path, name, (error.strerror or str(error)).lower()) from None


def _damaged(path: Path, name: str, got: str) -> CheckpointError:
    return CheckpointError(str(path / name), expected="the file as it was written", got=got, fix=_DAMAGED)


class Store(Protocol):
    """Keeps checkpoints."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint."""

    def last_good(self) -> str:
        """Describe the last good checkpoint, for an error message."""


class MemoryStore:
    """The last and the best checkpoint, in memory.

    Attributes:
        last: the last one that was saved.
        best: the one with the best validation.
    """

    def __init__(self) -> None:
        self.last: Checkpoint | None = None
        self.best: Checkpoint | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a copy of a checkpoint's weights, without the state of the optimizer."""
        model = {name: tensor.detach().clone() for name, tensor in checkpoint.model.items()}
        average = copy.deepcopy(checkpoint.state["average"])
        self.last = Checkpoint(checkpoint.step, model, {"average": average}, checkpoint.notes)
        if self.best is None or checkpoint.notes["best_step"] == checkpoint.step:
            self.best = self.last

    def last_good(self) -> str:
        """Describe the last one."""
        return "the flow has its last good weights" if self.last is not None else "the flow has its initial weights"


_PREFIX = "step-"


class CheckpointStore:
    """``RUN/checkpoints/step-00000123/``: keeps the last two checkpoints and the best; finds the newest good one.

    Args:
        folder: folder with the run's checkpoints.
        run: fingerprint of the run's recipe, written into every checkpoint; those of another run are refused.
    """

    def __init__(self, folder: Path, run: str = "") -> None:
        self.folder, self.run = folder, run

    def path(self, step: int) -> Path:
        """Return the folder of the checkpoint after ``step`` steps."""
        return self.folder / f"{_PREFIX}{step:08d}"

    def steps(self) -> list[int]:
        """Return the steps of the existing checkpoints, oldest first."""
        names = [p.name.removeprefix(_PREFIX) for p in self.folder.glob(f"{_PREFIX}*") if p.is_dir()]
        return sorted(int(name) for name in names if name.isdecimal())

    def last_good(self) -> str:
        """Describe the last good checkpoint, for an error message."""
        steps = self.steps()
        return f"the last good checkpoint is {self.path(steps[-1])}" if steps else "there is no checkpoint yet"

    def ever_written(self) -> bool:
        """Return whether any checkpoint exists, good or damaged."""
        return bool(self.steps()) or any(self.folder.glob("damaged-*"))

    def clean(self) -> None:
        """Complete what a killed process left: restore what it was replacing, remove what it was writing or deleting.

        Call it only while no other process writes.
        """
        for aside in self.folder.glob(f"{REPLACED}*"):
            whole = self.folder / aside.name.removeprefix(REPLACED).rpartition("-")[0]
            if not whole.exists():
                aside.rename(whole)
        for stale in self.folder.glob(f"{TEMPORARY}*"):
            shutil.rmtree(stale, ignore_errors=True)
        self._delete_old()

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then delete all but the last two and the best recorded in each of them.

        The best recorded in the previous one is kept too, in case the last one is damaged.

        Raises:
            CheckpointError: the disk is full or not writable; earlier checkpoints are intact.
        """
        write_checkpoint(self.path(checkpoint.step), checkpoint, self.run)
        self._delete_old(checkpoint.step)

    def _delete_old(self, *written: int) -> None:
        steps = self.steps()
        kept = {*steps[-2:], *written}
        for step in tuple(kept):
            kept.add(self._best_known_to(step))
        for step in steps:
            if step not in kept:
                # Renamed first, so that a process that is killed while deleting leaves no half checkpoint.
                deleted = self.folder / f"{TEMPORARY}deleted-{self.path(step).name}-{os.getpid()}"
                with contextlib.suppress(OSError):
                    self.path(step).rename(deleted)
                shutil.rmtree(deleted, ignore_errors=True)

    def latest(self, warn: Callable[[str], None]) -> Checkpoint:
        """Read the newest good checkpoint; move newer, damaged ones aside, with a warning.

        Raises:
            CheckpointError: there is no good checkpoint, or the newest one belongs to another run.
        """
        damage: list[CheckpointError] = []
        for step in reversed(self.steps()):
            try:
                checkpoint = self._read(step)
            except CheckpointError as error:
                if error.fix != _DAMAGED:
                    raise
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
                expected="a good checkpoint",
                got=f"{len(damage)} damaged ({damage[0]})",
                fix="start again with another --out",
            )
        raise CheckpointError(
            str(self.folder), expected="a checkpoint", got="none", fix="start the run with `snflow fit RECIPE`"
        )

    def read(self, which: str, warn: Callable[[str], None]) -> Checkpoint:
        """Read the ``"best"`` checkpoint by validation, the ``"last"``, or that of a step; move nothing.

        Raises:
            CheckpointError: it is missing, damaged or of another run; the message names the newest good one.
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
            return self._read(named[which])
        except CheckpointError as error:
            if error.fix != _DAMAGED:
                raise
            if which == "best" and named["best"] != named["last"]:
                warn(f"{error}; using the last checkpoint instead of the best")
                return self.read("last", warn)
            raise CheckpointError(
                error.where, expected=error.expected, got=error.got, fix=self._offer(named[which])
            ) from error

    def _read(self, step: int) -> Checkpoint:
        """Read the checkpoint of a step.

        Raises:
            CheckpointError: it is missing or damaged, or belongs to another run or step.
        """
        path = self.path(step)
        manifest = read_manifest(path)
        if self.run and manifest["run"] != self.run:
            raise CheckpointError(
                str(path),
                expected="a checkpoint of this run",
                got="one of a run with another recipe or seed",
                fix="restore the run's own checkpoint and config.yaml, or start again with another --out",
            )
        if manifest["step"] != step:
            raise CheckpointError(
                str(path),
                expected=f"the checkpoint of step {step}",
                got=f"that of step {manifest['step']} under another name",
                fix=f"rename it to {self.path(int(manifest['step'])).name}",
            )
        return read_checkpoint(path)

    def _offer(self, damaged: int) -> str:
        """Return advice about a damaged checkpoint: use the newest good one."""
        for step in reversed(self.steps()):
            if step == damaged:
                continue
            try:
                self._read(step)
            except CheckpointError:
                continue
            return f"it is damaged; use the newest good one, that of step {step}, with --checkpoint {step}"
        return "it is damaged, and there is no good checkpoint: train the run again"

    def _best_known_to(self, step: int) -> int:
        """Return the step of the best checkpoint when this one was written, or this step if unknown."""
        try:
            best = read_manifest(self.path(step))["notes"].get("best_step")
        except CheckpointError:
            return step
        return step if best is None else int(best)
