"""Iterative Gaussianization."""

from __future__ import annotations

import torch
from torch import Tensor

from snflow.bijections.base import Shape
from snflow.bijections.chain import Chain
from snflow.bijections.gaussianization import Gaussianization, RotationName
from snflow.distributions.flow import Flow
from snflow.flows._composition import ready_flow, stacked

_MOST_ROWS = 100_000


@ready_flow()
def gaussianization(
    event_shape: int | Shape, *, layers: int = 10, bins: int = 32, rotation: RotationName = "random"
) -> Flow:
    """z = R Ψ(x), repeatedly, Ψ the normal scores of each feature: fitted to data layer by layer, then trainable.

    :func:`snflow.preprocess`, and thus a recipe, fits the layers to the training data; otherwise they are fitted to the
    first training batch. The splines can then be tuned by gradient descent.

    Args:
        event_shape: Shape of one event; an int D for vectors. Other events are flattened.
        layers: Number of layers, each an element-wise map and a rotation.
        bins: Number of pieces of each feature's monotone spline.
        rotation: Rotation of each layer: ``"random"``, or ``"pca"``, the principal axes of its inputs.

    Returns:
        A flow on vectors with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.

    References:
        Laparra, Camps-Valls, Malo (2011), Iterative Gaussianization: from ICA to random rotations.

    Example:
        >>> import torch, snflow
        >>> x = torch.rand(1000, 2)
        >>> flow = snflow.preprocess(snflow.flows.gaussianization(2, layers=4), x)
        >>> flow.log_prob(x).shape
        torch.Size([1000])
    """
    return stacked(
        "flows.gaussianization",
        event_shape,
        lambda _, features: [Gaussianization(features, bins=bins, rotation=rotation)],
        layers=layers,
    )


@torch.no_grad()
def gaussianize(flow: Flow, x: Tensor) -> Flow:
    """Fit each :class:`~snflow.Gaussianization` of a flow, in order, to the outputs of the layers before it.

    Args:
        flow: a flow; without such layers it is left unchanged.
        x: data, with shape ``(N, *event)``; the first 100,000 rows are used.

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
    layers = flow.bijection if isinstance(flow.bijection, Chain) else [flow.bijection]
    if not any(isinstance(layer, Gaussianization) for layer in layers):
        return flow
    rows = x[:_MOST_ROWS]
    rows = rows if flow.dequantization is None else flow.dequantization(rows, dtype=flow.base.dtype)[0]
    y = rows.to(flow.base.device, flow.base.dtype)
    for layer in layers:
        if isinstance(layer, Gaussianization):
            layer.fit(y)
        y = layer(y)[0]
    return flow
