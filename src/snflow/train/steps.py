"""Training steps: objective, gradient and optimizer, and the check for divergence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from snflow.data.batches import Batch
from snflow.errors import DivergenceError
from snflow.selfnorm.diagnostics import layer_diagnostics
from snflow.selfnorm.followers import Followers
from snflow.selfnorm.penalty import Penalty
from snflow.train.optimizer import MovingAverage
from snflow.train.options import OptimizerOptions, TrainingOptions


@dataclass(frozen=True)
class StepRequest:
    """What the training loop passes to one step.

    Attributes:
        rate: the learning rate.
        number: the number of the step in the run, counted from 1.
        stop: returns whether a signal has asked this process to end; called after the gradient is computed.
        due: returns whether a checkpoint is due on this process.
        report: whether the results are needed after this step, because the epoch ends or a checkpoint is written.
    """

    rate: float
    number: int
    stop: Callable[[], bool]
    due: Callable[[], bool]
    report: bool = False


@dataclass(frozen=True)
class StepResult:
    """Results of the steps since the last ``StepResult``.

    Attributes:
        steps: number of finite steps.
        skipped: number of steps that were skipped.
        objective: sum of the objectives of the finite steps, in nats.
        gradient_norm: sum of their gradient norms.
        last: the objective of the last step.
        stop: whether a signal has asked any process to end.
        due: whether a checkpoint is due on any process.
    """

    steps: int
    skipped: int
    objective: float
    gradient_norm: float
    last: float
    stop: bool
    due: bool


class Steps(Protocol):
    """Takes θ ← Adam(∂/∂θ mean(−flow(x))), batch by batch."""

    def take(self, batch: Batch, asked: StepRequest) -> StepResult | None:
        """Take one step; return ``None`` if its results are not yet known.

        Args:
            batch: rows with shape ``(batch, *event)`` and their contexts, on the device.
            asked: what the loop passes to this step.

        Raises:
            DivergenceError: a value is not finite and ``on_nonfinite`` is stop.
        """


@final
class EagerSteps:
    """One step at a time: objective, gradient, Adam. Several devices agree on the results before Adam's update.

    Args:
        model: the flow as Fabric has set it up, possibly compiled.
        parameters: trained parameters.
        optimizer: Adam.
        options: options of the optimizer.
        average: moving average of the weights, or ``None``.
        check: handles non-finite values.
        backward: runs the backward pass of a loss.
        agreed: returns the mean of each value over the devices.
        followers: updates the learned inverses if the model's forward pass does not.
        last_good: describes the last good checkpoint.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: list[nn.Parameter],
        optimizer: Any,
        *,
        options: OptimizerOptions,
        average: MovingAverage | None,
        check: DivergenceCheck,
        backward: Callable[[Tensor], object],
        agreed: Callable[[Tensor], list[float]],
        followers: Followers | None,
        last_good: Callable[[], str],
    ) -> None:
        self._model, self._parameters, self._optimizer, self._options = model, parameters, optimizer, options
        self._average, self._check, self._followers = average, check, followers
        self._backward, self._agreed, self._last_good = backward, agreed, last_good

    def take(self, batch: Batch, asked: StepRequest) -> StepResult:
        """Take one step."""
        for group in self._optimizer.param_groups:
            group["lr"] = asked.rate
        if self._followers is not None:
            self._followers.track()
        loss = -self._model(*batch).mean()
        self._backward(loss)
        norm = gradient_norm(self._parameters)
        flags = torch.tensor([asked.stop(), asked.due()], device=loss.device)
        objective, size, stop, due = self._agreed(torch.cat([torch.stack([loss.detach(), norm]), flags.to(loss)]))
        finite = math.isfinite(objective) and math.isfinite(size)
        if finite:
            if self._options.clip_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(self._parameters, self._options.clip_norm, norm)
            self._optimizer.step()
            if self._average is not None:
                self._average.update()
            self._check.passed()
        else:
            self._check.failed(objective, size, asked.number, self._last_good())
        self._optimizer.zero_grad(set_to_none=True)
        if not finite:
            return StepResult(0, 1, 0.0, 0.0, objective, stop > 0, due > 0)
        return StepResult(1, 0, objective, size, objective, stop > 0, due > 0)


