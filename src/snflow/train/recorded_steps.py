"""Training steps recorded as a CUDA graph."""

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

from snflow.distributions.flow import Flow
from snflow.errors import ConfigError
from snflow.selfnorm.followers import Followers
from snflow.train.optimizer import MovingAverage, adam
from snflow.train.options import OptimizerOptions, TrainingOptions
from snflow.train.recipe import Recipe
from snflow.train.steps import Asked, DivergenceGuard, EagerSteps, Steps, Taken, gradient_norm

WARM_UP = 3
"""Steps that are taken before one is recorded: the first ones allocate, initialise and choose kernels."""


@final
class RecordedSteps:
    """The step of :class:`EagerSteps` without a single read: decisions are made on the device, by ``where``.

    What a step does with numbers that are not finite is decided in Adam's kernel, which takes a flag; sums and counts
    stay on the device until the next look, ``every`` steps later. The learned inverses of Newton's kind take one step
    each time, whether or not they need it, and a look sees to those that this does not help.

    On a processor, which has no graphs, the same function is called each time: slower than :class:`EagerSteps`, and
    there for tests.

    Args:
        model: the flow, compiled or not.
        parameters: those that are trained.
        optimizer: Adam, fused and on CUDA capturable.
        options: of the optimizer.
        training: what to do with numbers that are not finite.
        average: the moving average of the weights, where there is one.
        guard: told of a run that has to end.
        followers: the learned inverses.
        every: steps between two looks.
        last_good: names the last good checkpoint.
        backend: what compiles the bookkeeping, twenty small operations, as it compiled the model; ``None`` for neither.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: list[nn.Parameter],
        optimizer: torch.optim.Adam,
        options: OptimizerOptions,
        training: TrainingOptions,
        average: MovingAverage | None,
        guard: DivergenceGuard,
        followers: Followers,
        every: int,
        last_good: Callable[[], str],
        backend: str | None = None,
    ) -> None:
        self._model, self._parameters, self._optimizer, self._options = model, parameters, optimizer, options
        self._average, self._guard, self._followers = average, guard, followers
        self._every, self._last_good = every, last_good
        self._allowed = training.max_skips if training.on_nonfinite == "skip" else 0
        device = parameters[0].device
        self._on_cuda = device.type == "cuda"
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Tensor | None = None
        self._warm, self._since = 0, 0
        # CUDA's Adam reads a rate of 32 bits; elsewhere it is the number that an unrecorded step has.
        self._rate = torch.zeros((), dtype=torch.float32 if self._on_cuda else torch.float64, device=device)
        self._one = torch.ones(1, dtype=torch.float64, device=device)
        self._number = torch.zeros(1, dtype=torch.float64, device=device)
        self._last = torch.zeros(3, dtype=torch.float64, device=device)  # objective, gradient norm, one
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)  # of the finite ones
        self._in_a_row = torch.zeros(1, dtype=torch.float64, device=device)
        self._halted = torch.zeros(1, dtype=torch.bool, device=device)
        self._fault = torch.zeros(3, dtype=torch.float64, device=device)  # objective, gradient norm, step
        self._left_out = torch.zeros((), device=device)
        self._noted = self._note if backend is None else torch.compile(self._note, backend=backend)

    def take(self, batch: Tensor, asked: Asked) -> Taken | None:
        """One step; the numbers of all since the last look when one is due."""
        if self._since == 0:
            self._number.fill_(asked.number - 1)
            self._in_a_row.fill_(self._guard.in_a_row)
        self._rate.fill_(asked.rate)
        self._place(batch)
        self._run()
        self._since += 1
        stop, due = asked.stop(), asked.due()
        if self._since < self._every and not (asked.look or stop or due):
            return None
        return self._look(stop, due)

    def _place(self, batch: Tensor) -> None:
        """Put the batch where the recorded step reads it."""
        if self._batch is None:
            self._batch = batch.clone()
            for group in self._optimizer.param_groups:
                group["lr"] = self._rate
                group["capturable"] = self._on_cuda
        else:
            self._batch.copy_(batch)

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
                expected="a training step that never waits for a number of the device",
                got=" ".join(str(error).split())[:200],
                fix="leave it out for this flow",
            ) from error
        return graph

    def _step(self) -> None:
        """What is recorded."""
        loss = -self._model(self._batch).mean()
        loss.backward()
        norm = gradient_norm(self._parameters)
        taken = self._noted(loss.detach(), norm)
        if self._options.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self._options.clip_norm, norm)
        # Adam's fused kernel leaves weights and moments alone where this flag is one; gradient scaling uses it.
        self._optimizer.found_inf = self._left_out  # type: ignore[attr-defined]
        self._optimizer.step()
        if self._average is not None:
            self._average.update_where(taken.squeeze(0))
        self._followers.polish()
        self._optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _note(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Add up what is finite, remember the fault that ends the run; returns whether the step counts, ``(1,)``."""
        self._last.copy_(torch.cat([torch.stack([loss, norm]).double(), self._one]))
        bad = (self._last * 0).sum(0, keepdim=True).ne(0)  # zero times what is not finite is not a number
        self._number.add_(1)
        self._in_a_row.add_(1).mul_(bad)
        ends = (self._in_a_row > self._allowed) & ~self._halted
        self._fault.copy_(torch.where(ends, torch.cat([self._last[:2], self._number]), self._fault))
        self._halted.logical_or_(ends)
        taken = ~(bad | self._halted)
        self._left_out.copy_(1.0 - taken.to(self._left_out.dtype).squeeze(0))
        self._sums.add_(torch.where(taken, self._last, 0.0))
        return taken

    def _look(self, stop: bool, due: bool) -> Taken:
        """Read the numbers; move the inverses that need more than a step."""
        read = torch.cat([self._sums, self._last[:1], self._in_a_row, self._halted, self._fault]).tolist()
        objective, norm, count, last, in_a_row, halted, *fault = read
        steps, self._since = self._since, 0
        self._guard.in_a_row = int(in_a_row)
        if halted:
            # The guard counts the step that it is told of; this one is counted already.
            self._guard.in_a_row = self._allowed
            self._guard.failed(fault[0], fault[1], int(fault[2]), self._last_good())
        self._sums.zero_()
        self._followers.look(steps)
        return Taken(int(count), steps - int(count), objective, norm, last, stop, due)


