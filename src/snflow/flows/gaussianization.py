"""Iterative Gaussianization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.gaussianization import Gaussianization, RotationName
from snflow.distributions.flow import Flow
from snflow.flows.composition import assembled

_MOST_ROWS = 100_000


def gaussianization(
    features: int | Shape,
    *,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 10,
    bins: int = 32,
    rotation: RotationName = "random",
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """z = R Ψ(x), again and again, Ψ the normal scores of each feature: fitted to data layer by layer, then trainable.

    Call :func:`gaussianize` with the data, or let the first training batch fit it. A recipe fits it to the training
    set when the flow is made; the epochs behind tune the splines by gradient.

    Args:
        features: D, or the shape of events that are flattened.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first fitted one.
        layers: how often.
        bins: pieces of each feature's monotone spline.
        rotation: ``"random"`` or ``"pca"``.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.

    References:
        Laparra, Camps-Valls, Malo (2011), Iterative Gaussianization: from ICA to random rotations.

    Example:
        >>> import torch, snflow
        >>> x = torch.rand(1000, 2)
        >>> flow = snflow.flows.gaussianization(2, layers=4).train()
        >>> before, after = flow.log_prob(x).mean(), flow.log_prob(x).mean()
        >>> flow.eval().log_prob(x).shape
        torch.Size([1000])
    """
    return assembled(
        "flows.gaussianization",
        features,
        lambda _, size: [Gaussianization(size, bins=bins, rotation=rotation)],
        layers=layers,
        mixing="none",
        quantized=quantized,
        preprocessing=preprocessing,
        base=base,
        logit_alpha=logit_alpha,
    )


@torch.no_grad()
def gaussianize(flow: Flow, data: Tensor) -> Flow:
    """Fit every :class:`~snflow.Gaussianization` of a flow, in their order, each to what the ones before make of data.

    Args:
        flow: the flow; its mode stays.
        data: with shape ``(N, *event)``; the first 100,000 rows are used.

    Returns:
        The same flow.

    Raises:
        ConfigError: there are too few rows.

    Example:
        >>> import torch, snflow
        >>> flow = gaussianize(snflow.flows.gaussianization(2), torch.randn(500, 2).exp())
        >>> bool(flow.bijection[0].initialized)
        True
    """
    if not any(isinstance(layer, Gaussianization) for layer in flow.bijection.modules()):
        return flow
    rows = data[:_MOST_ROWS]
    x = rows if flow.dequantization is None else flow.dequantization(rows, dtype=flow.base.dtype)[0]
    x = x.to(flow.base.device, flow.base.dtype)
    for layer in flow.bijection:  # type: ignore[attr-defined]  # an assembled flow is a chain
        if isinstance(layer, Gaussianization):
            layer.fit(x)
        x = layer(x)[0]
    return flow
