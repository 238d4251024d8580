"""Fit a recipe's flow into a run folder: data, flow, training, exact test likelihood, pictures, summary."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console

import snflow
from snflow.data.dataset import Dataset
from snflow.distributions.flow import Flow, bits_per_dim
from snflow.train import generators
from snflow.train.checkpoints import CheckpointStore
from snflow.train.data_notes import check_same_data
from snflow.train.evaluation import estimated_nll, load_model
from snflow.train.loop import Outcome, TrainingLoop
from snflow.train.metrics import LayerRow, MetricsFile
from snflow.train.pictures import draw_curves, draw_samples
from snflow.train.processes import check_threads, launched
from snflow.train.progress import SilentReporter, reporter_for, terminal
from snflow.train.recipe import Recipe
from snflow.train.run_folder import RunFolder

_PICTURE_SHARE, _PICTURE_SECONDS = 0.1, 10.0
"""Sampling for the picture at the end of a run takes at most this share of its training time, or these seconds."""


@dataclass(frozen=True)
class FitResult:
    """Result of :func:`fit`."""

    folder: Path
    """The run folder."""
    summary: dict[str, Any] | None
    """Content of summary.json; ``None`` if a signal ended the run, or on processes other than the first."""
    signal: int | None = None
    """Number of the signal that ended the run after writing a checkpoint."""


def fit(
    recipe: Recipe, out: str | Path, *, resume: bool = False, command: str = "", console: Console | None = None
) -> FitResult:
    """Train the recipe's flow on its data in the run folder ``out``, or continue a stopped run.

    If the folder contains a run of the same recipe, that run is continued, or reported if it is finished. Random number
    generators and the number of threads are restored after the call.

    Args:
        recipe: the recipe.
        out: run folder, created if missing.
        resume: whether ``out`` must contain a run, which is continued with this recipe, possibly for more epochs.
        command: command line of the run, kept in the summary.
        console: where to show progress; standard output if ``None``.

    Returns:
        The folder and the summary.

    Raises:
        ConfigError, DataError: the recipe, the folder or the data are invalid, or another process writes to the folder.
        DivergenceError: training produced a non-finite value.
        CheckpointError: there is no good checkpoint, it belongs to another run, or the disk is full.
        ProcessError: another process of a run on several devices was lost.
    """
    console = console or terminal()
    with launched(recipe.device, recipe.training.precision) as fabric, _process_state(recipe), ExitStack() as held:
        folder, first = RunFolder(out), fabric.is_global_zero
        store = CheckpointStore(folder.checkpoints, recipe.fingerprint())
        say = _speaker(console) if first else _say_nothing
        continuing = resume or folder.holds(recipe)
        rule = recipe.flow.get("log_det_rule")
        say(f"{recipe.flow['name']} flow{f' ({rule})' if rule else ''} on {recipe.data['name']}, into {out}")
        done = folder.finished(recipe) if continuing else None
        if done is not None:
            say(f"{out} contains a finished run of this recipe; delete the folder to train again.")
            return FitResult(folder.path, done)
        if first and folder.path.is_dir():
            held.enter_context(folder.locked())
        dataset = recipe.load_dataset()
        generators.seed(recipe.training.seed)
        flow = recipe.build_flow(dataset)
        generators.seed(recipe.training.seed + fabric.global_rank)
        reporter = reporter_for(console) if first else SilentReporter()
        files = MetricsFile(folder.metrics), MetricsFile(folder.layers, LayerRow)
        loop = TrainingLoop(fabric, flow, dataset, recipe, store, *files, reporter)
        # Nothing is written before this point, where all checks of the recipe have passed.
        checkpoint = None
        with _first_process_first(fabric):
            if first:
                held.enter_context(folder.locked())
                if not resume:
                    folder.holds(recipe)  # another process may have begun a run before the folder was locked
                store.clean()
            if store.ever_written():
                checkpoint = store.latest(say)
                check_same_data(str(folder.path), checkpoint.notes, dataset)
                say(f"continuing {out} at epoch {checkpoint.notes['epochs'] + 1}, step {checkpoint.step + 1}")
            if first:
                folder.write_config(recipe)
        outcome = loop.run(checkpoint)
        if outcome.signal is not None:
            say(f"stopped by a signal after writing a checkpoint; continue with: snflow fit --resume {out}")
        if outcome.signal is not None or not first:
            return FitResult(folder.path, None, outcome.signal)
        summary = _conclude(recipe, folder, store, flow, dataset, outcome, command, say)
        return FitResult(folder.path, summary)


@contextmanager
def _first_process_first(fabric: Fabric) -> Iterator[None]:
    """Run the block in the first process before the others, which may read what it writes."""
    fabric.barrier()
    if not fabric.is_global_zero:
        fabric.barrier()
    yield
    if fabric.is_global_zero:
        fabric.barrier()


def _conclude(
    recipe: Recipe,
    folder: RunFolder,
    store: CheckpointStore,
    flow: Flow,
    dataset: Dataset,
    outcome: Outcome,
    command: str,
    say: Any,
) -> dict[str, Any]:
    """Compute the test likelihood of the best checkpoint; write summary and pictures."""
    options, tally = recipe.training, outcome.tally
    best = store.read("best", say)
    load_model(flow, best, averaged=True)
    flow.eval()
    began = time.perf_counter()
    rows, context = dataset.split("test")
    nll, error = estimated_nll(flow, rows, options.eval_batch_size, options.seed, context)
    seconds = tally.seconds_by_epoch
    summary: dict[str, Any] = {
        "command": command,
        "recipe": recipe.description,
        "recipe_sha256": recipe.digest(),
        "data": recipe.data["name"],
        "flow": recipe.flow["name"],
        "parameters": sum(p.numel() for p in flow.parameters()),
        "seed": options.seed,
        "epochs": tally.epochs,
        "steps": tally.step,
        "stopped_early": tally.stopped_early,
        "best_step": best.step,
        "validation_nll_nats": tally.best_nll,
        "test_nll_nats": nll,
        "test_nll_standard_error": error,
        "test_bits_per_dim": None if dataset.num_values is None else bits_per_dim(nll, math.prod(dataset.event_shape)),
        "test_rows": len(rows),
        "data_sha256": dataset.fingerprint,
        "train_seconds": sum(seconds),
        "seconds_per_epoch_median": statistics.median(seconds) if seconds else 0.0,
        "test_seconds": time.perf_counter() - began,
        "device": str(flow.base.device),
        "threads": torch.get_num_threads(),
        "versions": {
            "snflow": snflow.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": ".".join(map(str, sys.version_info[:3])),
        },
    }
    # The numbers are written first, so that a failing picture cannot lose them. Pictures of fewer epochs are removed
    # before: a run that is killed here is complete only with its own.
    for picture in (folder.curves, folder.samples):
        picture.unlink(missing_ok=True)
    folder.write_summary(summary)
    try:
        draw_curves(folder.curves, MetricsFile(folder.metrics).read())
        budget = max(_PICTURE_SECONDS, _PICTURE_SHARE * sum(seconds))
        draw_samples(folder.samples, flow, rows, options.seed, budget, say, context)
    except Exception as error:
        say(f"warning: a picture could not be drawn: {type(error).__name__}: {error}")
    return summary


@contextmanager
def _process_state(recipe: Recipe) -> Iterator[None]:
    """Restore the generators and the number of threads after a run."""
    check_threads(recipe.training.threads)
    threads = torch.get_num_threads()
    with generators.preserved():
        try:
            if recipe.training.threads is not None:
                torch.set_num_threads(recipe.training.threads)
            yield
        finally:
            torch.set_num_threads(threads)


def _speaker(console: Console) -> Any:
    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    return say


def _say_nothing(text: str) -> None:
    """Print nothing; used in all processes except the first."""
