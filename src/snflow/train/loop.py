"""The training loop."""

from __future__ import annotations

import math
import signal
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from types import FrameType, TracebackType
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch import distributed as dist

from snflow.data.batches import Augmentation, Batch, Batches, BatchSource
from snflow.data.dataset import Dataset
from snflow.distributions.flow import Flow, bits_per_dim
from snflow.errors import CheckpointError, ConfigError, NotInvertibleError
from snflow.selfnorm.diagnostics import gradient_angles, layer_diagnostics
from snflow.train import generators
from snflow.train.checkpoints import Checkpoint, Store
from snflow.train.data_notes import data_notes
from snflow.train.evaluation import estimated_nll, in_dtype_of, load_model, near
from snflow.train.metrics import EpochRow, LayerRow, Metrics
from snflow.train.optimizer import MovingAverage, learning_rate
from snflow.train.options import Options
from snflow.train.progress import Reporter
from snflow.train.recorded_steps import OptimizerBuilder, matmul_precision, portable, set_up
from snflow.train.steps import DivergenceCheck, StepRequest, StepResult


class StopRequest:
    """Catches SIGTERM and SIGINT within a block: ``received`` is the number of the signal, or ``None``.

    Outside the main thread, where Python cannot handle signals, it does nothing.

    Example:
        >>> with StopRequest() as stop:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     stop.received == signal.SIGTERM
        True
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the previous handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number


@dataclass
class Epoch:
    """Running sums of the current epoch."""

    steps: int = 0
    """Number of finite steps."""
    skipped: int = 0
    """Number of skipped steps."""
    objective: float = 0.0
    """Sum of the objectives in nats."""
    gradient_norm: float = 0.0
    """Sum of the gradient norms."""
    seconds: float = 0.0
    """Wall-clock time of the steps."""
    slowest_step: float = 0.0
    """Wall-clock time of the slowest step."""
    reconstruction_errors: dict[str, float] | None = None
    """Reconstruction errors of the layers at the last checkpoint, for a run that is resumed at the end of an epoch."""

    def mean(self, total: float) -> float | None:
        """Return a sum divided by the number of steps; ``None`` without steps."""
        return total / self.steps if self.steps else None


@dataclass
class Tally:
    """Progress of a run: with the model, the optimizer and the generators, its complete state."""

    epochs: int = 0
    """Number of finished epochs."""
    batch: int = 0
    """Number of batches of the current epoch that are done."""
    step: int = 0
    """Number of optimizer steps, including skipped ones."""
    skips_in_a_row: int = 0
    """Number of steps skipped since the last finite one."""
    best_step: int | None = None
    """Step of the best validation so far."""
    best_nll: float = math.inf
    """NLL of the best validation so far, in nats."""
    validations_without_gain: int = 0
    """Number of validations since the best one."""
    plateaus: int = 0
    """Number of decays of the learning rate by the schedule plateau."""
    stopped_early: bool = False
    """Whether early stopping ended the run."""
    seconds_by_epoch: list[float] = field(default_factory=list)
    """Wall-clock time of the steps of each finished epoch."""
    repairs: dict[str, int] = field(default_factory=dict)
    """Repairs of each layer's inverse up to the last row of metrics."""
    epoch: Epoch = field(default_factory=Epoch)
    """Sums of the current epoch."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Tally:
        """Rebuild the tally from :meth:`to_dict`."""
        return cls(**{**state, "epoch": Epoch(**state["epoch"])})

    def judge(self, nll: float, patience: int | None) -> bool:
        """Record a validation NLL in nats, and return whether it is the best so far.

        Example:
            >>> tally = Tally(step=3)
            >>> tally.judge(2.0, patience=1), tally.judge(2.5, patience=1), tally.stopped_early
            (True, False, True)
        """
        if nll < self.best_nll or self.best_step is None:
            self.best_step, self.best_nll, self.validations_without_gain = self.step, nll, 0
            return True
        self.validations_without_gain += 1
        self.stopped_early = patience is not None and self.validations_without_gain >= patience
        return False


@dataclass(frozen=True)
class Outcome:
    """How training ended."""

    tally: Tally
    """Final progress."""
    signal: int | None
    """Number of the signal that ended training; ``None`` if the recipe was completed."""


class TrainingLoop:
    """θ ← Adam(∂/∂θ mean(−flow(x))), epoch by epoch, with an exact validation after each.

    Args:
        fabric: a launched Fabric; every process runs its own loop.
        flow: the flow, trained in place.
        dataset: training and validation data.
        options: all options, as a recipe has them.
        store: store of the checkpoints.
        metrics: receives one row per epoch.
        layers: receives one row per epoch and self-normalizing layer.
        reporter: shows progress.
        build_optimizer: makes another optimizer than Adam or AdamW.
        batches: batches of training data; by default those of the dataset's rows.

    Raises:
        ConfigError: the batch size is not a multiple of the number of devices, or exceeds the data.
    """

    def __init__(
        self,
        fabric: Fabric,
        flow: Flow,
        dataset: Dataset,
        options: Options,
        store: Store,
        metrics: Metrics,
        layers: Metrics,
        reporter: Reporter,
        build_optimizer: OptimizerBuilder | None = None,
        batches: BatchSource | None = None,
    ) -> None:
        self._fabric, self._flow, self._dataset, self._options = fabric, flow, dataset, options
        self._store, self._metrics, self._layers, self._reporter = store, metrics, layers, reporter
        training = options.training
        if training.batch_size % fabric.world_size:
            raise ConfigError(
                "training.batch_size",
                expected=f"a multiple of {fabric.world_size}, the number of devices",
                got=str(training.batch_size),
            )
        dataset.check_precision(training.dtype)
        flow.to(fabric.device, training.dtype)
        self._batches = batches or self._rows_in_memory()
        self._average = None if training.ema_decay is None else MovingAverage(flow, training.ema_decay)
        self._check = DivergenceCheck(flow, training, options.optimizer)
        self._model, self._optimizer, self._steps = set_up(
            fabric, flow, options, self._average, self._check, self._agreed, store.last_good, build_optimizer
        )
        self._finite = _finite_tensors(flow)
        self._tally = Tally()
        self._saved_at = time.monotonic()

    def _rows_in_memory(self) -> Batches:
        training = self._options.training
        rows, context = (
            None if values is None else near(in_dtype_of(self._flow, values), self._fabric.device)
            for values in self._dataset.split("train")
        )
        return Batches(
            cast(Tensor, rows),
            training.batch_size,
            context=context,
            seed=training.seed,
            augmentation=Augmentation(training.flip, training.jitter),
        )

    def run(self, resume: Checkpoint | None = None) -> Outcome:
        """Train until the recipe is completed, from scratch or from a checkpoint.

        Args:
            resume: checkpoint to continue from; ``None`` to start from scratch.

        Returns:
            Whether training was completed, stopped early, or ended by a signal after writing a checkpoint.

        Raises:
            DivergenceError: training produced a non-finite value; the weights are the last finite ones.
            CheckpointError: the checkpoint belongs to another model, or the disk is full.
        """
        if resume is not None:
            self._load(resume)
        tally, epochs, steps = self._tally, self._options.training.epochs, self._batches.steps_per_epoch
        if self._fabric.is_global_zero:
            for file in (self._metrics, self._layers):
                file.start(None if resume is None else tally.epochs)
        self._reporter.start(tally.step, epochs * steps, epochs)
        try:
            with StopRequest() as stop:
                if resume is None:
                    self._finish_epoch()
                while tally.epochs < epochs and not tally.stopped_early:
                    if self._run_epoch(stop):
                        self._save()
                        return Outcome(tally, self._signal(stop))
                    tally.epochs, tally.batch = tally.epochs + 1, 0
                    self._finish_epoch()
            return Outcome(tally, None)
        except NotInvertibleError as error:
            raise self._diverged(str(error)) from error
        finally:
            self._reporter.close()

    def _run_epoch(self, stop: StopRequest) -> bool:
        """Train on the remaining batches of the epoch, and return whether a signal asked to stop."""
        tally, steps = self._tally, self._batches.steps_per_epoch
        every = self._options.training.checkpoint_every_steps
        rank, world = self._fabric.global_rank, self._fabric.world_size
        self._model.train()
        with matmul_precision(self._options.device.matmul):
            began = time.perf_counter()
            for batch in self._batches.epoch(tally.epochs, tally.batch):
                rows, context = (None if v is None else v[rank::world].to(self._fabric.device) for v in batch)
                taken = self._take((cast(Tensor, rows), context), stop, every)
                if taken is None:
                    continue
                now = time.perf_counter()
                self._note(taken, now - began)
                if taken.stop:
                    return True
                if tally.batch < steps and (taken.due or (every and tally.step % every == 0)):
                    self._save()
                began = time.perf_counter()
        return False

    def _take(self, batch: Batch, stop: StopRequest, every: int) -> StepResult | None:
        """Take one optimizer step, and return the results that are known so far."""
        tally = self._tally
        ends = tally.batch + 1 == self._batches.steps_per_epoch
        asked = StepRequest(
            rate=self._learning_rate(tally.step),
            number=tally.step + 1,
            stop=lambda: stop.received is not None,
            due=self._minutes_are_over,
            report=ends or (every > 0 and (tally.step + 1) % every == 0),
        )
        taken = self._steps.take(batch, asked)
        tally.batch += 1
        tally.step += 1
        return taken

    def _note(self, taken: StepResult, seconds: float) -> None:
        """Add the results of some steps to those of the epoch."""
        running, steps = self._tally.epoch, taken.steps + taken.skipped
        running.reconstruction_errors = None
        running.steps += taken.steps
        running.skipped += taken.skipped
        running.objective += taken.objective
        running.gradient_norm += taken.gradient_norm
        running.seconds += seconds
        running.slowest_step = max(running.slowest_step, seconds / steps)
        self._reporter.step(self._tally.epochs + 1, taken.last, steps)

    def _finish_epoch(self) -> None:
        """Validate, write a row of metrics and save a checkpoint; also before training, as epoch 0."""
        options, tally, running = self._options.training, self._tally, self._tally.epoch
        began = time.perf_counter()
        last = tally.epochs >= options.epochs
        rate = self._learning_rate(tally.step - 1) if tally.step else None
        nll, error, improved, rise = None, None, False, 0.0
        if last or tally.epochs % options.validate_every == 0:
            nll, error = self._validate()
            improved = tally.judge(nll, options.patience)
            without_gain = tally.validations_without_gain
            tally.plateaus += without_gain > 0 and without_gain % self._options.schedule.decay_epochs == 0
            rise = (nll - tally.best_nll) / math.prod(self._dataset.event_shape)
            self._reporter.validated(tally.epochs, nll, error)
        layers = self._layer_rows()
        residuals = {r.layer: r.inverse_residual for r in layers if r.inverse_residual is not None}
        row = EpochRow(
            epoch=tally.epochs,
            step=tally.step,
            learning_rate=rate,
            objective=running.mean(running.objective),
            validation_nll=nll,
            validation_bits_per_dim=None if nll is None else self._bits(nll),
            validation_nll_error=error,
            reconstruction_error=max((r.reconstruction_error for r in layers), default=None) if tally.epochs else None,
            inverse_residual=max(residuals.values(), default=None),
            penalty_weight=max((r.penalty_weight for r in layers), default=None),
            repairs=sum(r.repairs for r in layers) if layers else None,
            gradient_norm=running.mean(running.gradient_norm),
            skipped=running.skipped,
            train_seconds=running.seconds,
            slowest_step_seconds=running.slowest_step,
            evaluation_seconds=time.perf_counter() - began,
        )
        if tally.epochs:
            tally.seconds_by_epoch.append(running.seconds)
        tally.epoch = Epoch()
        every, steps = options.checkpoint_every_epochs, options.checkpoint_every_steps
        asked = (every and tally.epochs % every == 0) or (steps and tally.step % steps == 0)
        ended = last or tally.stopped_early
        # The row is written before the checkpoint, so that resuming from this checkpoint loses no row. Resuming from an
        # earlier one drops this row.
        if self._fabric.is_global_zero:
            self._layers.append(*layers)
            self._metrics.append(row)
            self._tell_repairs(layers)
        self._check.validated(rise, residuals, tally.epochs, self._store.last_good())
        if improved or asked or ended or self._agreed(torch.tensor([float(self._minutes_are_over())]))[0] > 0:
            self._save()

    def _validate(self) -> tuple[float, float | None]:
        """Return the validation NLL and its standard error, of the averaged weights if the run keeps an average."""
        options = self._options.training
        with self._average.applied() if self._average is not None else nullcontext():
            rows, context = self._dataset.split("validation")
            nll, error = estimated_nll(self._flow, rows, options.eval_batch_size, options.seed, context)
        if math.isnan(nll) or nll == math.inf:
            raise self._diverged(f"validation NLL {nll}")
        return self._fabric.broadcast((nll, error))

    def _diverged(self, got: str) -> Exception:
        return self._check.divergence(f"epoch {self._tally.epochs}", got, self._store.last_good())

    def _bits(self, nll: float) -> float | None:
        if self._dataset.num_values is None:
            return None
        return bits_per_dim(nll, math.prod(self._dataset.event_shape))

    def _layer_rows(self) -> list[LayerRow]:
        """One row for each self-normalizing layer that has seen data."""
        tally, angles, likelihood_angles = self._tally, {}, {}
        if self._options.training.measure_angle:
            angles = gradient_angles(self._flow, *self._fixed_batch())
            likelihood_angles = gradient_angles(self._flow, *self._fixed_batch(), penalty=False)
        resumed_at_its_end = tally.epoch.reconstruction_errors
        rows = []
        for name, found in layer_diagnostics(self._flow).items():
            measured = asdict(found)
            if resumed_at_its_end is not None and name in resumed_at_its_end:
                measured["reconstruction_error"] = resumed_at_its_end[name]
            measured |= {"angle": angles.get(name), "likelihood_angle": likelihood_angles.get(name)}
            rows.append(LayerRow(epoch=tally.epochs, layer=name, **measured))
        return rows

    def _fixed_batch(self) -> Batch:
        rows, context = (
            None
            if values is None
            else in_dtype_of(self._flow, values[: self._options.training.batch_size]).to(self._fabric.device)
            for values in self._dataset.split("train")
        )
        return cast(Tensor, rows), context

    def _tell_repairs(self, layers: list[LayerRow]) -> None:
        """Report which inverses the guard repaired in this epoch."""
        new = {r.layer: r.repairs - self._tally.repairs.get(r.layer, 0) for r in layers}
        self._tally.repairs = {r.layer: r.repairs for r in layers}
        if any(new.values()):
            counts = ", ".join(f"{name} {count} ×" for name, count in new.items() if count)
            self._reporter.say(f"epoch {self._tally.epochs}: the guard repaired lost inverses: {counts}")

    def _learning_rate(self, step: int) -> float:
        recipe = self._options
        steps = self._batches.steps_per_epoch
        peak, epochs = recipe.optimizer.learning_rate, recipe.training.epochs
        return learning_rate(peak, recipe.schedule, step, steps, epochs, self._tally.plateaus)

    def _minutes_are_over(self) -> bool:
        return time.monotonic() - self._saved_at >= 60 * self._options.training.checkpoint_minutes

    def _agreed(self, values: Tensor) -> list[float]:
        """Return the mean of each value over the devices, so that all respond alike to a NaN or a signal."""
        if self._fabric.world_size > 1:
            values = cast(Tensor, self._fabric.all_reduce(values.to(self._fabric.device), reduce_op="mean"))
        agreed: list[float] = values.tolist()
        return agreed

    def _signal(self, stop: StopRequest) -> int:
        """Return the number of the signal that ends the run, whichever process received it."""
        received: list[int | None] = [stop.received] * self._fabric.world_size
        if self._fabric.world_size > 1:
            dist.all_gather_object(received, stop.received)
        return next(number for number in received if number is not None)

    def _save(self) -> None:
        """Write a checkpoint.

        Raises:
            DivergenceError: a weight is not finite; the previous checkpoint is kept.
            CheckpointError: the disk is full.
        """
        tally = self._tally
        self._check_weights()
        drawn_from: list[Any] = [generators.capture()]
        if self._fabric.world_size > 1:
            drawn_from = drawn_from * self._fabric.world_size
            dist.all_gather_object(drawn_from, generators.capture())
        if self._fabric.is_global_zero:
            state: dict[str, Any] = {
                "tally": {**tally.to_dict(), "skips_in_a_row": self._check.in_a_row},
                "optimizer": portable(self._optimizer.state_dict()),
                "generators": drawn_from,
                "average": None if self._average is None else self._average.state_dict(),
            }
            if tally.batch:
                errors = {name: d.reconstruction_error for name, d in layer_diagnostics(self._flow).items()}
                state["tally"]["epoch"]["reconstruction_errors"] = errors
            notes = {
                "epochs": tally.epochs,
                "batch": tally.batch,
                "best_step": tally.best_step,
                "best_validation_nll": tally.best_nll if tally.best_step is not None else None,
                **data_notes(self._dataset),
            }
            self._store.save(Checkpoint(tally.step, self._flow.state_dict(), state, notes))
        self._fabric.barrier()
        self._saved_at = time.monotonic()

    def _check_weights(self) -> None:
        """Stop the run if a weight or buffer that was finite at its start no longer is.

        Raises:
            DivergenceError: one is not, in any process.
        """
        lost = sorted(self._finite - _finite_tensors(self._flow))
        if self._agreed(torch.tensor([float(bool(lost))]))[0] > 0:
            got = f"a non-finite {lost[0]}" if lost else "a non-finite weight in another process"
            raise self._check.divergence(f"step {self._tally.step}", got, self._store.last_good())

    def _load(self, checkpoint: Checkpoint) -> None:
        """Restore model, optimizer, average, progress and generators."""
        states = checkpoint.state["generators"]
        if len(states) != self._fabric.world_size:
            raise CheckpointError(
                f"checkpoint of step {checkpoint.step}",
                expected=f"one written by {self._fabric.world_size} processes",
                got=f"one by {len(states)}",
                fix=f"resume with --device.devices {len(states)}",
            )
        load_model(self._flow, checkpoint)
        try:
            self._optimizer.load_state_dict(checkpoint.state["optimizer"])
        except (ValueError, KeyError) as error:
            raise CheckpointError(
                f"checkpoint of step {checkpoint.step}", expected="this recipe's optimizer", got=str(error)
            ) from error
        if self._average is not None and checkpoint.state["average"] is not None:
            self._average.load_state_dict(checkpoint.state["average"])
        self._tally = Tally.from_dict(checkpoint.state["tally"])
        self._check.in_a_row = self._tally.skips_in_a_row
        generators.restore(states[self._fabric.global_rank])


def _finite_tensors(flow: Flow) -> set[str]:
    """The names of the weights and buffers whose values are all finite."""
    return {name for name, value in flow.state_dict().items() if isinstance(value, Tensor) and value.isfinite().all()}
