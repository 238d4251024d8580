"""Run folders: the files of a run, and how to load its trained flow."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from snflow.errors import CheckpointError, ConfigError, DataError
from snflow.train.files import TEMPORARY, replace_file
from snflow.train.recipe import Recipe, read_text, read_yaml

if TYPE_CHECKING:
    from torch import Tensor

    from snflow.data.columns import Columns
    from snflow.data.dataset import Dataset
    from snflow.distributions.flow import Flow

_SUMMARIZED = {
    "recipe_sha256",
    "test_nll_nats",
    "test_bits_per_dim",
    "epochs",
    "train_seconds",
    "seconds_per_epoch_median",
}
"""What the table of results reads of a summary."""


class RunFolder:
    """``RUN/``: config.yaml, metrics.csv, layers.csv, checkpoints/, samples.png, curves.png, summary.json, .lock.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.csv"
        self.layers = path / "layers.csv"
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples.png"
        self.curves = path / "curves.png"
        self.summary = path / "summary.json"
        self._lock = FileLock(path / ".lock")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the folder, created if missing, from all other processes that would write to it; may be nested.

        The lock of a process that ends, however it ends, is free.

        Raises:
            ConfigError: another process holds the lock, or the folder is not writable.
        """
        holder = Path(self._lock.lock_file)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            holder.write_text(f"process {os.getpid()} on {platform.node()}\n", encoding="utf-8")
        except Timeout:
            name = ""
            with contextlib.suppress(OSError):
                name = holder.read_text(encoding="utf-8").strip()
            raise ConfigError(
                str(self.path),
                expected="a run folder that no other process writes to",
                got=f"one in use by {name or 'another process'}",
                fix="wait until it ends, or choose another --out",
            ) from None
        except OSError as error:
            raise self._not_writable(error) from error
        try:
            yield
        finally:
            self._lock.release()

    def recipe(self) -> Recipe:
        """Read the recipe of the run, with every option.

        Raises:
            ConfigError: the folder is not a run, or its config is damaged.
        """
        if not self.config.is_file():
            raise ConfigError(
                str(self.path), expected="the folder of a run", got="a folder without config.yaml", fix="check the path"
            )
        try:
            return Recipe.from_dict(read_yaml(read_text(self.config), str(self.config)), str(self.config))
        except ConfigError as error:
            advice = "a run of an earlier version of snflow can only be read by that version"
            fix = f"{error.fix}; {advice}" if error.fix else advice
            raise ConfigError(error.where, expected=error.expected, got=error.got, fix=fix) from None

    def holds(self, recipe: Recipe) -> bool:
        """Return whether the folder contains a run of the same recipe; ``False`` when it is new or empty.

        Raises:
            ConfigError: it contains something else.
        """
        if self.config.is_file():
            if self.recipe().digest() == recipe.digest():
                return True
            raise ConfigError(
                str(self.path),
                expected="a new folder, or a run of the same recipe",
                got="a run with another config",
                fix=f"continue that run with `snflow fit --resume {self.path}`, or choose another --out",
            )
        if self.path.exists() and (not self.path.is_dir() or any(map(self._is_foreign, self.path.iterdir()))):
            raise ConfigError(str(self.path), expected="a new folder", got="other files", fix="choose another --out")
        return False

    def write_config(self, recipe: Recipe) -> None:
        """Write the recipe with every option, atomically.

        Raises:
            ConfigError: the folder is not writable.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            replace_file(self.config, recipe.to_yaml().encode())
        except OSError as error:
            raise self._not_writable(error) from error

    def read_summary(self) -> dict[str, Any] | None:
        """Read the summary of a finished run; ``None`` if there is none.

        Raises:
            ConfigError: it is damaged.
        """
        if not self.summary.is_file():
            return None
        try:
            content = json.loads(self.summary.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict) or not content.keys() >= _SUMMARIZED:
            raise ConfigError(
                str(self.summary),
                expected="the summary as it was written",
                got="a damaged one",
                fix=f"delete it, then write it again with `snflow fit --resume {self.path}`",
            )
        return content

    def write_summary(self, content: dict[str, Any]) -> None:
        """Write the summary, atomically."""
        replace_file(self.summary, (json.dumps(content, indent=2) + "\n").encode())

    def finished(self, recipe: Recipe) -> dict[str, Any] | None:
        """Return the summary if a run of this recipe has written all of its files; ``None`` otherwise."""
        done = self.read_summary()
        whole = done is not None and done["recipe_sha256"] == recipe.digest()
        return done if whole and self.curves.is_file() and self.samples.is_file() else None

    def _is_foreign(self, path: Path) -> bool:
        """Return whether a path is none of those that a process leaves that is killed before it writes the config."""
        return path.name != Path(self._lock.lock_file).name and not path.name.startswith(TEMPORARY)

    def _not_writable(self, error: OSError) -> ConfigError:
        return ConfigError(
            str(self.path),
            expected="a writable folder",
            got=(error.strerror or str(error)).lower(),
            fix="choose another --out",
        )


