"""Times of training steps and of samples, from interleaved measurements."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from snflow.bijections.base import InverseMethod
from snflow.data.dataset import Dataset
from snflow.distributions.flow import Flow
from snflow.train.optimizer import adam
from snflow.train.recipe import Recipe
from snflow.train.steps import gradient_norm
from targets import Row, recipe_of

BATCH = 100
LEAST_STEPS, MOST_STEPS = 3, 200
TURN_STEPS, TURN_SECONDS = 10, 0.5
"""A turn has this many consecutive steps, fewer if they are slow: in training, too, the weights are in the cache."""
TRAINED_STEPS = 20
"""Steps on one batch of noise before the weights are restored: a flow that overfits the batch would end with weights
that no real data produce."""
EVENTS: dict[str, tuple[tuple[int, ...], int]] = {
    "mnist": ((1, 28, 28), 256),
    "digits": ((1, 8, 8), 17),
    "cifar10": ((3, 32, 32), 256),
    "imagenet32": ((3, 32, 32), 256),
}
"""Event shape and number of values by dataset: times do not depend on the content of the images."""
FIRST_DIMENSION, DIMENSION_STEP = 32, 96
"""Figure 4 has the dimensions 32 + 96 k."""


@dataclass
class Timed:
    """Repeated times of one action, in seconds; the first is a warm-up and does not count.

    ``before`` is called before each repetition and is not timed.
    """

    act: Callable[[], object]
    before: Callable[[], object] | None = None
    seconds: list[float] = field(default_factory=list)
    warm: bool = False

    @property
    def median_ms(self) -> float:
        """The median, in milliseconds."""
        return 1000 * statistics.median(self.seconds)

    def once(self, device: str) -> None:
        """Act once; the clock stops when the device has finished."""
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
        """Act a few times in succession."""
        began = time.perf_counter()
        for _ in range(TURN_STEPS):
            self.once(device)
            if time.perf_counter() - began > TURN_SECONDS:
                break

    def done(self, budget: float) -> bool:
        """Whether there are enough repetitions, or enough seconds of them."""
        count = len(self.seconds)
        return count >= MOST_STEPS or (count >= LEAST_STEPS and sum(self.seconds) >= budget)


def interleaved(timed: Sequence[Timed], seconds: float, device: str) -> None:
    """Measure all of them in turns of a few steps, so that a slow period of the machine affects all of them.

    Args:
        timed: the actions.
        seconds: for each of them; at least 3 and at most 200 repetitions.
        device: the device they run on.
    """
    waiting = list(timed)
    while waiting:
        for one in waiting:
            one.turn(device)
        waiting = [one for one in waiting if not one.done(seconds)]


def time_rows(rows: Sequence[Row], changes: Mapping[str, Any], seconds: float, device: str) -> list[dict[str, Any]]:
    """Time a training step of 100 images, and samples in batches of 1 and 100 by each inverse, for each row.

    Args:
        rows: the rows of the table.
        changes: values by dotted name, over those of the rows.
        seconds: how long each number is measured.
        device: the device to run on.

    Returns:
        For each row, milliseconds by name.
    """
    flows = []
    for row in rows:
        recipe = recipe_of(row, changes)
        flows.append((recipe, build(recipe, *EVENTS[recipe.data["name"]], device)))
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
    """Time a training step of 100 rows for the dimensions 32 + 96 k up to ``largest``, in milliseconds, by row."""
    found: dict[str, list[tuple[int, float]]] = {row.name: [] for row in rows}
    for dimension in range(FIRST_DIMENSION, largest + 1, DIMENSION_STEP):
        recipes = [recipe_of(row, changes) for row in rows]
        flows = [(recipe, build(recipe, (dimension,), None, device)) for recipe in recipes]
        steps = [timed_training(recipe, flow, batch) for recipe, (flow, batch) in flows]
        interleaved(steps, seconds, device)
        for row, step in zip(rows, steps, strict=True):
            found[row.name].append((dimension, step.median_ms))
    return found


def build(recipe: Recipe, event_shape: tuple[int, ...], num_values: int | None, device: str) -> tuple[Flow, Tensor]:
    """Build the recipe's flow for events of this shape, and draw a batch of random events, ``(100, *event_shape)``."""
    generator = torch.Generator("cpu").manual_seed(0)
    size = (BATCH, *event_shape)
    # The same numbers on every device, whatever torch's default is.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        rows = torch.randn(size, generator=generator)
        if num_values is not None:
            rows = torch.randint(num_values, size, generator=generator, dtype=torch.uint8)
        torch.manual_seed(recipe.training.seed)
        flow = recipe.build_flow(Dataset(recipe.data["name"], rows, rows, rows, num_values=num_values))
    return flow.to(device), (rows.to(flow.base.dtype) if num_values is None else rows).to(device)


def timed_training(recipe: Recipe, flow: Flow, batch: Tensor) -> Timed:
    """Objective, gradient, norm and Adam's step, as in the training loop in the first epoch of the warm-up."""
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
        # Some layers are initialized from the first batch: the weights to restore are those after that step.
        nonlocal steps
        if steps == 1:
            start.update({name: value.clone() for name, value in flow.state_dict().items()})
        elif steps > 1 and steps % TRAINED_STEPS == 1:
            flow.load_state_dict(start)
            optimizer.state.clear()
        steps += 1

    return Timed(step, before=restore)


def _sampling(flow: Flow, seconds: float, device: str) -> dict[str, float]:
    """Milliseconds per sample by each inverse; an exact inverse is factorized once, in the warm-up."""
    found = {}
    methods: tuple[InverseMethod, ...] = ("learned", "exact") if flow.bijection.has_inversion_methods else ("exact",)
    for method in methods:
        timed = {size: Timed(_sample(flow, size, method)) for size in (1, BATCH)}
        interleaved(list(timed.values()), seconds, device)
        for size, one in timed.items():
            found[f"{method}_{size}_ms"] = one.median_ms / size
    return found


def _sample(flow: Flow, size: int, method: InverseMethod) -> Callable[[], None]:
    z = flow.base.rsample(size, generator=torch.Generator(flow.base.device).manual_seed(0))

    def sample() -> None:
        with torch.no_grad():
            flow.bijection.decode(z, inverse=method)

    return sample


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
