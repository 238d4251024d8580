"""The learning rate as a pure function of the step: nothing to save, nothing to resume."""

from __future__ import annotations

import math

from snflow.training.config.options import ScheduleOptions


def learning_rate(peak: float, options: ScheduleOptions, step: int, steps_per_epoch: int, epochs: int) -> float:
    """peak · min(1, (step + 1)/warm-up), then constant or half a cosine to ``final_fraction`` of it.

    Args:
        peak: the learning rate at the end of the warm-up.
        options: warm-up and decay.
        step: number of optimizer steps taken before this one.
        steps_per_epoch: steps in an epoch.
        epochs: epochs in the whole run.

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
    # The first step behind the warm-up has the whole peak, the last of the run has final_fraction of it.
    progress = min(1.0, (step - warmup) / max(1.0, epochs * steps_per_epoch - 1 - warmup))
    return peak * (options.final_fraction + (1 - options.final_fraction) * 0.5 * (1 + math.cos(math.pi * progress)))
