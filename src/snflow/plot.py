"""Pictures of flows, data and training, each a function that returns a matplotlib figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from snflow.bijections.base import InverseMethod, Shape
from snflow.distributions.flow import Flow
from snflow.errors import ConfigError, ShapeError, check_choice, check_count

_POINTS = 2000
"""Number of points of a scatter plot; more hide each other."""

_INK, _PALE, _ACCENT = "#1f3a5f", "#9aa7b5", "#d1495b"


def density(
    flow: Flow,
    data: Tensor | None = None,
    *,
    context: Tensor | None = None,
    limits: tuple[float, float, float, float] | None = None,
    resolution: int = 200,
    names: Sequence[str] = ("x₁", "x₂"),
) -> Figure:
    """p(x | context) on a grid of the plane, beside the data.

    Args:
        flow: a flow on vectors with two elements.
        data: points to draw on the density, with shape ``(N, 2)``; they also set the limits.
        context: one context, with shape ``context_shape``, if the flow is conditional.
        limits: left, right, bottom and top of the grid; by default those of the data, or of samples.
        resolution: number of grid points on each side.
        names: labels of the axes.

    Returns:
        A figure with one panel.

    Raises:
        ShapeError: events are not vectors with two elements.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.realnvp(2, width=4).eval()
        >>> figure = snflow.plot.density(flow, torch.randn(100, 2), resolution=20)
        >>> figure.axes[0].get_xlabel()
        'x₁'
    """
    if flow.event_shape != (2,):
        raise ShapeError(
            "plot.density",
            expected="a flow on vectors with two elements",
            got=f"event shape {flow.event_shape}",
            fix="use plot.corner with samples",
        )
    check_count("plot.density", "resolution", resolution)
    if limits is None:
        given = None if context is None else context[None]
        limits = _limits(flow.sample(_POINTS, given).reshape(-1, 2) if data is None else data)
    figure, axes = _panel()
    values = _grid_density(flow, limits, resolution, context)
    picture = axes.imshow(values, extent=limits, origin="lower", aspect="auto", cmap="viridis")
    figure.colorbar(picture, ax=axes, label="density")
    if data is not None:
        points = _rows(data)[:_POINTS]
        axes.scatter(points[:, 0], points[:, 1], s=2, color="white", alpha=0.4, linewidths=0)
    axes.set(xlim=limits[:2], ylim=limits[2:], xlabel=names[0], ylabel=names[1])
    return figure


def corner(
    samples: Tensor,
    data: Tensor | None = None,
    *,
    names: Sequence[str] | None = None,
    bins: int = 40,
    most: int = 8,
) -> Figure:
    """All one- and two-dimensional marginals: histograms on the diagonal, points below it.

    Args:
        samples: draws from a flow, with shape ``(N, D)``.
        data: data to draw beneath the samples, with shape ``(M, D)``.
        names: labels of the columns.
        bins: number of bins of a histogram.
        most: the largest number of columns that are shown; the first ones are.

    Returns:
        A figure with D × D panels, of which the upper triangle is empty.

    Raises:
        ShapeError: the samples are not rows, or the data or the names have a different number of columns.

    Example:
        >>> import torch, snflow
        >>> figure = snflow.plot.corner(torch.randn(100, 3), torch.randn(100, 3), names=["a", "b", "c"])
        >>> len(figure.axes)
        6
    """
    drawn, real = _rows(samples), None if data is None else _rows(data)
    columns = drawn.shape[1]
    labels = [f"x{_subscript(i + 1)}" for i in range(columns)] if names is None else list(names)
    for what, count in (("data", columns if real is None else real.shape[1]), ("names", len(labels))):
        if count != columns:
            raise ShapeError("plot.corner", expected=f"{columns} columns in {what}, as in the samples", got=f"{count}")
    check_count("plot.corner", "most", most)
    shown = min(columns, most)
    figure = Figure(figsize=(1 + 1.6 * shown, 1 + 1.6 * shown), layout="constrained")
    grid = figure.add_gridspec(shown, shown)
    for row in range(shown):
        for column in range(row + 1):
            axes = figure.add_subplot(grid[row, column])
            low, high = _range(np.concatenate([drawn, *([] if real is None else [real])])[:, column])
            if row == column:
                for values, color, filled in ((real, _PALE, True), (drawn, _ACCENT, False)):
                    if values is not None:
                        heights, edges = np.histogram(values[:, row], bins, (low, high), density=True)
                        axes.stairs(heights, edges, fill=filled, color=color)
                axes.set_yticks([])
            else:
                for values, color in ((real, _PALE), (drawn, _ACCENT)):
                    if values is not None:
                        some = values[:_POINTS]
                        axes.scatter(some[:, column], some[:, row], s=2, color=color, alpha=0.5, linewidths=0)
                axes.set_ylim(*_range(drawn[:, row] if real is None else np.concatenate([drawn, real])[:, row]))
            axes.set_xlim(low, high)
            axes.tick_params(labelsize=7)
            if row == shown - 1:
                axes.set_xlabel(labels[column])
            else:
                axes.set_xticklabels([])
            if column == 0 and row > 0:
                axes.set_ylabel(labels[row])
            elif row != column:
                axes.set_yticklabels([])
    figure.suptitle("samples" if real is None else "samples (red) over data (gray)", fontsize=9)
    return figure


def samples(
    flow: Flow,
    data: Tensor | None = None,
    *,
    n: int = 64,
    inverse: InverseMethod | Sequence[InverseMethod] = "exact",
    temperature: float = 1.0,
    context: Tensor | None = None,
    seed: int = 0,
) -> Figure:
    """x = f⁻¹(z) for the same latents z by each inversion method: a grid of images, or points beside the data.

    Args:
        flow: the flow.
        data: data shown first, with shape ``(N, *event)``.
        n: number of samples.
        inverse: one inversion method of self-normalizing layers, or several to compare.
        temperature: factor on the scale of the latents.
        context: one context, with shape ``context_shape``, if the flow is conditional.
        seed: seed of the latents.

    Returns:
        A figure with one panel for the data and one for each method. Vectors are shown by their first two elements.

    Example:
        >>> import snflow
        >>> flow = snflow.flows.conv((1, 8, 8)).eval()
        >>> len(snflow.plot.samples(flow, n=4, inverse=["learned", "exact"]).axes)
        2
    """
    check_count("plot.samples", "n", n)
    methods: Sequence[InverseMethod] = [inverse] if isinstance(inverse, str) else inverse
    given = None if context is None else context[None]
    panels: dict[str, Tensor] = {} if data is None else {"data": data[: n if is_image(flow.event_shape) else _POINTS]}
    for method in methods:
        check_choice("plot.samples", "inverse", method, InverseMethod)
        generator = torch.Generator(flow.base.device).manual_seed(seed)
        drawn = flow.sample(n, given, inverse=method, temperature=temperature, generator=generator)
        title = f"{method} inverse" if flow.bijection.has_inversion_methods else "samples"
        panels[title] = drawn.reshape(n, *flow.event_shape)
    return side_by_side(flow, panels)


def side_by_side(flow: Flow, panels: Mapping[str, Tensor], *, columns: int | None = None) -> Figure:
    """Several sets of rows: images as one grid each, vectors as points in the plane of their first two elements.

    Where events have two elements, the density is shown too, after the first set.

    Args:
        flow: the flow that gives the event shape, and the density.
        panels: rows with shape ``(n, *event)``, by title.
        columns: number of columns of a grid of images; by default a square grid, or one line if there are several.

    Returns:
        A figure with one panel for each set, and one for the density.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.realnvp(2, width=4).eval()
        >>> [axes.get_title() for axes in side_by_side(flow, {"data": torch.randn(9, 2)}).axes]
        ['data', 'density']
    """
    if is_image(flow.event_shape):
        return _image_panels(panels, flow, columns)
    return _point_panels(panels, flow)


def interpolation(
    flow: Flow,
    start: Tensor,
    end: Tensor,
    *,
    steps: int = 9,
    inverse: InverseMethod = "exact",
    context: Tensor | None = None,
) -> Figure:
    """x(t) = f⁻¹(z(t)), with z(t) on the great circle between the latents of two samples.

    Latents are interpolated spherically, since most of the mass of a normal density in many dimensions lies near a
    sphere: points on a straight line between two latents would be less typical than both.

    Args:
        flow: a flow on images or vectors.
        start: the first samples, with shape ``(rows, *event)``.
        end: the last samples, with the same shape.
        steps: number of samples in a row, including both ends.
        inverse: the inversion method of self-normalizing layers.
        context: the context, with shape ``context_shape``, if the flow is conditional.

    Returns:
        A figure with one row of images per pair, or one path in the plane of the first two elements per pair.

    Raises:
        ShapeError: the two have different shapes.

    References:
        White (2016), Sampling generative networks, section 2.1.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.conv((1, 8, 8)).eval()
        >>> len(snflow.plot.interpolation(flow, torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8), steps=3).axes)
        1
    """
    check_count("plot.interpolation", "steps", steps)
    if start.shape != end.shape:
        raise ShapeError(
            "plot.interpolation",
            expected=f"ends of shape {tuple(start.shape)}, as the starts",
            got=f"{tuple(end.shape)}",
        )
    rows = len(start)
    contexts = None if context is None else context.expand(rows, *context.shape)
    with torch.no_grad():
        first, last = (flow.encode(x, contexts).flatten(1) for x in (start, end))
        cosine = torch.cosine_similarity(first, last, dim=1).clamp(-1, 1)[:, None, None]
        angle = cosine.arccos().clamp_min(1e-6)
        t = torch.linspace(0, 1, steps, dtype=first.dtype, device=first.device)[None, :, None]
        mixed = (torch.sin((1 - t) * angle) * first[:, None] + torch.sin(t * angle) * last[:, None]) / torch.sin(angle)
        z = mixed.reshape(rows * steps, *flow.base.event_shape)
        x = flow.decode(z, None if contexts is None else contexts.repeat_interleave(steps, 0), inverse=inverse)
    if is_image(flow.event_shape):
        return _image_panels({"": x}, flow, columns=steps)
    figure, axes = _panel()
    for path in _rows(x).reshape(rows, steps, -1):
        axes.plot(path[:, 0], path[:, min(1, path.shape[1] - 1)], ".-")
    axes.set(xlabel="x₁", ylabel="x₂")
    return figure


def temperature(
    flow: Flow,
    temperatures: Sequence[float] = (0.25, 0.5, 0.7, 0.85, 1.0),
    *,
    n: int = 8,
    inverse: InverseMethod = "exact",
    seed: int = 0,
) -> Figure:
    """x = f⁻¹(T z) for the same latents z at several temperatures T: below 1, samples are more typical.

    Args:
        flow: an unconditional flow.
        temperatures: T, one row of images or one panel of points each.
        n: number of samples at each temperature.
        inverse: the inversion method of self-normalizing layers.
        seed: seed of the latents.

    Returns:
        A figure with one panel per temperature.

    References:
        Kingma & Dhariwal (2018), Glow, section 6 and figure 8.

    Example:
        >>> import snflow
        >>> flow = snflow.flows.conv((1, 8, 8)).eval()
        >>> len(snflow.plot.temperature(flow, [0.5, 1.0], n=2).axes)
        2
    """
    panels = {}
    for value in temperatures:
        generator = torch.Generator(flow.base.device).manual_seed(seed)
        panels[f"T = {value:g}"] = flow.sample(n, inverse=inverse, temperature=value, generator=generator)
    return _image_panels(panels, flow, columns=n) if is_image(flow.event_shape) else _point_panels(panels)


def calibration(flow: Flow, data: Tensor, context: Tensor | None = None, *, draws: int = 200, seed: int = 0) -> Figure:
    """Coverage of highest-density regions, and ranks of each element among draws: both uniform if the flow is right.

    The region of level α holds the points whose density exceeds the (1 − α)-quantile of the densities of samples. The
    left panel has the share of the data inside it against α. The right one has, for each element of a vector, the
    empirical distribution of the rank of the data among samples (the probability integral transform), minus the
    uniform one. The bands hold 99 % of such curves pointwise, for a calibrated flow.

    Args:
        flow: the flow, on vectors or images.
        data: held-out data, with shape ``(N, *event)``.
        context: their contexts, with shape ``(N, *context_shape)``.
        draws: number of samples for each context; without a context, ten times as many for all data together.
        seed: seed of the samples.

    Returns:
        A figure with two panels.

    References:
        Talts et al. (2018), Validating Bayesian inference algorithms with simulation-based calibration; Hermans et al.
        (2022), A trust crisis in simulation-based inference, for the coverage.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.Flow(snflow.Chain([]), snflow.StandardNormal(2))
        >>> len(snflow.plot.calibration(flow, torch.randn(50, 2)).axes)
        2
    """
    levels, ranks = calibration_ranks(flow, data, context, draws=draws, seed=seed)
    count = len(levels)
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    grid = np.linspace(0, 1, 201)
    band = 2.576 * np.sqrt(grid * (1 - grid) / count)
    left.fill_between(grid, grid - band, grid + band, color=_PALE, alpha=0.4, linewidth=0)
    left.plot([0, 1], [0, 1], color=_PALE, linewidth=1)
    left.plot(np.sort(levels), (np.arange(count) + 1) / count, color=_INK)
    left.set(xlabel="level of the highest-density region", ylabel="share of the data inside", title="coverage")
    right.fill_between(grid, -band, band, color=_PALE, alpha=0.4, linewidth=0)
    right.axhline(0, color=_PALE, linewidth=1)
    for number, column in enumerate(ranks.T[:20]):
        difference = np.searchsorted(np.sort(column), grid, side="right") / count - grid
        right.plot(grid, difference, linewidth=1, label=f"x{_subscript(number + 1)}")
    right.set(xlabel="rank among samples", ylabel="empirical minus uniform", title="rank of each element")
    if 1 < ranks.shape[1] <= 6:
        right.legend(frameon=False, fontsize=7)
    return figure


@torch.no_grad()
def calibration_ranks(
    flow: Flow, data: Tensor, context: Tensor | None = None, *, draws: int = 200, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each row x of the data, P(log p(X) > log p(x)) and P(Xᵢ < xᵢ) over samples X of the flow.

    Args:
        flow: the flow.
        data: held-out data, with shape ``(N, *event)``.
        context: their contexts, with shape ``(N, *context_shape)``.
        draws: number of samples for each context; without a context, ten times as many for all data together.
        seed: seed of the samples.

    Returns:
        The level of the smallest highest-density region that holds each row, with shape ``(N,)``, and the ranks of the
        elements, with shape ``(N, D)``; ties count one half.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.Flow(snflow.Chain([]), snflow.StandardNormal(1))
        >>> levels, ranks = calibration_ranks(flow, torch.zeros(1, 1))
        >>> float(levels[0]), 0.4 < float(ranks[0, 0]) < 0.6
        (0.0, True)
    """
    check_count("plot.calibration", "draws", draws)
    generator = torch.Generator(flow.base.device).manual_seed(seed)
    own = flow.log_prob(data, context, generator=generator)
    if context is None:
        drawn = flow.sample(10 * draws, generator=generator)
        densities = flow.log_prob(drawn, generator=generator).expand(len(data), -1)
        sorted_draws = drawn.flatten(1).T.contiguous().sort(1).values
        values = data.flatten(1).to(drawn.dtype).T.contiguous()
        below, upto = (torch.searchsorted(sorted_draws, values, side=side) for side in ("left", "right"))
        ranks = ((below + upto).double() / (2 * sorted_draws.shape[1])).T
    else:
        drawn = flow.sample(draws, context, generator=generator)
        repeated = context.expand(draws, *context.shape).flatten(0, 1)
        densities = flow.log_prob(drawn.flatten(0, 1), repeated, generator=generator).reshape(draws, -1).T
        before = (drawn < data).double() + 0.5 * (drawn == data).double()
        ranks = before.mean(0).flatten(1)
    levels = (densities > own[:, None]).double().mean(1)
    return levels.cpu().numpy(), ranks.cpu().numpy()


