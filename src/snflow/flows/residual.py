"""Residual flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.residual.invertible import InvertibleResidual, SeriesName
from snflow.distributions.flow import Flow
from snflow.flows.composition import stacked
from snflow.nets.lipschitz import LipschitzDenseNet, LipschitzNet
from snflow.nets.mlp import LipschitzActivation


def residual(
    features: int | Shape,
    *,
    context_features: int = 0,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 10,
    scales: int = 2,
    width: int = 64,
    depth: int = 2,
    lipschitz: float = 0.97,
    activation: LipschitzActivation = "lipswish",
    log_det: SeriesName = "auto",
    terms: int = 2,
    exact_dimensions: int = 256,
    act_norm: bool = True,
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """z = x + g(x), ‖J_g‖ < 1, again and again: every element may depend on every other, in each layer.

    Args:
        features: D of vectors, or ``(channels, height, width)`` of images.
        context_features: size of a context that every network sees; 0 for none.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of residual layers, at each scale of images.
        scales: of images, a squeeze between each two.
        width: features, or channels, inside of each network.
        depth: hidden layers of it.
        lipschitz: bound on its Lipschitz constant, below one.
        activation: what stands between its layers, ``"lipswish"`` or ``"clipswish"``.
        log_det: ``"unbiased"``, ``"truncated"`` or ``"exact"``, in training; ``"auto"`` is exact for D ≤ 3.
        terms: of the truncated series, or those that the unbiased one always has.
        exact_dimensions: the largest D for which evaluation takes the full Jacobian; above it is an unbiased estimate.
        act_norm: whether a scale and a shift, set by the first batch, stand before each layer.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors or images; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.
        ShapeError: events that are neither vectors nor images, or sides that do not halve often enough.

    References:
        Behrmann et al. (2019), Invertible residual networks; Chen et al. (2019), Residual flows for invertible
        generative modeling.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.residual(2, layers=2, width=8)
        >>> flow.log_prob(torch.randn(4, 2)).shape
        torch.Size([4])
    """

    def layer(_: int, shape: Shape) -> list[Bijection]:
        net = LipschitzNet(shape, width, depth, None, lipschitz, context_features, activation)
        return [_invertible(net, shape, context_features, log_det, terms, exact_dimensions)]

    return stacked(
        "flows.residual",
        features,
        layer,
        layers=layers,
        scales=scales,
        act_norm=act_norm,
        quantized=quantized,
        preprocessing=preprocessing,
        base=base,
        logit_alpha=logit_alpha,
    )


def densenet(
    features: int | Shape,
    *,
    context_features: int = 0,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 10,
    scales: int = 2,
    growth: int = 32,
    depth: int = 3,
    lipschitz: float = 0.97,
    activation: LipschitzActivation = "clipswish",
    log_det: SeriesName = "auto",
    terms: int = 2,
    exact_dimensions: int = 256,
    act_norm: bool = True,
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """z = x + g(x), ‖J_g‖ < 1, g densely connected: its layers keep what they found and add to it.

    Args:
        features: D of vectors, or ``(channels, height, width)`` of images.
        context_features: size of a context that every network sees; 0 for none.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of residual layers, at each scale of images.
        scales: of images, a squeeze between each two.
        growth: features, or channels, that each layer of a network adds.
        depth: such layers of a network.
        lipschitz: bound on its Lipschitz constant, below one.
        activation: what stands between its layers, ``"clipswish"`` or ``"lipswish"``.
        log_det: ``"unbiased"``, ``"truncated"`` or ``"exact"``, in training; ``"auto"`` is exact for D ≤ 3.
        terms: of the truncated series, or those that the unbiased one always has.
        exact_dimensions: the largest D for which evaluation takes the full Jacobian; above it is an unbiased estimate.
        act_norm: whether a scale and a shift, set by the first batch, stand before each layer.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors or images; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.
        ShapeError: events that are neither vectors nor images, or sides that do not halve often enough.

    References:
        Perugachi-Diaz, Tomczak, Bhulai (2021), Invertible DenseNets with concatenated LipSwish.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.densenet((1, 4, 4), layers=1, growth=4).log_prob(torch.randn(3, 1, 4, 4)).shape
        torch.Size([3])
    """

    def layer(_: int, shape: Shape) -> list[Bijection]:
        net = LipschitzDenseNet(shape, growth, depth, 3, lipschitz, context_features, activation)
        return [_invertible(net, shape, context_features, log_det, terms, exact_dimensions)]

    return stacked(
        "flows.densenet",
        features,
        layer,
        layers=layers,
        scales=scales,
        act_norm=act_norm,
        quantized=quantized,
        preprocessing=preprocessing,
        base=base,
        logit_alpha=logit_alpha,
    )


def _invertible(
    net: LipschitzNet | LipschitzDenseNet, shape: Shape, context: int, log_det: SeriesName, terms: int, exact: int
) -> InvertibleResidual:
    told = (context,) if context else None
    return InvertibleResidual(net, shape, context_shape=told, log_det=log_det, terms=terms, exact_dimensions=exact)
