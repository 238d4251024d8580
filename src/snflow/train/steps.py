"""Training steps: eager, compiled, and how they are set up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from snflow.errors import DivergenceError
from snflow.selfnorm.diagnostics import layer_diagnostics
from snflow.selfnorm.followers import Followers
from snflow.selfnorm.layers import SelfNormalizingMap
from snflow.train.optimizer import MovingAverage
from snflow.train.options import OptimizerOptions, TrainingOptions


@dataclass(frozen=True)
class Asked:
    """What the loop wants of one step.

    Attributes:
        rate: the learning rate.
        number: the number of the step in the run, from 1.
        stop: tells whether a signal has asked this process to end; asked when the gradient is there.
        due: tells whether a checkpoint is due on this process.
        look: whether the numbers must be known after this step: the epoch ends, or a checkpoint is written.
    """

    rate: float
    number: int
    stop: Callable[[], bool]
    due: Callable[[], bool]
    look: bool = False


@dataclass(frozen=True)
class Taken:
    """What is known of the steps since the last ``Taken``.

    Attributes:
        steps: how many had finite numbers.
        skipped: how many were left out.
        objective: the sum of their objectives, in nats.
        gradient_norm: the sum of their gradient norms.
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

    def take(self, batch: Tensor, asked: Asked) -> Taken | None:
        """One step; ``None`` where its numbers are not known yet.

        Args:
            batch: with shape ``(batch, *event)``, on the device.
            asked: what the loop wants.

        Raises:
            DivergenceError: the numbers are not finite, and the recipe says to stop.
        """


@final
class EagerSteps:
    """Objective, gradient, its norm, guard and Adam; on several devices all of them agree before Adam moves.

    Args:
        model: the flow, as the devices share it, compiled or not.
        parameters: those that are trained.
        optimizer: Adam.
        options: of the optimizer.
        average: the moving average of the weights, where there is one.
        guard: what happens when numbers are not finite.
        backward: the backward pass of a loss.
        agreed: the mean of each value over the devices.
        followers: the learned inverses, where the model's own forward leaves them alone.
        last_good: names the last good checkpoint.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: list[nn.Parameter],
        optimizer: Any,
        options: OptimizerOptions,
        average: MovingAverage | None,
        guard: DivergenceGuard,
        backward: Callable[[Tensor], object],
        agreed: Callable[[Tensor], list[float]],
        followers: Followers | None,
        last_good: Callable[[], str],
    ) -> None:
        self._model, self._parameters, self._optimizer, self._options = model, parameters, optimizer, options
        self._average, self._guard, self._followers = average, guard, followers
        self._backward, self._agreed, self._last_good = backward, agreed, last_good

    def take(self, batch: Tensor, asked: Asked) -> Taken:
        """One step, and its numbers."""
        for group in self._optimizer.param_groups:
            group["lr"] = asked.rate
        if self._followers is not None:
            self._followers.look()
        loss = -self._model(batch).mean()
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
            self._guard.passed()
        else:
            self._guard.failed(objective, size, asked.number, self._last_good())
        self._optimizer.zero_grad(set_to_none=True)
        if not finite:
            return Taken(0, 1, 0.0, 0.0, objective, stop > 0, due > 0)
        return Taken(1, 0, objective, size, objective, stop > 0, due > 0)


LOST = 1.0
"""The residual ‖I − WR‖/√D of R = 0: a learned inverse past it says nothing about W⁻¹."""


class DivergenceGuard:
    """Counts the steps left out, and ends the run with the name of the layer at fault.

    Args:
        flow: whose layers are named.
        training: what to do: stop, or skip up to ``max_skips`` in a row.
        optimizer: for the advice.
    """

    def __init__(self, flow: nn.Module, training: TrainingOptions, optimizer: OptimizerOptions) -> None:
        self._flow, self._training, self._optimizer = flow, training, optimizer
        self.in_a_row = 0

    def passed(self) -> None:
        """Note a finite step."""
        self.in_a_row = 0

    def failed(self, objective: float, norm: float, step: int, last_good: str) -> None:
        """Note a step whose objective or gradient norm is not finite; it is left out, or the run ends.

        Call it while the gradients of the step are still there.

        Raises:
            DivergenceError: ``on_nonfinite`` is stop, or too many in a row failed.
        """
        self.in_a_row += 1
        if self._training.on_nonfinite == "skip" and self.in_a_row <= self._training.max_skips:
            return
        what = f"objective {objective}" if not math.isfinite(objective) else f"gradient norm {norm}"
        times = f" ({self.in_a_row} steps in a row)" if self.in_a_row > 1 else ""
        raise self.divergence(f"step {step}", f"{what}{times}, at {self.culprit(objective)}", last_good)

    def validated(self, rise: float, residuals: dict[str, float], epoch: int, last_good: str) -> None:
        """Note a validation: where the likelihood falls together with a learned inverse, the gradient is not its own.

        Args:
            rise: of the validation NLL above the best so far, in nats a dimension.
            residuals: ‖I − WR‖/√D of each layer.
            epoch: the number of the epoch.
            last_good: where to go on from.

        Raises:
            DivergenceError: the rise is above ``divergence_rise`` and a residual above one.
        """
        limit = self._training.divergence_rise
        worst = max(residuals, key=lambda name: _rank(residuals[name]), default=None)
        if limit is None or not rise > limit or worst is None or _rank(residuals[worst]) <= LOST:
            return
        raise self.divergence(
            f"epoch {epoch}",
            f"one {rise:.3g} nats a dimension above it, and a lost inverse at {worst}: ‖I − WR‖/√D is "
            f"{residuals[worst]:.3g}",
            last_good,
            expected=f"a validation NLL within training.divergence_rise {limit:g} of the best",
        )

    def divergence(self, where: str, got: str, last_good: str, expected: str = "finite numbers") -> DivergenceError:
        """The error that ends a diverged run."""
        unguarded = [m for m in self._flow.modules() if isinstance(m, SelfNormalizingMap) and not m.learned.guard]
        advice = "set flow.guard true, or flow.inverse_tracking newton, or " if unguarded else ""
        advice += f"lower optimizer.learning_rate (now {self._optimizer.learning_rate:g})"
        if self._optimizer.clip_norm is None:
            advice += ", set optimizer.clip_norm (1 for a start)"
        return DivergenceError(
            f"training, {where}",
            expected=expected,
            got=got,
            fix=f"{advice}, or lengthen schedule.warmup_epochs; {last_good}",
        )

    def culprit(self, objective: float) -> str:
        """Name the layer: the worst learned inverse where the objective is lost, else the first bad gradient."""
        bad = [n for n, p in self._flow.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        errors = {name: d.reconstruction_error for name, d in layer_diagnostics(self._flow).items()}
        if errors and (not bad or not math.isfinite(objective)):
            worst = max(errors, key=lambda name: _rank(errors[name]))
            return f"{worst}, whose learned inverse is the worst (reconstruction error {errors[worst]:.3g})"
        return f"the gradient of {bad[0]}" if bad else "no single layer"


def _rank(error: float) -> float:
    return math.inf if math.isnan(error) else error


@torch.no_grad()
def gradient_norm(parameters: list[nn.Parameter]) -> Any:
    """‖∂L/∂θ‖ over all parameters, a scalar tensor."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