def curves(history: Sequence[Mapping[str, float | None]]) -> Figure:
    """Exact validation NLL and training objective by epoch, beside the errors of the learned inverses.

    Args:
        history: one mapping per epoch, as in ``metrics.csv``.

    Returns:
        A figure with two panels, or one if there are no learned inverses.

    Example:
        >>> figure = curves([{"epoch": 0, "validation_nll": 3.0}, {"epoch": 1, "validation_nll": 2.0}])
        >>> figure.axes[0].get_ylabel()
        'nats'
    """
    tracked = any(row.get("inverse_residual") is not None for row in history)
    figure = Figure(figsize=(10 if tracked else 5.5, 4), layout="constrained")
    left, *rest = figure.subplots(1, 2 if tracked else 1, squeeze=False)[0]
    _line(left, history, "objective", "training objective (surrogate)" if tracked else "training", color=_PALE)
    _line(left, history, "validation_nll", "exact validation NLL", color=_INK)
    left.set(xlabel="epoch", ylabel="nats", title="negative log-likelihood")
    for right in rest:
        _line(right, history, "reconstruction_error", "‖g(f(x)) − x‖²", color=_ACCENT)
        _line(right, history, "inverse_residual", "‖I − RW‖ / √D", color=_INK)
        right.set(xlabel="epoch", title="learned inverse, worst layer", yscale="log")
    for axes in (left, *rest):
        if axes.lines:
            axes.legend(frameon=False)
    # The first epochs are far above the rest: scale the axis for the later ones.
    cells = [row.get(column) for row in history[1:] for column in ("validation_nll", "objective")]
    later = [nats for nats in cells if nats is not None and math.isfinite(nats)]
    if len(later) > 3:
        low, high = min(later), float(np.quantile(later, 0.9))
        if high > low:
            left.set_ylim(low - 0.1 * (high - low), high + 0.4 * (high - low))
    return figure


