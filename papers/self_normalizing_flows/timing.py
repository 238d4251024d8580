"""Times of training steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from reproduce import recipe_of
from snflow.bijections.inverse import InverseMethod, inverting
from snflow.data.dataset import Dataset
from snflow.distributions.flow import Flow
from snflow.flows.building import build
from snflow.train.optimizer import adam
from snflow.train.recipe import Recipe
from snflow.train.steps import gradient_norm
from targets import Row

BATCH = 100
LEAST_STEPS, MOST_STEPS = 3, 200
TURN_STEPS, TURN_SECONDS = 10, 0.5
"""A turn is so many steps one after the other, or fewer if they are slow: training has its weights in the cache."""
TRAINED_STEPS = 20
"""Training steps on the one batch of noise before the weights go back to where they were: a flow that learns it by
heart ends with weights that no real data would make."""
EVENTS: dict[str, tuple[tuple[int, ...], int]] = {
    "mnist": ((1, 28, 28), 256),
    "digits": ((1, 8, 8), 17),
    "cifar10": ((3, 32, 32), 256),
    "imagenet32": ((3, 32, 32), 256),
}
"""Shape and levels of the data of a recipe: time does not depend on what the images show."""

FIRST_DIMENSION, DIMENSION_STEP = 32, 96
"""Figure 4 has the dimensions 32 + 96 k."""


@dataclass
class Timed:
    """Seconds that one thing took, again and again; the first is a warm-up that does not count.

    ``before`` is done before each time, while the clock stands.
    """

    act: Callable[[], object]
    before: Callable[[], object] | None = None
    seconds: list[float] = field(default_factory=list)
    warm: bool = False

    @property
    def median_ms(self) -> float:
        """Milliseconds, the median."""
        return 1000 * statistics.median(self.seconds)

    def once(self, device: str) -> None:
        """Do it and look at the clock, when the device has finished."""
        if self.before is not None:
            self.before()
        _finish(device)
        began = time.perf_counter()
        self.act()
        _finish(device)
        if self.warm:
            self.seconds.append(time.perf_counter() - began)
        self.warm = True

    def turn(self, device: str) -> None:
        """A few times one after the other."""
        began = time.perf_counter()
        for _ in range(TURN_STEPS):
            self.once(device)
            if time.perf_counter() - began > TURN_SECONDS:
                break

    def done(self, budget: float) -> bool:
        """Whether this was measured often or long enough."""
        count = len(self.seconds)
        return count >= MOST_STEPS or (count >= LEAST_STEPS and sum(self.seconds) >= budget)


def interleaved(timed: Sequence[Timed], seconds: float, device: str) -> None:
    """Measure all of them in turns of a few steps, so that a slower minute of the machine is everybody's.

    Args:
        timed: what to measure.
        seconds: for each of them; three times at least, 200 times at most.
        device: where it computes.
    """
    waiting = list(timed)
    while waiting:
        for one in waiting:
            one.turn(device)
        waiting = [one for one in waiting if not one.done(seconds)]


def time_rows(rows: Sequence[Row], changes: Mapping[str, Any], seconds: float, device: str) -> list[dict[str, Any]]:
    """Time a training step of 100 images, and samples at batch sizes 1 and 100 by each inverse, of each row.

    Args:
        rows: the recipes.
        changes: values by ``section.option`` over those of the rows.
        seconds: of measurement for each number.
        device: where it computes.

    Returns:
        Milliseconds by name of the number, one mapping a row.
    """
    flows = []
    for row in rows:
        recipe = recipe_of(row, changes)
        shape, levels = EVENTS[recipe.data_name]
        flows.append((recipe, built(recipe, shape, levels, device)))
    steps = [timed_training(recipe, flow, batch) for recipe, (flow, batch) in flows]
    interleaved(steps, seconds, device)
    found = [
        {"row": row.name, "batch_ms": step.median_ms, "steps": len(step.seconds)}
        for row, step in zip(rows, steps, strict=True)
    ]
    for numbers, (_, (flow, _)) in zip(found, flows, strict=True):
        numbers |= _sampling(flow.eval(), seconds, device)
    return found


def time_dimensions(
    rows: Sequence[Row], changes: Mapping[str, Any], largest: int, seconds: float, device: str
) -> dict[str, list[tuple[int, float]]]:
    """Milliseconds of a training step of 100 rows by dimension 32 + 96 k up to ``largest``, for each row."""
    found: dict[str, list[tuple[int, float]]] = {row.name: [] for row in rows}
    for dimension in range(FIRST_DIMENSION, largest + 1, DIMENSION_STEP):
        recipes = [recipe_of(row, changes) for row in rows]
        flows = [(recipe, built(recipe, (dimension,), None, device)) for recipe in recipes]
        steps = [timed_training(recipe, flow, batch) for recipe, (flow, batch) in flows]
        interleaved(steps, seconds, device)
        for row, step in zip(rows, steps, strict=True):
            found[row.name].append((dimension, step.median_ms))
    return found


def built(recipe: Recipe, shape: tuple[int, ...], levels: int | None, device: str) -> tuple[Flow, Tensor]:
    """The recipe's flow for events of that shape, and a batch of random ones."""
    generator = torch.Generator("cpu").manual_seed(0)
    size = (BATCH, *shape)
    # The same numbers on every device, whatever torch's default is.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        rows = torch.randn(size, generator=generator)
        if levels is not None:
            rows = torch.randint(levels, size, generator=generator, dtype=torch.uint8)
        torch.manual_seed(recipe.training.seed)
        flow = build(recipe.flow, Dataset(recipe.data_name, rows, rows, rows, levels=levels))
    return flow.to(device), (rows.to(flow.base.dtype) if levels is None else rows).to(device)


