"""``snflow evaluate RUN``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from snflow.training.commands.warning import warn
from snflow.training.config.parser import Arguments


def evaluate(argv: Sequence[str]) -> int:
    """Print the exact likelihood of a trained run on a split of its data."""
    arguments = Arguments(
        "snflow evaluate RUN [--key value …]",
        "Exact negative log-likelihood of a trained run, summed in float64, on a split of its data.",
    )
    arguments.positional("run", "the run's folder")
    arguments.option("split", Literal["train", "validation", "test"], "test", "part of the data")
    arguments.option("checkpoint", str, "best", "best (by validation), last, or the step of one that is kept")
    arguments.option("batch_size", int | None, None, "rows at a time; null takes the recipe's eval_batch_size")
    arguments.option("device", str, "cpu", "torch device: cpu, cuda, …")
    values = arguments.parse(argv)

    import math

    from snflow.data import load
    from snflow.distributions import bits_per_dim
    from snflow.training.engine.evaluation import exact_nll
    from snflow.training.runs import load_flow, move

    flow, recipe = load_flow(Path(values["run"]), values["checkpoint"], warn)
    dataset = load(recipe.data)
    move(flow, values["device"])
    rows = getattr(dataset, values["split"])
    size = values["batch_size"] or recipe.training.eval_batch_size
    nll = exact_nll(flow, rows, size, recipe.training.seed)
    bits = "" if dataset.levels is None else f", {bits_per_dim(nll, math.prod(dataset.event_shape)):.6f} bits/dim"
    print(
        f"exact {values['split']} NLL of the {values['checkpoint']} checkpoint: {nll:.6f} nats{bits}, {len(rows)} rows"
    )
    return 0
