"""Steps that are taken at once: the numbers of each are read before the next begins."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from snflow.selfnorm import Followers
from snflow.training.config.options import OptimizerOptions
from snflow.training.engine.ema import MovingAverage
from snflow.training.engine.guard import DivergenceGuard, gradient_norm
from snflow.training.engine.steps.base import Asked, Taken


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
