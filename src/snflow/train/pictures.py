"""Pictures of a run: curves and samples."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from snflow.bijections.base import InverseMethod
from snflow.distributions.flow import Flow
from snflow.train.files import replace_file

_SHOWN = 16
_POINTS = 2000
_GRID = 120
_TITLES: dict[InverseMethod, str] = {
    "learned": "learned inverse",
    "exact": "exact inverse",
    "refined": "refined inverse",
}


def draw_samples(
    path: Path,
    flow: Flow,
    data: Tensor,
    seed: int,
    seconds: float = math.inf,
    say: Callable[[str], None] = lambda text: None,
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
    """
    wanted = _SHOWN if is_image(flow) else _POINTS
    drawn, count = sample_within(flow, wanted, seed, seconds)
    if count < wanted:
        say(f"warning: {path} shows {count} instead of {wanted} samples: more would take over {seconds:.3g} s")
    figure = _image_rows(drawn, flow) if is_image(flow) else _clouds(drawn, flow, data)
    _save(figure, path)


def sample_by_each_inverse(flow: Flow, count: int, seed: int) -> dict[InverseMethod, Tensor]:
    """Map the same latents through the learned and through the exact inverse.

    Args:
        flow: the flow; without self-normalizing layers only the exact inverse is used.
        count: number of latents.
        seed: seed of the latents.

    Returns:
        Continuous data with shape ``(count, *event)`` by inversion method.
    """
    generator = torch.Generator(flow.base.device).manual_seed(seed)
    methods: tuple[InverseMethod, ...] = ("learned", "exact") if _learns_inverse(flow) else ("exact",)
    with torch.no_grad():
        z = flow.base.rsample(count, generator=generator)
        result: dict[InverseMethod, Tensor] = {}
        for method in methods:
            result[method] = flow.bijection.decode(z, inverse=method).reshape(count, *flow.event_shape)
    return result


def sample_within(flow: Flow, count: int, seed: int, seconds: float) -> tuple[dict[InverseMethod, Tensor], int]:
    """Draw samples by each inverse, as many of ``count`` as a time allows, at least one.

    Their number grows eightfold while the time of the last ones leaves room for the next.

    Returns:
        The samples as from :func:`sample_by_each_inverse`, and their number.
    """
    if seconds == math.inf:
        return sample_by_each_inverse(flow, count, seed), count
    began, number = time.perf_counter(), 1
    drawn = sample_by_each_inverse(flow, number, seed)
    if time.perf_counter() - began > seconds:
        return drawn, number
    while True:  # the first call, which factorizes, says little about the next ones
        start = time.perf_counter()
        drawn = sample_by_each_inverse(flow, number, seed)
        now, more = time.perf_counter(), min(count, 8 * number)
        if number == count or now - began + (now - start) * more / number > seconds:
            return drawn, number
        number = more