def is_image(event_shape: Shape) -> bool:
    """Return whether events are images, with shape ``(channels, height, width)`` and 1 or 3 channels."""
    return len(event_shape) == 3 and event_shape[0] in (1, 3)


def _panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.5, 4.5), layout="constrained")
    return figure, figure.add_subplot()


def _image_panels(panels: Mapping[str, Tensor], flow: Flow, columns: int | None = None) -> Figure:
    count = max(map(len, panels.values()))
    columns = columns or (min(16, count) if len(panels) > 1 else max(1, round(count**0.5)))
    _, height, width = flow.event_shape
    inches = min(12.0, 0.75 * columns)
    heights = [
        inches * -(-len(images) // columns) * (height + 1) / (columns * (width + 1)) for images in panels.values()
    ]
    figure = Figure(figsize=(inches, sum(heights) + 0.3 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    top = float(flow.dequantization.num_values - 1) if flow.dequantization is not None else 1.0
    for panel, (title, images) in zip(axes, panels.items(), strict=True):
        panel.imshow(_tiled(images, top, columns), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        panel.set_axis_off()
        panel.set_title(title, fontsize=8, loc="left")
    return figure


def _tiled(images: Tensor, top: float, columns: int) -> NDArray[Any]:
    """Images ``(n, C, H, W)`` side by side, separated by one gray pixel."""
    # A poor learned inverse can give any value: show only those in range.
    scaled = torch.nan_to_num(images.detach().cpu().float() / top).clamp(0, 1)
    n, channels, height, width = scaled.shape
    canvas = torch.full((-(-n // columns) * (height + 1) - 1, columns * (width + 1) - 1, channels), 0.5)
    for i, image in enumerate(scaled):
        y, x = i // columns * (height + 1), i % columns * (width + 1)
        canvas[y : y + height, x : x + width] = image.permute(1, 2, 0)
    return canvas.squeeze(-1).numpy()


def _point_panels(panels: Mapping[str, Tensor], flow: Flow | None = None) -> Figure:
    rows = {title: _rows(points) for title, points in panels.items()}
    first, shown = next(iter(rows)), [rows["data"]] if "data" in rows else list(rows.values())
    (left, right), (bottom, top) = (
        _range(np.concatenate([points[:, min(column, points.shape[1] - 1)] for points in shown])) for column in (0, 1)
    )
    planar = flow is not None and flow.event_shape == (2,) and flow.bijection.context_shape is None
    titles = [first, *(["density"] if planar else []), *(title for title in rows if title != first)]
    figure = Figure(figsize=(0.5 + 3.5 * len(titles), 3.8), layout="constrained")
    for axes, title in zip(figure.subplots(1, len(titles), squeeze=False)[0], titles, strict=True):
        if title in rows:
            points = rows[title][:_POINTS]
            axes.scatter(points[:, 0], points[:, min(1, points.shape[1] - 1)], s=2, color=_INK, linewidths=0)
        elif flow is not None:
            limits = (left, right, bottom, top)
            axes.imshow(_grid_density(flow, limits, 120), extent=limits, origin="lower", aspect="auto", cmap="viridis")
        axes.set(title=title, xlim=(left, right), ylim=(bottom, top), xlabel="x₁")
    return figure


@torch.no_grad()
def _grid_density(
    flow: Flow, limits: tuple[float, float, float, float], resolution: int, context: Tensor | None = None
) -> NDArray[np.float64]:
    """p on a grid of the plane, with shape ``(resolution, resolution)``."""
    left, right, bottom, top = limits
    y, x = torch.meshgrid(
        torch.linspace(bottom, top, resolution), torch.linspace(left, right, resolution), indexing="ij"
    )
    grid = torch.stack([x, y], -1).reshape(-1, 2).to(flow.base.device, flow.base.dtype)
    contexts = None if context is None else context.expand(len(grid), *context.shape)
    log_prob = torch.nan_to_num(flow.log_prob(grid, contexts).double().cpu(), nan=-torch.inf)
    return log_prob.exp().reshape(resolution, resolution).numpy()


def _line(axes: Axes, history: Sequence[Mapping[str, float | None]], column: str, label: str, color: str) -> None:
    points = [(row["epoch"], row[column]) for row in history if row.get(column) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), label=label, color=color)


def _rows(values: Tensor) -> NDArray[np.float64]:
    """Rows ``(N, D)`` in float64."""
    if values.dim() < 2 or len(values) == 0:
        raise ShapeError("plot", expected="rows of shape (N, D)", got=f"{tuple(values.shape)}")
    return values.detach().cpu().double().flatten(1).numpy()


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    """Limits of an axis that show all but the outermost values."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        raise ConfigError("plot", expected="finite values", got="none")
    low, high = np.quantile(finite, [0.001, 0.999])
    margin = 0.1 * (high - low) or 0.5
    return float(low - margin), float(high + margin)


def _limits(data: Tensor) -> tuple[float, float, float, float]:
    rows = _rows(data)
    return *_range(rows[:, 0]), *_range(rows[:, 1])


def _subscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