LOST = 1.0
"""The residual ‖I − RW‖_F/√D of R = 0. A learned inverse with a larger residual carries no information about W⁻¹."""


class DivergenceCheck:
    """Counts skipped steps, and stops a diverged run with an error that names the layer at fault.

    Args:
        flow: the flow, whose layers are named in errors.
        training: whether to stop, or to skip up to ``max_skips`` steps in a row.
        optimizer: options to which the error refers.
    """

    def __init__(self, flow: nn.Module, training: TrainingOptions, optimizer: OptimizerOptions) -> None:
        self._flow, self._training, self._optimizer = flow, training, optimizer
        self.in_a_row = 0

    def passed(self) -> None:
        """Record a finite step."""
        self.in_a_row = 0

    def failed(self, objective: float, norm: float, step: int, last_good: str) -> None:
        """Record a step with a non-finite objective or gradient norm: skip it or stop the run.

        Call it before the gradients of the step are cleared.

        Raises:
            DivergenceError: ``on_nonfinite`` is stop, or too many steps in a row were skipped.
        """
        self.in_a_row += 1
        if self._training.on_nonfinite == "skip" and self.in_a_row <= self._training.max_skips:
            return
        what = f"objective {objective}" if not math.isfinite(objective) else f"gradient norm {norm}"
        times = f" ({self.in_a_row} steps in a row)" if self.in_a_row > 1 else ""
        raise self.divergence(f"step {step}", f"{what}{times}, at {self.culprit(objective)}", last_good)

    def validated(self, rise: float, residuals: dict[str, float], epoch: int, last_good: str) -> None:
        """Stop the run if the likelihood has fallen while a learned inverse, and with it the gradient, is wrong.

        Args:
            rise: validation NLL minus the best so far, in nats per dimension.
            residuals: ‖I − RW‖_F/√D of each layer.
            epoch: number of the epoch.
            last_good: description of the last good checkpoint.

        Raises:
            DivergenceError: the rise is above ``divergence_rise`` and a residual above one.
        """
        limit = self._training.divergence_rise
        worst = max(residuals, key=lambda name: _rank(residuals[name]), default=None)
        if limit is None or not rise > limit or worst is None or _rank(residuals[worst]) <= LOST:
            return
        raise self.divergence(
            f"epoch {epoch}",
            f"{rise:.3g} nats per dimension more, with a lost inverse at {worst}: ‖I − RW‖_F/√D is "
            f"{residuals[worst]:.3g}",
            last_good,
            expected=f"a validation NLL within training.divergence_rise {limit:g} of the best",
        )

    def divergence(self, where: str, got: str, last_good: str, expected: str = "finite values") -> DivergenceError:
        """Build the error that stops a diverged run."""
        unguarded = [m for m in self._flow.modules() if isinstance(m, Penalty) and not m.guard]
        advice = "enable the guard of flow.tracking, use Newton as flow.tracking, or " if unguarded else ""
        advice += f"lower optimizer.learning_rate (now {self._optimizer.learning_rate:g})"
        if self._optimizer.clip_norm is None:
            advice += ", set optimizer.clip_norm (try 1)"
        return DivergenceError(
            f"training, {where}",
            expected=expected,
            got=got,
            fix=f"{advice}, or lengthen schedule.warmup_epochs; {last_good}",
        )

    def culprit(self, objective: float) -> str:
        """Name the layer at fault: the worst learned inverse, or the first non-finite gradient."""
        bad = [n for n, p in self._flow.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        errors = {name: d.reconstruction_error for name, d in layer_diagnostics(self._flow).items()}
        if errors and (not bad or not math.isfinite(objective)):
            worst = max(errors, key=lambda name: _rank(errors[name]))
            return f"{worst}, which has the worst learned inverse (reconstruction error {errors[worst]:.3g})"
        return f"the gradient of {bad[0]}" if bad else "no single layer"


def _rank(error: float) -> float:
    return math.inf if math.isnan(error) else error


@torch.no_grad()
def gradient_norm(parameters: list[nn.Parameter]) -> Any:
    """‖∂L/∂θ‖₂ over all parameters, as a scalar tensor."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