def draw_image_grid(path: Path, flow: Flow, images: Tensor) -> None:
    """Draw images with shape ``(n, channels, height, width)`` as one nearly square grid."""
    columns = max(1, round(len(images) ** 0.5))
    figure = Figure(figsize=(6, 6 * -(-len(images) // columns) / columns), layout="constrained")
    _show_grid(figure.add_subplot(), images, flow, columns)
    _save(figure, path)


def draw_points(path: Path, flow: Flow, points: Tensor) -> None:
    """Draw rows with shape ``(n, D)`` as a scatter plot of their first two columns."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    _scatter(figure.add_subplot(), points)
    _save(figure, path)


def draw_curves(path: Path, rows: list[dict[str, float | None]]) -> None:
    """Draw exact NLL and surrogate objective by epoch, next to the errors of the learned inverses.

    Args:
        path: PNG file to write.
        rows: rows of metrics.csv.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _plot(left, rows, "objective", "training objective (surrogate)", color="0.7")
    _plot(left, rows, "validation_nll", "exact validation NLL", color="C0")
    left.set(xlabel="epoch", ylabel="nats", title="likelihood")
    _plot(right, rows, "reconstruction_error", "‖g(f(x)) − x‖²", color="C1")
    _plot(right, rows, "inverse_residual", "‖I − RW‖ / √D", color="C2")
    right.set(xlabel="epoch", title="learned inverse, worst layer")
    if right.lines:
        right.set_yscale("log")
    for axes in (left, right):
        if axes.lines:
            axes.legend(frameon=False)
    # The first epochs are far above the rest: scale the axis for the later ones.
    cells = [row[column] for row in rows[1:] for column in ("validation_nll", "objective")]
    later = [nats for nats in cells if nats is not None]
    if len(later) > 3:
        low, high = min(later), float(np.quantile(later, 0.9))
        if np.isfinite([low, high]).all() and high > low:
            left.set_ylim(low - 0.1 * (high - low), high + 0.4 * (high - low))
    _save(figure, path)


def is_image(flow: Flow) -> bool:
    """Return whether events are images, with shape ``(channels, height, width)`` and 1 or 3 channels."""
    return len(flow.event_shape) == 3 and flow.event_shape[0] in (1, 3)


def _learns_inverse(flow: Flow) -> bool:
    return flow.bijection.has_inversion_methods


def _image_rows(drawn: dict[InverseMethod, Tensor], flow: Flow) -> Figure:
    _, height, width = flow.event_shape
    inches = 12.0
    strip = inches * (height + 1) / (_SHOWN * (width + 1))
    figure = Figure(figsize=(inches, (strip + 0.25) * len(drawn)), layout="constrained")
    for axes, (method, images) in zip(np.atleast_1d(figure.subplots(len(drawn), 1)), drawn.items(), strict=True):
        _show_grid(axes, images, flow, _SHOWN)
        axes.set_title(_TITLES[method], fontsize=8, loc="left")
    return figure


def _show_grid(axes: Axes, images: Tensor, flow: Flow, columns: int) -> None:
    """Tile images with shape ``(n, C, H, W)``, separated by one gray pixel."""
    top = float(flow.dequantization.num_values - 1) if flow.dequantization is not None else 1.0
    # A poor learned inverse can give any value: show only those in range.
    scaled = torch.nan_to_num(images.detach().cpu().float() / top).clamp(0, 1)
    n, channels, height, width = scaled.shape
    rows = -(-n // columns)
    canvas = torch.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 0.5)
    for i, image in enumerate(scaled):
        y, x = i // columns * (height + 1), i % columns * (width + 1)
        canvas[y : y + height, x : x + width] = image.permute(1, 2, 0)
    axes.imshow(canvas.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()


def _clouds(drawn: dict[InverseMethod, Tensor], flow: Flow, data: Tensor) -> Figure:
    planar = flow.event_shape == (2,)
    figure = Figure(figsize=(4 * (1 + planar + len(drawn)), 4), layout="constrained")
    panels = list(figure.subplots(1, 1 + planar + len(drawn)))
    real = data[:_POINTS].reshape(len(data[:_POINTS]), -1)
    _scatter(panels[0], real, "data")
    low, high = real[:, :2].double().quantile(0.001, 0), real[:, :2].double().quantile(0.999, 0)
    margin = 0.15 * (high - low).clamp(min=1e-6)
    (x0, y0), (x1, y1) = (low - margin).tolist(), (high + margin).tolist()
    if planar:
        extent = (x0, x1, y0, y1)
        panels[1].imshow(_density(flow, extent), extent=extent, origin="lower", aspect="auto", cmap="viridis")
        panels[1].set_title("density")
    for axes, (method, points) in zip(panels[1 + planar :], drawn.items(), strict=True):
        _scatter(axes, points, _TITLES[method])
    for axes in panels:
        axes.set(xlim=(x0, x1), ylim=(y0, y1))
    return figure


@torch.no_grad()
def _density(flow: Flow, extent: tuple[float, float, float, float]) -> NDArray[np.float64]:
    """Return p on a grid of the plane, with shape ``(_GRID, _GRID)``."""
    x0, x1, y0, y1 = extent
    y, x = torch.meshgrid(torch.linspace(y0, y1, _GRID), torch.linspace(x0, x1, _GRID), indexing="ij")
    points = torch.stack([x, y], -1).reshape(-1, 2).to(flow.base.device, flow.base.dtype)
    log_prob = torch.nan_to_num(flow(points).double().cpu(), nan=-torch.inf)
    return log_prob.exp().reshape(_GRID, _GRID).numpy()


def _scatter(axes: Axes, rows: Tensor, title: str = "") -> None:
    flat = rows.detach().cpu().double().reshape(len(rows), -1)
    x, y = flat[:, 0], flat[:, min(1, flat.shape[1] - 1)]
    axes.scatter(x.numpy(), y.numpy(), s=2, linewidths=0)
    axes.set_title(title)


def _plot(axes: Axes, rows: list[dict[str, float | None]], column: str, label: str, color: str) -> None:
    points = [(row["epoch"], row[column]) for row in rows if row[column] is not None]
    if points:
        axes.plot(*zip(*points, strict=True), label=label, color=color)


def _save(figure: Figure, path: Path) -> None:
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content.getvalue())