@dataclass(frozen=True)
class TrainedRun:
    """A trained flow, and what its run knows."""

    folder: Path
    """The run folder."""
    flow: Flow
    """The flow, on the CPU and in eval mode."""
    recipe: Recipe
    """The recipe."""
    notes: dict[str, Any]
    """What the checkpoint notes, such as the columns of a table."""

    @property
    def columns(self) -> Columns | None:
        """The columns of the table on which the run was trained; ``None`` if its data were no table."""
        from snflow.train.data_notes import noted_columns

        return noted_columns(self.notes)

    @property
    def context_columns(self) -> list[str]:
        """The names of the columns on which the density is conditioned."""
        names: list[str] = self.notes["context_columns"]
        return names

    def context(self, given: Mapping[str, float] | None) -> Tensor | None:
        """The context with these values by column, ``(1, number of columns)``; ``None`` for an unconditional density.

        Raises:
            ConfigError: a value is missing, or there is no such column.
        """
        import torch

        names, values = self.context_columns, dict(given or {})
        if not names and given is not None:
            raise ConfigError("--context", expected="no such option: the run has no contexts", got=repr(values))
        if values.keys() != {*names}:
            raise ConfigError(
                "--context",
                expected=f"a value for {', '.join(names)}",
                got=", ".join(values) or "nothing",
                fix=f"write --context '{{{', '.join(f'{name}: 0.5' for name in names)}}}'",
            )
        return torch.tensor([[values[name] for name in names]], dtype=self.recipe.training.dtype) if names else None

    def load_dataset(self) -> Dataset:
        """Load the data of the run again.

        Raises:
            DataError: they are missing, damaged, or no longer those on which the run was trained.
        """
        from snflow.train.data_notes import check_same_data

        try:
            dataset = self.recipe.load_dataset()
        except DataError as error:
            fix = f"restore the data, which are described in {self.folder / 'config.yaml'}"
            raise DataError(error.where, expected=error.expected, got=error.got, fix=fix) from error
        check_same_data(str(self.folder), self.notes, dataset)
        return dataset


def load_flow(run: str | Path, which: str = "best", warn: Callable[[str], None] = warnings.warn) -> tuple[Flow, Recipe]:
    """Load the trained flow of a run, on the CPU and in eval mode, with its recipe. The data are not needed.

    Args:
        run: folder of the run.
        which: ``"best"`` by validation, ``"last"``, or the step of a checkpoint.
        warn: called with a warning if the best checkpoint is damaged and the last one is used instead.

    Returns:
        The :class:`~snflow.Flow`, with averaged weights if the run kept an average, and the recipe.

    Raises:
        ConfigError: the folder is not a run.
        CheckpointError: the checkpoint is missing or damaged, or belongs to a run with another recipe.
    """
    loaded = load_run(run, which, warn)
    return loaded.flow, loaded.recipe


def load_run(run: str | Path, which: str = "best", warn: Callable[[str], None] = warnings.warn) -> TrainedRun:
    """Load the trained flow of a run as :func:`load_flow`, with what the run knows of its data.

    Args:
        run: as for :func:`load_flow`, like the other arguments, errors and warnings.
        which: the checkpoint.
        warn: called with a warning.
    """
    import torch

    from snflow.train.checkpoints import CheckpointStore
    from snflow.train.data_notes import placeholder
    from snflow.train.evaluation import load_model

    folder = RunFolder(run)
    recipe = folder.recipe()
    checkpoint = CheckpointStore(folder.checkpoints, recipe.fingerprint()).read(which, warn)
    if not checkpoint.notes.keys() >= {"event_shape", "num_values", "context_shape", "context_columns"}:
        raise CheckpointError(
            str(folder.checkpoints), expected="a checkpoint of a run", got="one without the shape of its data"
        )
    # What a flow learns from its data before training is in the checkpoint's buffers.
    rows = placeholder(recipe.data["name"], checkpoint.notes, recipe.training.dtype)
    with torch.random.fork_rng(devices=[]):
        flow = recipe.build_flow(rows)
    load_model(flow, checkpoint, averaged=True)
    return TrainedRun(folder.path, flow.eval(), recipe, checkpoint.notes)


def move(flow: Any, device: str) -> None:
    """Move a flow to a torch device.

    Raises:
        ConfigError: torch does not know the device, or this machine does not have it.
    """
    import torch

    try:
        # Some devices hold tensors but not numbers, or fail only at first use.
        (torch.ones(1, device=device) + 1).item()
        flow.to(device)
    except (RuntimeError, AssertionError, ImportError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError("--device", expected="a device that this machine has", got=f"{device!r} ({reason})") from None
