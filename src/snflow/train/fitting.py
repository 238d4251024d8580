"""Fit a flow to data with one call: standardization, training, early stopping, exact validation likelihood."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset, random_split

from snflow.bijections.context import Standardization
from snflow.bijections.elementwise import Affine
from snflow.data.batches import StreamedBatches
from snflow.data.dataset import Dataset
from snflow.data.rows import as_rows
from snflow.distributions.base import check_kind
from snflow.distributions.flow import Flow, mean_nll_with_error
from snflow.errors import CONSTRUCTED_WITH, ArgumentError, ConfigError, DataError, check_choice, nearest
from snflow.flows.gaussianization import gaussianize
from snflow.flows.preprocessing import dequantized, is_unbounded, standardized, with_context_embedding
from snflow.train import generators
from snflow.train.checkpoints import MemoryStore
from snflow.train.evaluation import in_dtype_of, load_model
from snflow.train.loop import TrainingLoop
from snflow.train.metrics import EpochRow, History
from snflow.train.options import DeviceOptions, FitOptions, OptimizerOptions, ScheduleOptions, TrainingOptions
from snflow.train.progress import SilentReporter, reporter_for, terminal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Schedule = Literal["constant", "cosine", "step", "plateau"]

_STANDARDIZED_ON, _MOST_HELD_OUT = 100_000, 100_000
"""Numbers of rows of a stream from which the moments are computed, and on which it is validated."""

_OVERFITTING = 0.1
"""Gap between training and validation, in nats per dimension, above which a report speaks of overfitting."""


@dataclass(frozen=True)
class FitReport:
    """What :func:`fit` returns: the trained flow, and how training went."""

    flow: Flow
    """The flow, in ``eval()``, with the weights of the best epoch."""
    history: list[dict[str, float | None]]
    """One row per epoch: objective, exact validation NLL in nats, learning rate, seconds, errors of the inverses."""
    best_epoch: int
    """The epoch with the lowest validation NLL, whose weights the flow has; 0 is before training."""
    validation_nll: float
    """Mean exact negative log-likelihood of the validation data at the best epoch, in nats."""
    validation_error: float
    """Its standard error, over the validation rows."""
    epochs: int
    """Number of epochs that were trained."""
    stopped_early: bool
    """Whether training ended because the validation NLL no longer improved."""
    seconds: float
    """Wall-clock time of training and validation."""

    def plot(self) -> Figure:
        """Draw objective and validation NLL by epoch, as :func:`snflow.plot.curves`."""
        from snflow import plot

        return plot.curves(self.history)

    def __str__(self) -> str:
        """Say in words how training went, and what to try."""
        error = "" if math.isnan(self.validation_error) else f" ± {self.validation_error:.2g}"
        lines = [
            f"exact validation NLL {self.validation_nll:.4g}{error} nats at epoch {self.best_epoch} of {self.epochs}, "
            f"{self.seconds:.1f} s"
        ]
        return "; ".join([*lines, *self._remarks()])

    def _remarks(self) -> list[str]:
        last = self.history[-1]
        objective, nll = last["objective"], last["validation_nll"]
        if objective is None or nll is None:
            return []
        dimensions = math.prod(self.flow.event_shape)
        gap, lost = nll - objective, nll - self.validation_nll
        if gap > _OVERFITTING * dimensions and lost > 0.2 * gap:
            return [
                f"objective {objective:.4g}, validation {nll:.4g} at the end: overfitting; the weights of the best "
                "epoch are back; more data, fewer layers, a smaller width or weight_decay may help"
            ]
        if self.best_epoch == self.epochs and not self.stopped_early and len(self.history) > 3:
            before = self.history[-3]["validation_nll"]
            if before is not None and before - nll > 0.005 * dimensions:
                return ["the likelihood was still improving: more epochs may help"]
        return []


def fit(
    flow: Flow,
    x: Any,
    context: Any = None,
    *,
    validation: float | Any = 0.1,
    epochs: int = 100,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    patience: int | None = 15,
    optimizer: Literal["adam", "adamw"] | Callable[[list[nn.Parameter]], torch.optim.Optimizer] = "adam",
    schedule: Schedule = "cosine",
    standardize: bool = True,
    num_values: int | None = None,
    embedding_net: nn.Module | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    steps_per_epoch: int | None = None,
    compile: bool = False,
    progress: bool = True,
    **options: Any,
) -> FitReport:
    """Fit a flow to data by maximum likelihood: θ ← Adam(∂/∂θ mean(−log p(x))).

    Continuous data are standardized by a fixed layer in front of the flow, integer data are dequantized. A share of the
    data is held out; after every epoch its exact negative log-likelihood is computed, and the weights of the best epoch
    are put back at the end. The flow itself is trained and changed: afterwards ``flow.log_prob`` takes data as they
    are, and ``flow`` is in ``eval()``. The random number generators are as before the call.

    Args:
        flow: A flow, for example from :mod:`snflow.flows`.
        x: Data with shape ``(N, *event)``: a tensor, a NumPy array, a pandas or polars data frame; or, for data that do
            not fit into memory, a torch ``Dataset`` of rows, or an iterable of batches such as a ``DataLoader``. Rows
            and batches may be pairs of data and context.
        context: The values on which the density is conditioned, with shape ``(N, *context_shape)``, in any of these
            forms, if the flow was built with a ``context_shape``.
        validation: Share of the rows that are held out, or data to validate on: rows, or rows and contexts in a tuple.
            An iterable of batches needs data.
        epochs: Number of passes over the training data, at most.
        batch_size: Number of rows per step.
        learning_rate: Peak learning rate.
        patience: Stop after this number of epochs without improvement; ``None`` for no early stopping.
        optimizer: ``"adam"``, ``"adamw"``, or a function that makes an optimizer of torch for a list of parameters; the
            schedule sets its learning rate.
        schedule: How the learning rate decays: ``"constant"``, ``"cosine"``, ``"step"`` or ``"plateau"``.
        standardize: Whether continuous data and contexts are standardized.
        num_values: L, if the data are integers from 0 to L − 1; ``None`` for continuous data.
        embedding_net: A network that computes the flow's context from yours; it is trained with the flow.
        seed: Seed of the split, the order of the batches, and noise.
        device: Device to train on; by default that of the flow.
        steps_per_epoch: Number of batches in an epoch, for a stream of unknown length.
        compile: Whether to compile the objective with ``torch.compile``.
        progress: Whether to show progress: a bar on a terminal, lines elsewhere.
        options: Any other option of a recipe's sections ``optimizer``, ``schedule`` and ``training``, such as
            ``weight_decay``, ``clip_norm``, ``warmup_epochs`` or ``ema_decay``.

    Returns:
        A report: ``print`` it, or call ``report.plot()``.

    Raises:
        DataError: the data are not finite numbers, or too few.
        ConfigError: an option is out of range.
        ShapeError, ContextError: the data or the contexts do not fit the flow.
        DivergenceError: training produced a non-finite value; the flow has its last good weights.

    Example:
        >>> import torch, snflow
        >>> x = 100 + 5 * torch.randn(200, 2)
        >>> flow = snflow.flows.realnvp(2, layers=2, width=8)
        >>> report = snflow.fit(flow, x, epochs=2, progress=False)
        >>> flow.log_prob(x[:3].to(flow.base.dtype)).shape
        torch.Size([3])
    """
    began = time.perf_counter()
    check_kind("fit", "flow", flow, Flow, fix="build one, as snflow.flows.maf(2)")
    check_choice("fit", "schedule", schedule, Schedule)
    if num_values is None and flow.dequantization is not None:
        num_values = flow.dequantization.num_values
    batches = None
    if _is_stream(x):
        batches, dataset = _stream(flow, x, context, validation, num_values, batch_size, seed, steps_per_epoch)
    else:
        dataset = _dataset(x, context, validation, num_values, seed)
    chosen = _options(
        {
            "epochs": epochs,
            "batch_size": min(batch_size, len(dataset.train)),
            "learning_rate": learning_rate,
            "patience": patience,
            "decay": schedule,
            "seed": seed,
            **({} if callable(optimizer) else {"name": optimizer}),
        },
        options,
        flow,
        compile,
    )
    target = torch.device(flow.base.device if device is None else device)
    index = cast("int | None", target.index)
    with generators.preserved():
        generators.seed(seed)
        _prepare(flow, dataset, standardize, embedding_net)
        fabric = Fabric(
            accelerator=target.type,
            devices=1 if index is None else [index],
            precision=chosen.training.precision,
        )
        store, history = MemoryStore(), History()
        reporter = reporter_for(terminal()) if progress else SilentReporter()
        build = optimizer if callable(optimizer) else None
        loop = TrainingLoop(fabric, flow, dataset, chosen, store, history, History(), reporter, build, batches)
        try:
            outcome = loop.run()
        finally:
            if store.best is not None:
                load_model(flow, store.best, averaged=True)
            flow.eval()
        if outcome.signal is not None:
            raise KeyboardInterrupt
        held, given = (None if v is None else in_dtype_of(flow, v) for v in dataset.split("validation"))
        generators.seed(seed)  # of the random vectors of estimated log-determinants
        generator = torch.Generator(flow.base.device).manual_seed(seed)
        nll, error = mean_nll_with_error(
            flow, cast(Tensor, held), given, batch_size=chosen.training.eval_batch_size, generator=generator
        )
    epoch_rows = cast(list[EpochRow], history.rows)
    steps = {row.step: row.epoch for row in epoch_rows}
    return FitReport(
        flow=flow,
        history=[asdict(row) for row in epoch_rows],
        best_epoch=steps.get(outcome.tally.best_step or 0, outcome.tally.epochs),
        validation_nll=nll,
        validation_error=error,
        epochs=outcome.tally.epochs,
        stopped_early=outcome.tally.stopped_early,
        seconds=time.perf_counter() - began,
    )


def _is_stream(x: Any) -> bool:
    """Whether data come in batches: a dataset of torch or an iterable that is neither an array nor a data frame."""
    if isinstance(x, list | tuple):  # of batches, or of numbers, which are no data
        return bool(x) and isinstance(x[0], Tensor | list | tuple) and not isinstance(x[0][0], float | int)
    in_memory = isinstance(x, Tensor | np.ndarray | str | bytes) or hasattr(x, "to_numpy")
    return isinstance(x, TorchDataset) or (not in_memory and isinstance(x, Iterable))


def _stream(
    flow: Flow,
    x: Any,
    context: Any,
    validation: Any,
    num_values: int | None,
    batch_size: int,
    seed: int,
    steps_per_epoch: int | None,
) -> tuple[StreamedBatches, Dataset]:
    """The batches of a stream, and a dataset of its first rows and of the validation rows."""
    if context is not None:
        raise ConfigError("fit", expected="contexts in the stream, as pairs", got="context=", fix="yield (x, context)")
    held: Any = validation
    batched = partial(StreamedBatches, dtype=flow.base.dtype, seed=seed)
    if isinstance(validation, float | int):
        if not isinstance(x, TorchDataset) or isinstance(x, IterableDataset):
            raise ConfigError(
                "fit",
                expected="validation data, since x is a stream without random access",
                got=repr(validation),
                fix="pass validation=x_held_out, or (x_held_out, context)",
            )
        rest, last = random_split(x, [1 - validation, validation], torch.Generator().manual_seed(seed))
        held = batched(last, min(batch_size, len(last))).first(_MOST_HELD_OUT)
        x = rest
    batches = batched(x, batch_size, steps_per_epoch=steps_per_epoch)
    rows, given = batches.first(_STANDARDIZED_ON)
    own, conditions = held if isinstance(held, tuple) else (held, None)
    kept = as_rows("fit, validation", own, num_values)
    contexts = None if conditions is None else as_rows("fit, validation context", conditions)
    return batches, Dataset("fit", rows, kept, kept, num_values, given, contexts, contexts)


def _dataset(x: Any, context: Any, validation: Any, num_values: int | None, seed: int) -> Dataset:
    """Rows and contexts, split into training and validation; the test split, which is not used, is the latter."""
    split: tuple[Tensor, Tensor]
    given: tuple[Tensor | None, Tensor | None]
    rows = as_rows("fit, x", x, num_values)
    contexts = None if context is None else as_rows("fit, context", context)
    if contexts is not None and len(contexts) != len(rows):
        raise DataError("fit, context", expected=f"{len(rows)} contexts, one for each row of x", got=str(len(contexts)))
    if isinstance(validation, float | int):
        held = round(validation * len(rows)) if 0 < validation < 1 else 0
        if not 1 <= held < len(rows):
            raise ConfigError(
                "fit",
                expected="validation between 0 and 1 that leaves rows to train and to validate on",
                got=f"{validation!r} of {len(rows)} rows",
                fix="pass more rows, or validation=(x, context)",
            )
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        train, last = order[held:], order[:held]
        split = rows[train], rows[last]
        given = (None, None) if contexts is None else (contexts[train], contexts[last])
    else:
        own, conditions = validation if isinstance(validation, tuple) else (validation, None)
        split = rows, as_rows("fit, validation", own, num_values)
        given = contexts, None if conditions is None else as_rows("fit, validation context", conditions)
    return Dataset("fit", split[0], split[1], split[1], num_values, given[0], given[1], given[1])


def _options(named: Mapping[str, Any], further: Mapping[str, Any], flow: Flow, compile: bool) -> FitOptions:
    """Sort options into their sections."""
    kinds = {"optimizer": OptimizerOptions, "schedule": ScheduleOptions, "training": TrainingOptions}
    known = {field.name: section for section, kind in kinds.items() for field in fields(kind)}
    for name in further:
        if name not in known or name in named:
            raise ArgumentError("fit", expected="an option of fit", got=f"{name}=", fix=nearest(name, [*known, *named]))
    sections: dict[str, dict[str, Any]] = {section: {} for section in kinds}
    for name, value in {**named, **further}.items():
        sections[known[name]][name] = value
    sections["training"].setdefault("precision", "64-true" if flow.base.dtype == torch.float64 else "32-true")
    return FitOptions(
        **{section: kind(**sections[section]) for section, kind in kinds.items()},
        device=DeviceOptions(compile="inductor" if compile else "off"),
    )


def _prepare(flow: Flow, dataset: Dataset, standardize: bool, embedding_net: nn.Module | None) -> None:
    """Put preprocessing around the flow, in place, unless it is there already."""
    prepared, x, context = flow, *dataset.split("train")
    fitted = any(isinstance(layer, Affine | Standardization) for layer in flow.modules())
    if embedding_net is not None:
        prepared = with_context_embedding(prepared, embedding_net, dataset.context_shape or ())
    if dataset.num_values is not None:
        prepared = prepared if prepared.dequantization is not None else dequantized(prepared, dataset.num_values)
    elif standardize and not fitted and is_unbounded(flow):
        prepared = standardized(prepared, x, context)
    gaussianize(prepared, in_dtype_of(prepared, x))
    if prepared is not flow:
        flow.bijection, flow.dequantization = prepared.bijection, prepared.dequantization
        vars(flow)[CONSTRUCTED_WITH] = vars(prepared)[CONSTRUCTED_WITH]
