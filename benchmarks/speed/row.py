"""What a row of the table is: contenders that do the same thing, and the ratio that is asked for."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from snflow.training.reproduce.timing import Timed, interleaved


@dataclass(frozen=True)
class Demand:
    """``over`` takes at least (or at most) so many times as long as ``under``.

    ``over`` may name several contenders: the fastest of them counts.
    """

    over: tuple[str, ...]
    under: str
    bound: float
    at_least: bool = True

    def ratio(self, medians: Mapping[str, float]) -> float:
        """The measured ratio."""
        return min(medians[name] for name in self.over if name in medians) / medians[self.under]

    def met(self, medians: Mapping[str, float]) -> bool:
        """Whether it holds."""
        return (self.ratio(medians) >= self.bound) == self.at_least

    def __str__(self) -> str:
        """E.g. ``exact / self-normalizing ≥ 3``."""
        over = self.over[0] if len(self.over) == 1 else "fastest peer"
        return f"{over} / {self.under} {'≥' if self.at_least else '≤'} {self.bound:.3g}"


@dataclass(frozen=True)
class Row:
    """One comparison: ``make`` builds the contenders, each a function that does the thing once."""

    name: str
    what: str
    make: Callable[[], dict[str, Callable[[], object]]]
    demands: Sequence[Demand] = ()

    def measure(self, seconds: float) -> dict[str, Any]:
        """Take the contenders in turns; medians and quartiles in milliseconds."""
        timed = {name: Timed(act) for name, act in self.make().items()}
        interleaved(list(timed.values()), seconds, torch.get_default_device().type)
        medians = {name: one.median_ms for name, one in timed.items()}
        spread = {name: [1000 * q for q in statistics.quantiles(one.seconds, n=4)] for name, one in timed.items()}
        return {
            "row": self.name,
            "what": self.what,
            "median_ms": medians,
            "quartiles_ms": spread,
            "times": {name: len(one.seconds) for name, one in timed.items()},
            "demands": [
                {"demand": str(demand), "ratio": demand.ratio(medians), "met": demand.met(medians)}
                for demand in self.demands
                if demand.under in medians and any(name in medians for name in demand.over)
            ],
        }


def backward_of(module: torch.nn.Module, x: torch.Tensor, loss: Callable[[Any], torch.Tensor]) -> Callable[[], object]:
    """Forward and backward pass of a module in training, gradients of x and of the weights anew."""
    module.train()

    def act() -> None:
        for parameter in module.parameters():
            parameter.grad = None
        loss(module(x.detach().requires_grad_())).backward()

    return act
