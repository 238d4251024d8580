"""Drawings of the paper's figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from records import Record

_DPI = 150


def draw_samples(path: Path, records: Sequence[Record]) -> bool:
    """Draw Figure 2: for each run, samples by the learned inverse above those by the exact one, same latents.

    Returns:
        Whether there was anything to draw.
    """
    shown = [r for r in records if (Path(r.folder) / "samples.png").is_file()]
    if not shown:
        return False
    pictures = [imread(Path(r.folder) / "samples.png") for r in shown]
    heights = [p.shape[0] / p.shape[1] for p in pictures]
    figure = Figure(figsize=(9, 9 * sum(heights) + 0.35 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for one, picture, record in zip(axes, pictures, shown, strict=True):
        one.imshow(picture)
        one.set_axis_off()
        one.set_title(_label(record), fontsize=9, loc="left")
    _save(figure, path)
    return True


def draw_angles(path: Path, records: Sequence[Record]) -> bool:
    """Draw Figure 3: the angle between the likelihood gradient in training and the exact one, by epoch."""
    shown = [r for r in records if any(row.get("likelihood_angle") is not None for row in r.layers)]
    if not shown:
        return False
    figure, axes = _panels(len(shown))
    for one, record in zip(axes, shown, strict=True):
        for layer in dict.fromkeys(row["layer"] for row in record.layers):
            rows = [r for r in record.layers if r["layer"] == layer and r.get("likelihood_angle") is not None]
            angles = [row["likelihood_angle"] for row in rows]
            one.plot([row["epoch"] for row in rows], angles, label=layer, linewidth=1)
        one.set(title=_label(record), xlabel="epoch", ylabel="degrees", yscale="log")
        one.legend(frameon=False, fontsize=6)
    _save(figure, path)
    return True


def draw_curves(path: Path, records: Sequence[Record]) -> bool:
    """Draw Figure 5: exact validation NLL by seconds of training and by epoch, one row of panels per model."""
    shown = [r for r in records if r.metrics]
    if not shown:
        return False
    families = list(dict.fromkeys(r.row.split("_")[0] for r in shown))
    figure = Figure(figsize=(10, 4 * len(families)), layout="constrained")
    panels = figure.subplots(len(families), 2, squeeze=False)
    for (by_time, by_epoch), family in zip(panels, families, strict=True):
        for record in (r for r in shown if r.row.startswith(family)):
            rows = [row for row in record.metrics if row["validation_nll"] is not None and row["epoch"] > 0]
            nll = [row["validation_nll"] for row in rows]
            by_time.plot(seconds_until(record, [row["epoch"] for row in rows]), nll, label=_label(record), linewidth=1)
            by_epoch.plot([row["epoch"] for row in rows], nll, label=_label(record), linewidth=1)
        by_time.set(xlabel="seconds of training", title=family)
        by_epoch.set(xlabel="epoch", title=family)
        for one in (by_time, by_epoch):
            one.set_ylabel("exact validation NLL, nats")
            one.legend(frameon=False, fontsize=7)
    _save(figure, path)
    return True


def seconds_until(record: Record, epochs: Sequence[float]) -> list[float]:
    """Seconds of training until the end of each epoch; an epoch without a row counts as long as the next one."""
    kept = [row for row in record.metrics if row["epoch"] > 0]
    ends = np.cumsum(np.diff([0.0, *(row["epoch"] for row in kept)]) * [row["train_seconds"] for row in kept])
    by_epoch = dict(zip((row["epoch"] for row in kept), ends.tolist(), strict=True))
    return [by_epoch[epoch] for epoch in epochs]


def draw_times(path: Path, times: dict[str, list[tuple[int, float]]]) -> bool:
    """Draw Figure 4: milliseconds of a training batch by dimension, one line per gradient rule."""
    figure, axes = _panels(1)
    for name, points in times.items():
        axes[0].plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1, label=name)
    axes[0].set(xlabel="dimension", ylabel="ms per training batch of 100")
    axes[0].legend(frameon=False)
    _save(figure, path)
    return True


DRAWINGS: dict[str, Callable[[Path, Sequence[Record]], bool]] = {
    "samples": draw_samples,
    "angle": draw_angles,
    "curves": draw_curves,
}
"""The function that draws each kind of target; other kinds have no picture of runs."""


def _label(record: Record) -> str:
    return f"{record.row}, {record.epochs} epochs" + (f", seed {record.seed}" if record.seed else "")


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(2, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(5 * columns, 3.6 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=_DPI)
