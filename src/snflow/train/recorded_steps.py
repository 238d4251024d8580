"""Training steps that are recorded as a CUDA graph, and the choice between recorded and eager steps."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast, final

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from snflow.data.batches import Batch
from snflow.distributions.flow import Flow
from snflow.errors import ConfigError
from snflow.selfnorm.followers import Followers
from snflow.train.optimizer import MovingAverage, adam
from snflow.train.options import OptimizerOptions, Options, TrainingOptions
from snflow.train.steps import DivergenceCheck, EagerSteps, StepRequest, StepResult, Steps, gradient_norm

OptimizerBuilder = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
"""Makes an optimizer for these parameters; its learning rate is set before each step, by the schedule."""

WARM_UP = 3
"""Number of steps before recording: the first steps allocate memory, initialize layers and select kernels."""


@final
class RecordedSteps:
    """The step of :class:`EagerSteps` without waiting for the device, which makes the decisions (``torch.where``).

    Adam's kernel takes a flag that skips a non-finite step. Sums and counts stay on the device until they are read,
    every ``every`` steps. Inverses tracked by Newton's method take one step each time, whether needed or not; when the
    results are read, inverses for which this is not enough are updated too.

    On a CPU, which has no graphs, the same function is called in each step. This is slower than :class:`EagerSteps` and
    is used only in tests.

    Args:
        model: the flow, possibly compiled.
        parameters: trained parameters.
        optimizer: Adam, fused, and capturable on CUDA.
        options: options of the optimizer.
        training: what to do with non-finite values.
        average: moving average of the weights, or ``None``.
        check: stops a diverged run.
        followers: updates the learned inverses.
        every: number of steps between reads of the results.
        last_good: describes the last good checkpoint.
        backend: compiler backend for the bookkeeping, twenty small operations; ``None`` for eager execution.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: list[nn.Parameter],
        optimizer: torch.optim.Adam,
        *,
        options: OptimizerOptions,
        training: TrainingOptions,
        average: MovingAverage | None,
        check: DivergenceCheck,
        followers: Followers,
        every: int,
        last_good: Callable[[], str],
        backend: str | None = None,
    ) -> None:
        self._model, self._parameters, self._optimizer, self._options = model, parameters, optimizer, options
        self._average, self._check, self._followers = average, check, followers
        self._every, self._last_good = every, last_good
        self._allowed = training.max_skips if training.on_nonfinite == "skip" else 0
        device = parameters[0].device
        self._on_cuda = device.type == "cuda"
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Batch | None = None
        self._warm, self._since = 0, 0
        # Adam on CUDA reads a float32 rate; on the CPU the rate has the precision of an eager step.
        self._rate = torch.zeros((), dtype=torch.float32 if self._on_cuda else torch.float64, device=device)
        self._one = torch.ones(1, dtype=torch.float64, device=device)
        self._number = torch.zeros(1, dtype=torch.float64, device=device)
        self._last = torch.zeros(3, dtype=torch.float64, device=device)  # objective, gradient norm, one
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)  # of the finite steps
        self._in_a_row = torch.zeros(1, dtype=torch.float64, device=device)
        self._halted = torch.zeros(1, dtype=torch.bool, device=device)
        self._fault = torch.zeros(3, dtype=torch.float64, device=device)  # objective, gradient norm, step
        self._left_out = torch.zeros((), device=device)
        self._noted = self._note if backend is None else torch.compile(self._note, backend=backend)

    def take(self, batch: Batch, asked: StepRequest) -> StepResult | None:
        """Take one step; if a read is due, return the results of all steps since the last one."""
        if self._since == 0:
            self._number.fill_(asked.number - 1)
            self._in_a_row.fill_(self._check.in_a_row)
        self._rate.fill_(asked.rate)
        self._place(batch)
        self._run()
        self._since += 1
        stop, due = asked.stop(), asked.due()
        if self._since < self._every and not (asked.report or stop or due):
            return None
        return self._read(stop, due)

    def _place(self, batch: Batch) -> None:
        """Copy the batch to the memory from which the recorded step reads."""
        if self._batch is None:
            self._batch = batch[0].clone(), None if batch[1] is None else batch[1].clone()
            for group in self._optimizer.param_groups:
                group["lr"] = self._rate
                group["capturable"] = self._on_cuda
        else:
            for place, values in zip(self._batch, batch, strict=True):
                if place is not None and values is not None:
                    place.copy_(values)

    def _run(self) -> None:
        if not self._on_cuda:
            self._step()
        elif self._graph is not None:
            self._graph.replay()
        elif self._warm < WARM_UP:
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                self._step()
            torch.cuda.current_stream().wait_stream(aside)
            self._warm += 1
        else:
            self._graph = self._recorded()
            self._graph.replay()

    def _recorded(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._step()
        except RuntimeError as error:
            raise ConfigError(
                "device.cuda_graph",
                expected="a training step that never waits for the device",
                got=" ".join(str(error).split())[:200],
                fix="omit it for this flow",
            ) from error
        return graph

    def _step(self) -> None:
        """The function that is recorded."""
        loss = -self._model(*cast(Batch, self._batch)).mean()
        loss.backward()
        norm = gradient_norm(self._parameters)
        taken = self._noted(loss.detach(), norm)
        if self._options.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self._options.clip_norm, norm)
        # Adam's fused kernel leaves weights and moments unchanged where this flag is one, as in gradient scaling.
        self._optimizer.found_inf = self._left_out  # type: ignore[attr-defined]
        self._optimizer.step()
        if self._average is not None:
            self._average.update_where(taken.squeeze(0))
        self._followers.track_on_device()
        self._optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _note(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Sum the finite results, keep the fault that stops the run, and return whether the step counts, ``(1,)``."""
        self._last.copy_(torch.cat([torch.stack([loss, norm]).double(), self._one]))
        bad = (self._last * 0).sum(0, keepdim=True).ne(0)  # 0 times a non-finite value is NaN
        self._number.add_(1)
        self._in_a_row.add_(1).mul_(bad)
        ends = (self._in_a_row > self._allowed) & ~self._halted
        self._fault.copy_(torch.where(ends, torch.cat([self._last[:2], self._number]), self._fault))
        self._halted.logical_or_(ends)
        taken = ~(bad | self._halted)
        self._left_out.copy_(1.0 - taken.to(self._left_out.dtype).squeeze(0))
        self._sums.add_(torch.where(taken, self._last, 0.0))
        return taken

    def _read(self, stop: bool, due: bool) -> StepResult:
        """Read the results, and update the inverses for which one step is not enough."""
        read = torch.cat([self._sums, self._last[:1], self._in_a_row, self._halted, self._fault]).tolist()
        objective, norm, count, last, in_a_row, halted, *fault = read
        steps, self._since = self._since, 0
        self._check.in_a_row = int(in_a_row)
        if halted:
            # failed() counts the step, which is already counted here.
            self._check.in_a_row = self._allowed
            self._check.failed(fault[0], fault[1], int(fault[2]), self._last_good())
        self._sums.zero_()
        self._followers.track(steps)
        return StepResult(int(count), steps - int(count), objective, norm, last, stop, due)


RECORDING = ("cuda",)
"""Kinds of devices that can record a step."""


def set_up(
    fabric: Fabric,
    flow: Flow,
    recipe: Options,
    average: MovingAverage | None,
    check: DivergenceCheck,
    agreed: Callable[[Tensor], list[float]],
    last_good: Callable[[], str],
    build_optimizer: OptimizerBuilder | None = None,
) -> tuple[nn.Module, Any, Steps]:
    """Set up the optimizer, the flow (compiled and distributed according to the options) and the training steps.

    Args:
        fabric: a launched Fabric.
        flow: the flow, already on its device.
        recipe: all options.
        average: moving average of the weights, or ``None``.
        check: handles non-finite values.
        agreed: returns the mean of each value over the devices.
        last_good: describes the last good checkpoint.
        build_optimizer: makes another optimizer than Adam or AdamW.

    Returns:
        The flow as Fabric has set it up, its optimizer, and the steps.

    Raises:
        ConfigError: the device cannot record a step, or the C++ compiler that inductor needs is missing.
    """
    options = recipe.device
    if options.cuda_graph and fabric.device.type not in RECORDING:
        raise ConfigError(
            "device.cuda_graph",
            expected="a device of kind cuda",
            got=fabric.device.type,
            fix="omit it, or use --device cuda",
        )
    if options.compile == "inductor" and fabric.device.type == "cpu" and shutil.which(_compiler()) is None:
        raise ConfigError(
            "device.compile",
            expected=f"the C++ compiler {_compiler()} on the path: inductor generates C++",
            got="none",
            fix="install it, name another compiler in CXX, or omit device.compile",
        )
    parameters = [p for p in flow.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer
    if build_optimizer is None:
        optimizer = adam(parameters, recipe.optimizer, fabric.device, recorded=options.cuda_graph)
    else:
        optimizer = build_optimizer(parameters)
    compiled = flow if options.compile == "off" else cast(nn.Module, torch.compile(flow, backend=options.compile))
    followers = Followers(flow) if options.cuda_graph or options.compile != "off" else None
    model, shared = fabric.setup(compiled, optimizer)
    if options.cuda_graph and followers is not None:
        every, training = options.read_every, recipe.training
        recorded = RecordedSteps(
            compiled,
            parameters,
            cast(torch.optim.Adam, optimizer),
            options=recipe.optimizer,
            training=training,
            average=average,
            check=check,
            followers=followers,
            every=every,
            last_good=last_good,
            backend=None if options.compile == "off" else options.compile,
        )
        return model, shared, recorded
    eager = EagerSteps(
        model,
        parameters,
        shared,
        options=recipe.optimizer,
        average=average,
        check=check,
        backward=fabric.backward,
        agreed=agreed,
        followers=followers,
        last_good=last_good,
    )
    return model, shared, eager


def _compiler() -> str:
    """The C++ compiler that torch calls on a CPU."""
    return os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")


def portable(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state with the learning rate as a number, so that a run can resume with or without recording."""
    for group in state["param_groups"]:
        group["lr"], group["capturable"] = float(group["lr"]), False
    return state


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Use this precision for float32 matrix products in the block: ``highest``, ``high`` or ``medium``."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