def timed_training(recipe: Recipe, flow: Flow, batch: Tensor) -> Timed:
    """Objective, gradient, norm and Adam's step, as the training loop takes them in the first epoch of the warm-up."""
    options = recipe.optimizer
    parameters = [p for p in flow.parameters() if p.requires_grad]
    slow = replace(options, learning_rate=options.learning_rate / max(1, recipe.schedule.warmup_epochs))
    optimizer = adam(parameters, slow, batch.device)

    def step() -> None:
        flow.train()
        loss = -flow(batch).mean()
        loss.backward()
        norm = gradient_norm(parameters)
        if options.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, options.clip_norm, norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    start: dict[str, Tensor] = {}
    steps = 0

    def restore() -> None:
        # The first step initialises what the first batch initialises: the weights to go back to are those after it.
        nonlocal steps
        if steps == 1:
            start.update({name: value.clone() for name, value in flow.state_dict().items()})
        elif steps > 1 and steps % TRAINED_STEPS == 1:
            flow.load_state_dict(start)
            optimizer.state.clear()
        steps += 1

    return Timed(step, before=restore)


def _sampling(flow: Flow, seconds: float, device: str) -> dict[str, float]:
    """Milliseconds a sample by each way back; factors of the exact one are made before, once."""
    methods: tuple[InverseMethod, ...] = ("exact",)
    if any(hasattr(layer, "inverse_method") for layer in flow.modules()):
        methods = ("learned", "exact")
    found = {}
    for method in methods:
        timed = {size: Timed(_sample(flow, size, method)) for size in (1, BATCH)}
        interleaved(list(timed.values()), seconds, device)
        for size, one in timed.items():
            found[f"{method}_{size}_ms"] = one.median_ms / size
    return found


def _sample(flow: Flow, size: int, method: InverseMethod) -> Callable[[], None]:
    z = flow.base.rsample(size, generator=torch.Generator(flow.base.device).manual_seed(0))

    def sample() -> None:
        with torch.no_grad(), inverting(flow.bijection, method):
            flow.bijection.decode(z)

    return sample


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
