"""The optimizer, the learning-rate schedule, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from snflow.errors import CheckpointError
from snflow.train.options import OptimizerOptions, ScheduleOptions


def adam(
    parameters: Iterable[nn.Parameter], options: OptimizerOptions, device: torch.device, *, recorded: bool = False
) -> torch.optim.Adam:
    """θ ← θ − η m̂ / (√v̂ + ε): Adam or AdamW, fused into one kernel if the device supports it.

    Args:
        parameters: θ, of any shapes.
        options: η, the decay rates of m and v, ε and the weight decay.
        device: the device of the parameters.
        recorded: whether the step is recorded as a CUDA graph.

    References:
        Kingma & Ba (2015), Adam, algorithm 1; Loshchilov & Hutter (2019), Decoupled weight decay regularization.

    Example:
        >>> weight = nn.Parameter(torch.zeros(3))
        >>> adam([weight], OptimizerOptions(learning_rate=0.5), weight.device).defaults["lr"]
        0.5
    """
    kind: type[torch.optim.Adam] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[options.name]
    return kind(
        parameters,
        lr=options.learning_rate,
        betas=options.betas,
        eps=options.eps,
        weight_decay=options.weight_decay,
        fused=device.type in ("cpu", "cuda"),
        capturable=recorded and device.type == "cuda",
    )


def learning_rate(
    peak: float, options: ScheduleOptions, step: int, steps_per_epoch: int, epochs: int, plateaus: int = 0
) -> float:
    """peak · min(1, (step + 1)/warm-up), then constant, half a cosine, or peak · factorⁿ after n decays.

    Args:
        peak: the learning rate at the end of the warm-up.
        options: warm-up and decay.
        step: number of optimizer steps taken before this one.
        steps_per_epoch: number of steps per epoch.
        epochs: number of epochs of the run.
        plateaus: number of decays so far, for the schedule ``"plateau"``.

    Returns:
        The learning rate of this step.

    Example:
        >>> options = ScheduleOptions(warmup_epochs=1.0, decay="cosine")
        >>> [round(learning_rate(1.0, options, step, 2, 3), 3) for step in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.25, 0.0]
    """
    warmup = options.warmup_epochs * steps_per_epoch
    if step < warmup:
        return peak * min(1.0, (step + 1) / warmup)
    if options.decay == "constant":
        return peak
    if options.decay == "plateau":
        return peak * options.factor**plateaus
    if options.decay == "step":
        decays: int = int((step - warmup) // (options.decay_epochs * steps_per_epoch))
        return peak * options.factor**decays
    # The first step after the warm-up has the peak rate, the last step of the run final_fraction of it.
    progress = min(1.0, (step - warmup) / max(1.0, epochs * steps_per_epoch - 1 - warmup))
    return peak * (options.final_fraction + (1 - options.final_fraction) * 0.5 * (1 + math.cos(math.pi * progress)))


class MovingAverage:
    """θ̄ ← d θ̄ + (1 − d) θ after each step, with d = min(decay, (1 + n)/(10 + n)) in step n.

    d is smaller in the first steps, so that the average of a short run is not dominated by the initial weights.

    Args:
        module: the module whose parameters are averaged.
        decay: d after many steps, in (0, 1).

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> average = MovingAverage(layer, 0.9)
        >>> with average.applied():
        ...     layer.weight.shape
        torch.Size([1, 1])
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._parameters = list(module.parameters())
        self._decay = decay
        self._updates = torch.zeros((), dtype=torch.float64, device=self._parameters[0].device)
        self._average = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Update with the current weights."""
        updates = float(self._updates)
        average_into = get_ema_multi_avg_fn(min(self._decay, (1 + updates) / (10 + updates)))
        average_into(self._average, self._parameters, None)
        self._updates += 1

    @torch.no_grad()
    def update_where(self, taken: Tensor) -> None:
        """Update the average if ``taken``, a boolean scalar on the device, is true, without waiting for its value."""
        share = (1 - ((1 + self._updates) / (10 + self._updates)).clamp(max=self._decay)) * taken
        for average, parameter in zip(self._average, self._parameters, strict=True):
            average.lerp_(parameter, share.to(average.dtype))
        self._updates += taken

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the averaged weights in the module within a block."""
        weights = [p.detach().clone() for p in self._parameters]
        self._assign(self._average)
        try:
            yield
        finally:
            self._assign(weights)

    def install(self) -> None:
        """Copy the averaged weights into the module."""
        self._assign(self._average)

    @torch.no_grad()
    def _assign(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Return the average, in the order of the parameters, and the number of updates."""
        return {"average": [t.clone() for t in self._average], "updates": int(self._updates)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved average.

        Raises:
            CheckpointError: the average is of a different model.
        """
        shapes, found = [p.shape for p in self._parameters], [t.shape for t in state["average"]]
        if shapes != found:
            raise CheckpointError(
                "moving average", expected=f"{len(shapes)} parameters of this flow", got="those of a different flow"
            )
        for mine, saved in zip(self._average, state["average"], strict=True):
            mine.copy_(saved)
        self._updates.fill_(state["updates"])
