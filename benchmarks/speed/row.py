"""What a row of the table is: contenders that do the same thing, and the ratio that is asked for."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from memory import peak_mebibytes
from timing import Timed, interleaved


@dataclass(frozen=True)
class Demand:
    """``over`` takes at least (or at most) so many times as long as ``under``, or so many times as many MiB.

    ``over`` may name several contenders: the fastest, or leanest, of them counts.
    """

    over: tuple[str, ...]
    under: str
    bound: float
    at_least: bool = True
    of: str = "ms"
    called: str = "fastest peer"

    def ratio(self, costs: Mapping[str, float]) -> float:
        """The measured ratio."""
        return min(costs[name] for name in self.over if name in costs) / costs[self.under]

    def met(self, costs: Mapping[str, float]) -> bool:
        """Whether it holds."""
        return (self.ratio(costs) >= self.bound) == self.at_least

    def measured(self, costs: Mapping[str, Mapping[str, float]]) -> dict[str, Any] | None:
        """What came of it; ``None`` where a contender is missing."""
        found = costs[self.of]
        if self.under not in found or not any(name in found for name in self.over):
            return None
        return {"demand": str(self), "ratio": self.ratio(found), "met": self.met(found)}

    def __str__(self) -> str:
        """E.g. ``exact / self-normalizing ≥ 3``."""
        best = self.called if self.of == "ms" else "leanest peer"
        over = self.over[0] if len(self.over) == 1 else best
        what = "" if self.of == "ms" else f", {self.of}"
        return f"{over} / {self.under} {'≥' if self.at_least else '≤'} {self.bound:.3g}{what}"


@dataclass(frozen=True)
class Row:
    """One comparison: ``make`` builds the contenders, each a function that does the thing once.

    ``published`` are milliseconds that somebody else has reported, by name: they are not measured here.
    """

    name: str
    what: str
    make: Callable[[], dict[str, Callable[[], object]]]
    demands: Sequence[Demand] = ()
    published: Mapping[str, float] = field(default_factory=dict)

    def measure(self, seconds: float) -> dict[str, Any]:
        """Take the contenders in turns; medians and quartiles in milliseconds, and each one's MiB at its peak."""
        acts = self.make()
        timed = {name: Timed(act) for name, act in acts.items()}
        interleaved(list(timed.values()), seconds, torch.get_default_device().type)
        medians = {name: one.median_ms for name, one in timed.items()}
        peaks = {name: peak_mebibytes(act) for name, act in acts.items()}
        costs = {"ms": {**medians, **self.published}, "MiB": peaks}
        spread = {name: [1000 * q for q in statistics.quantiles(one.seconds, n=4)] for name, one in timed.items()}
        return {
            "row": self.name,
            "what": self.what,
            "median_ms": medians,
            "quartiles_ms": spread,
            "times": {name: len(one.seconds) for name, one in timed.items()},
            "peak_mib": peaks,
            "published_ms": dict(self.published),
            "demands": [found for demand in self.demands if (found := demand.measured(costs)) is not None],
        }


def backward_of(module: torch.nn.Module, x: torch.Tensor, loss: Callable[[Any], torch.Tensor]) -> Callable[[], object]:
    """Forward and backward pass of a module in training, gradients of x and of the weights anew."""
    module.train()

    def act() -> None:
        for parameter in module.parameters():
            parameter.grad = None
        loss(module(x.detach().requires_grad_())).backward()

    return act
