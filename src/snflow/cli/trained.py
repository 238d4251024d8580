"""``snflow evaluate`` and ``snflow sample``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from snflow.cli.arguments import Arguments
from snflow.errors import ConfigError


def warn(text: str) -> None:
    """Print a warning to the standard error stream."""
    print(f"snflow: warning: {text}", file=sys.stderr)


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

    from snflow.data.registry import load
    from snflow.distributions.flow import bits_per_dim
    from snflow.train.evaluation import exact_nll
    from snflow.train.run_folder import load_flow, move

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


def sample(argv: Sequence[str]) -> int:
    """Draw samples from a trained run into a picture or an array."""
    arguments = Arguments("snflow sample RUN [--key value …]", "Draw samples from a trained run.")
    arguments.positional("run", "the run's folder")
    arguments.option("n", int, 100, "number of samples")
    arguments.option(
        "inverse",
        Literal["learned", "exact", "refined"],
        "exact",
        "way back from latents: one pass of the learned inverse, a factorisation, or an iterative solve",
    )
    arguments.option("out", str, "samples.png", "the file: .png for a picture, .npy for an array of shape (n, *event)")
    arguments.option("temperature", float, 1.0, "factor on the deviation of the latents")
    arguments.option("seed", int, 0, "seed of the latents")
    arguments.option("checkpoint", str, "best", "best (by validation), last, or the step of one that is kept")
    arguments.option("device", str, "cpu", "torch device: cpu, cuda, …")
    values = arguments.parse(argv)
    out = Path(values["out"])
    if out.suffix not in (".png", ".npy"):
        raise ConfigError("--out", expected="a file that ends in .png or .npy", got=repr(values["out"]))

    import numpy as np
    import torch

    from snflow.train import pictures
    from snflow.train.run_folder import load_flow, move

    flow, _ = load_flow(Path(values["run"]), values["checkpoint"], warn)
    move(flow, values["device"])
    generator = torch.Generator(flow.base.device).manual_seed(values["seed"])
    drawn = flow.sample(
        values["n"], inverse=values["inverse"], temperature=values["temperature"], generator=generator
    ).cpu()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".npy":
            np.save(out, drawn.numpy())
        elif pictures.is_image(flow):
            pictures.draw_image_grid(out, flow, drawn)
        else:
            pictures.draw_points(out, flow, drawn)
    except OSError as error:
        raise ConfigError("--out", expected="a writable file", got=str(error)) from error
    print(f"{len(drawn)} samples by the {values['inverse']} inverse: {out}")
    return 0
