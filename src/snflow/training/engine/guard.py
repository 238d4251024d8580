"""What happens when numbers leave the finite ones, or when a likelihood is lost with a learned inverse."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from snflow.errors import DivergenceError
from snflow.selfnorm import SelfNormalizingMap, layer_diagnostics
from snflow.training.config.options import OptimizerOptions, TrainingOptions

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
