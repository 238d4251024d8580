"""What the loop asks of whoever takes the steps, and what it is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


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
