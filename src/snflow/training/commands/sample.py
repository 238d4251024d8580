"""``snflow sample RUN``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from snflow.errors import ConfigError
from snflow.training.commands.warning import warn
from snflow.training.config.parser import Arguments


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

    from snflow.training.report import pictures
    from snflow.training.runs import load_flow, move

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
