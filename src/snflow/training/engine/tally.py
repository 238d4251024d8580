"""What a run has to remember between two steps: its place in the data, the running sums of the epoch, the best."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Epoch:
    """Running sums of the epoch that is under way."""

    steps: int = 0
    """Steps with finite numbers."""
    skipped: int = 0
    """Steps left out."""
    objective: float = 0.0
    """Sum of the objectives in nats."""
    gradient_norm: float = 0.0
    """Sum of the gradient norms."""
    seconds: float = 0.0
    """Wall-clock time of the steps."""
    slowest_step: float = 0.0
    """Wall-clock time of the slowest of them."""
    reconstruction_errors: dict[str, float] | None = None
    """Those of the layers at the last checkpoint, for an epoch that is resumed at its very end."""

    def mean(self, total: float) -> float | None:
        """A sum over the steps → its mean, ``None`` without steps."""
        return total / self.steps if self.steps else None


@dataclass
class Tally:
    """Place, sums and best: with the model, the optimizer and the generators, the whole state of a run."""

    epochs: int = 0
    """Epochs finished."""
    batch: int = 0
    """Batches taken of the epoch under way."""
    step: int = 0
    """Optimizer steps taken, those left out counted too."""
    skips_in_a_row: int = 0
    """Steps left out since the last finite one."""
    best_step: int | None = None
    """Step of the best validation so far."""
    best_nll: float = math.inf
    """Its NLL in nats."""
    validations_without_gain: int = 0
    """Validations since then."""
    stopped_early: bool = False
    """Whether the patience ran out."""
    seconds_by_epoch: list[float] = field(default_factory=list)
    """Wall-clock time of the steps of each finished epoch."""
    repairs: dict[str, int] = field(default_factory=dict)
    """Repairs of each layer's inverse up to the last row."""
    epoch: Epoch = field(default_factory=Epoch)
    """The sums of the epoch under way."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Tally:
        """What :meth:`to_dict` gave → the tally."""
        return cls(**{**state, "epoch": Epoch(**state["epoch"])})

    def judge(self, nll: float, patience: int | None) -> bool:
        """Take in a validation NLL in nats: is it the best so far?

        Example:
            >>> tally = Tally(step=3)
            >>> tally.judge(2.0, patience=1), tally.judge(2.5, patience=1), tally.stopped_early
            (True, False, True)
        """
        if nll < self.best_nll or self.best_step is None:
            self.best_step, self.best_nll, self.validations_without_gain = self.step, nll, 0
            return True
        self.validations_without_gain += 1
        self.stopped_early = patience is not None and self.validations_without_gain >= patience
        return False
