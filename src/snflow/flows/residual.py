"""Residual flows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.residual.invertible import InvertibleResidual, SeriesName
from snflow.distributions.flow import Flow
from snflow.flows._composition import multiscale, ready_flow
from snflow.nets.lipschitz import LipschitzDenseNet, LipschitzNet
from snflow.nets.mlp import LipschitzActivation


def _residual(
    where: str,
    event_shape: int | Shape,
    network: Callable[..., nn.Module],
    *,
    context_shape: int | Shape | None = None,
    layers: int = 10,
    scales: int = 2,
    lipschitz: float = 0.97,
    log_det: SeriesName = "auto",
    terms: int = 2,
    exact_dimensions: int = 256,
    act_norm: bool = True,
) -> Flow:
    """Compose a flow of residual layers, each with a network for the event shape at its scale.

    Args:
        event_shape: Shape of one event: an int D for vectors, or ``(channels, height, width)`` of images.
        context_shape: Shape of one sample's context, an input of each network; an int for vectors, ``None`` for no
            context.
        layers: Number of residual layers per scale.
        scales: Number of scales for images, with a squeeze between consecutive scales; unused for vectors.
        lipschitz: Bound on the Lipschitz constant of each network, below one.
        log_det: How training computes log-determinants: ``"unbiased"`` (a series cut off at random),
            ``"truncated"``, ``"exact"``, or ``"auto"``, exact for D ≤ 3 and unbiased above.
        terms: Number of terms of the truncated series, or least number of terms of the unbiased series.
        exact_dimensions: Largest D for which evaluation uses the full Jacobian; above it, an unbiased estimate.
        act_norm: Whether an act-norm (a scale and shift initialized from the first batch) precedes each layer.
    """

    def layer(_: int, shape: Shape) -> list[Bijection]:
        return [
            InvertibleResidual(
                network(shape, lipschitz=lipschitz, context_shape=context_shape),
                shape,
                context_shape=context_shape,
                log_det=log_det,
                terms=terms,
                exact_dimensions=exact_dimensions,
            )
        ]

    return multiscale(where, event_shape, layer, layers=layers, scales=scales, act_norm=act_norm)


@ready_flow(like=_residual)
def residual(
    event_shape: int | Shape,
    *,
    width: int = 64,
    depth: int = 2,
    activation: LipschitzActivation = "lipswish",
    **options: Any,
) -> Flow:
    """z = x + g(x) with ‖J_g‖ < 1, repeatedly: in each layer every element may depend on every other.

    A sample takes a fixed-point iteration per layer.

    Args:
        width: Number of hidden units, or channels, in each layer of a network.
        depth: Number of hidden layers of each network.
        activation: Activation of the networks: ``"lipswish"`` or ``"clipswish"``.

    Returns:
        A flow on vectors or images with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.
        ShapeError: events that are neither vectors nor images, or sides that cannot be halved ``scales − 1`` times.

    References:
        Behrmann et al. (2019), Invertible residual networks; Chen et al. (2019), Residual flows for invertible
        generative modeling.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.residual(2, layers=2, width=8)
        >>> flow.log_prob(torch.randn(4, 2)).shape
        torch.Size([4])
    """
    return _residual(
        "flows.residual",
        event_shape,
        lambda shape, **shared: LipschitzNet(
            shape,
            width=width,
            depth=depth,
            activation=activation,
            **shared,
        ),
        **options,
    )


@ready_flow(like=_residual)
def densenet(
    event_shape: int | Shape,
    *,
    growth: int = 32,
    depth: int = 3,
    activation: LipschitzActivation = "clipswish",
    **options: Any,
) -> Flow:
    """z = x + g(x) with ‖J_g‖ < 1, g densely connected: each layer of g receives the outputs of all previous ones.

    A sample takes a fixed-point iteration per layer.

    Args:
        growth: Number of features, or channels, that each layer of a network adds.
        depth: Number of densely connected layers of each network.
        activation: Activation of the networks: ``"clipswish"`` or ``"lipswish"``.

    Returns:
        A flow on vectors or images with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.
        ShapeError: events that are neither vectors nor images, or sides that cannot be halved ``scales − 1`` times.

    References:
        Perugachi-Diaz, Tomczak, Bhulai (2021), Invertible DenseNets with concatenated LipSwish.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.densenet((1, 4, 4), layers=1, growth=4).log_prob(torch.randn(3, 1, 4, 4)).shape
        torch.Size([3])
    """
    return _residual(
        "flows.densenet",
        event_shape,
        lambda shape, **shared: LipschitzDenseNet(
            shape,
            growth=growth,
            depth=depth,
            activation=activation,
            **shared,
        ),
        **options,
    )