RECORDING = ("cuda",)
"""The kinds of device that can record a step."""


def set_up(
    fabric: Fabric,
    flow: Flow,
    recipe: Recipe,
    average: MovingAverage | None,
    guard: DivergenceGuard,
    agreed: Callable[[Tensor], list[float]],
    last_good: Callable[[], str],
) -> tuple[nn.Module, Any, Steps]:
    """Adam, the flow compiled and shared as the options say, and the steps.

    Args:
        fabric: the launched one.
        flow: on its device already.
        recipe: the options.
        average: the moving average of the weights, where there is one.
        guard: what happens when numbers are not finite.
        agreed: the mean of each value over the devices.
        last_good: names the last good checkpoint.

    Returns:
        The flow as the devices share it, its optimizer, and who takes the steps.

    Raises:
        ConfigError: the device cannot record a step, or there is no compiler for the code that is generated.
    """
    options = recipe.device
    if options.cuda_graph and fabric.device.type not in RECORDING:
        raise ConfigError(
            "device.cuda_graph",
            expected="a device of kind cuda",
            got=fabric.device.type,
            fix="leave it out, or give --device cuda",
        )
    if options.compile == "inductor" and fabric.device.type == "cpu" and shutil.which(_compiler()) is None:
        raise ConfigError(
            "device.compile",
            expected=f"the C++ compiler {_compiler()} on the path: inductor generates C++",
            got="none",
            fix="install it, name another one in CXX, or leave device.compile out",
        )
    parameters = [p for p in flow.parameters() if p.requires_grad]
    optimizer = adam(parameters, recipe.optimizer, fabric.device, recorded=options.cuda_graph)
    compiled = flow if options.compile == "off" else cast(nn.Module, torch.compile(flow, backend=options.compile))
    followers = Followers(flow) if options.cuda_graph or options.compile != "off" else None
    model, shared = fabric.setup(compiled, optimizer)
    if options.cuda_graph and followers is not None:
        every, training = options.read_every, recipe.training
        rules = (recipe.optimizer, training, average, guard, followers, every, last_good)
        backend = None if options.compile == "off" else options.compile
        return model, shared, RecordedSteps(compiled, parameters, optimizer, *rules, backend)
    rest = (recipe.optimizer, average, guard, fabric.backward, agreed, followers, last_good)
    return model, shared, EagerSteps(model, parameters, shared, *rest)


def _compiler() -> str:
    """The one that torch calls on a processor."""
    return os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")


def portable(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state as it is wherever the run goes on: the learning rate a number, recorded or not."""
    for group in state["param_groups"]:
        group["lr"], group["capturable"] = float(group["lr"]), False
    return state


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Allow float32 matrix products this precision inside of the block: ``highest``, ``high`` or ``medium``."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
