"""Pictures of a run: curves and samples."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from snflow import plot
from snflow.bijections.base import InverseMethod
from snflow.distributions.flow import Flow
from snflow.train.files import replace_file

_SHOWN = 16
_POINTS = 2000


def draw_samples(
    path: Path,
    flow: Flow,
    data: Tensor,
    seed: int,
    seconds: float = math.inf,
    say: Callable[[str], None] = lambda text: None,
    context: Tensor | None = None,
) -> None:
    """Draw samples by the learned and by the exact inverse, from the same latents (the paper's Figure 2).

    Images are shown as grids, points in the plane beside their density, and other tables by their first two columns. A
    flow without learned inverses has a single row.

    Args:
        path: PNG file to write.
        flow: the trained flow.
        data: real rows to compare with, with shape ``(N, *event)``.
        seed: seed of the latents.
        seconds: time that the sampling may take; a flow that is too slow for it gets fewer samples, at least one.
        say: called with a message if there are fewer.
        context: contexts of the rows, ``(N, *context_shape)``: the samples are conditioned on the first ones.
    """
    wanted = _SHOWN if plot.is_image(flow.event_shape) else _POINTS
    if context is not None:
        wanted = min(wanted, len(context))
    drawn, count = sample_within(flow, wanted, seed, seconds, context)
    if count < wanted:
        say(f"warning: {path} shows {count} instead of {wanted} samples: more would take over {seconds:.3g} s")
    panels = {} if plot.is_image(flow.event_shape) else {"data": data}
    rows = {f"{method} inverse": samples for method, samples in drawn.items()}
    _save(plot.side_by_side(flow, panels | rows, columns=_SHOWN), path)


def sample_by_each_inverse(
    flow: Flow, count: int, seed: int, context: Tensor | None = None
) -> dict[InverseMethod, Tensor]:
    """Map the same latents through the learned and through the exact inverse.

    Args:
        flow: the flow; without self-normalizing layers only the exact inverse is used.
        count: number of latents.
        seed: seed of the latents.
        context: contexts, at least ``count``, each for one latent.

    Returns:
        Continuous data with shape ``(count, *event)`` by inversion method.
    """
    generator = torch.Generator(flow.base.device).manual_seed(seed)
    methods: tuple[InverseMethod, ...] = ("learned", "exact") if flow.bijection.has_inversion_methods else ("exact",)
    given = None if context is None else context[:count].to(flow.base.device, flow.base.dtype)
    with torch.no_grad():
        z = flow.base.rsample(count, generator=generator)
        result: dict[InverseMethod, Tensor] = {}
        for method in methods:
            result[method] = flow.bijection.decode(z, given, inverse=method).reshape(count, *flow.event_shape)
    return result


def sample_within(
    flow: Flow, count: int, seed: int, seconds: float, context: Tensor | None = None
) -> tuple[dict[InverseMethod, Tensor], int]:
    """Draw samples by each inverse, as many of ``count`` as a time allows, at least one.

    Their number grows eightfold while the time of the last ones leaves room for the next.

    Returns:
        The samples as from :func:`sample_by_each_inverse`, and their number.
    """
    draw = sample_by_each_inverse if context is None else partial(sample_by_each_inverse, context=context)
    if seconds == math.inf:
        return draw(flow, count, seed), count
    began, number = time.perf_counter(), 1
    drawn = draw(flow, number, seed)
    if time.perf_counter() - began > seconds:
        return drawn, number
    while True:  # the first call, which factorizes, says little about the next ones
        start = time.perf_counter()
        drawn = draw(flow, number, seed)
        now, more = time.perf_counter(), min(count, 8 * number)
        if number == count or now - began + (now - start) * more / number > seconds:
            return drawn, number
        number = more


def draw_rows(path: Path, flow: Flow, rows: Tensor) -> None:
    """Draw images with shape ``(n, channels, height, width)`` as one grid, or vectors as points."""
    _save(plot.side_by_side(flow, {"samples": rows}), path)


def draw_curves(path: Path, rows: list[dict[str, float | None]]) -> None:
    """Draw exact NLL and objective by epoch, next to the errors of the learned inverses.

    Args:
        path: PNG file to write.
        rows: rows of metrics.csv.
    """
    _save(plot.curves(rows), path)


def _save(figure: Figure, path: Path) -> None:
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content.getvalue())
