"""x"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import get_args

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.chain import Chain
from snflow.bijections.convolution.conv2d import Conv2d, PLUConv2d, Woodbury
from snflow.bijections.convolution.emerging import EmergingConv2d
from snflow.bijections.convolution.exponential import ConvExponential
from snflow.bijections.convolution.periodic import PeriodicConv2d
from snflow.bijections.elementwise import Affine, LeakyReLU, Logit, RationalQuadraticSpline, SmoothLeakyReLU
from snflow.bijections.factored_linear import LULinear
from snflow.bijections.linear import Dense, Initialization, LogDetRule, Permutation
from snflow.bijections.normalization import ActNorm
from snflow.bijections.reshaping import Flatten, Squeeze
from snflow.distributions.base import BaseDensity, DiagonalNormal, Logistic, StandardNormal
from snflow.distributions.dequantization import UniformDequantization
from snflow.distributions.flow import Flow
from snflow.errors import ConfigError, ShapeError, check_choice, check_count, check_event_shape, nearest
from snflow.flows.options import MixingName, VectorMixing
from snflow.selfnorm.layers import SelfNormalizingConv2d, SelfNormalizingDense
from snflow.selfnorm.options import LearnedInverseArguments


def for_levels(levels: int, logit_alpha: float) -> tuple[list[Bijection], UniformDequantization]:
    """k + u, then / levels, then logit(α + (1 − 2α) ·): integer levels to the whole real line.

    The log-determinants of both layers are part of the flow's, so that −log p counts all preprocessing, in nats of
    the integer data; divided by D ln 2 it is bits/dim.

    Args:
        levels: the number of values that an element can take, 256 for bytes.
        logit_alpha: α.

    Returns:
        The layers, and the dequantization that adds u ~ U[0, 1).

    References:
        Dinh et al. (2017), Density estimation using Real NVP, section 4.1; Theis et al. (2016).

    Example:
        >>> layers, dequantization = for_levels(17, 1e-6)
        >>> len(layers), dequantization.levels
        (2, 17)
    """
    return [Affine(0.0, float(levels)), Logit(logit_alpha)], UniformDequantization(levels)


def dense_layer(
    features: int, rule: LogDetRule, initialization: Initialization, learned: LearnedInverseArguments
) -> Bijection:
    """Make a free square matrix whose log-determinant follows ``rule``."""
    match rule:
        case "self_normalized":
            return SelfNormalizingDense(features, initialization=initialization, **learned)
        case "exact" | "relative":
            return Dense(features, log_det_rule=rule, initialization=initialization)
        case _:
            raise _unknown("log_det_rule", rule, ("self_normalized", "exact", "relative"))


def mixing_layer(
    name: MixingName,
    event_shape: Shape,
    kernel_size: int,
    inverse_kernel_size: int | None,
    rule: LogDetRule,
    learned: LearnedInverseArguments,
) -> Bijection:
    """Make the linear layer of an image flow by its name; ``rule`` and what follows it are those of a free one."""
    channels = event_shape[0]
    match name, rule:
        case "free", "self_normalized":
            return SelfNormalizingConv2d(channels, kernel_size, inverse_kernel_size=inverse_kernel_size, **learned)
        case "free", "exact" | "exact_by_rows":
            return Conv2d(channels, kernel_size, log_det_rule=rule)
        case "free", _:
            raise _unknown("log_det_rule", rule, ("self_normalized", "exact", "exact_by_rows"))
        case "plu", _:
            return PLUConv2d(channels)
        case "emerging", _:
            return EmergingConv2d(channels, kernel_size)
        case "exponential", _:
            return ConvExponential(channels, kernel_size)
        case "periodic", _:
            return PeriodicConv2d(channels, kernel_size)
        case "woodbury", _:
            return Woodbury(event_shape)
        case _:
            raise _unknown("mixing", name, get_args(MixingName))


def activation_layer(name: str, event_shape: Shape, *, alpha: float, bins: int, tail_bound: float) -> Bijection:
    """Make an element-wise activation by its name."""
    match name:
        case "smooth_leaky_relu":
            return SmoothLeakyReLU(alpha)
        case "leaky_relu":
            return LeakyReLU(alpha)
        case "spline":
            return RationalQuadraticSpline(event_shape, bins=bins, tail_bound=tail_bound)
        case _:
            raise _unknown("activation", name, ("smooth_leaky_relu", "leaky_relu", "spline"))


def base_density(name: str, event_shape: Shape) -> BaseDensity:
    """Make the density of the latent by its name."""
    match name:
        case "normal":
            return StandardNormal(event_shape)
        case "diagonal_normal":
            return DiagonalNormal(event_shape)
        case "logistic":
            return Logistic(event_shape)
        case _:
            raise _unknown("base", name, ("normal", "diagonal_normal", "logistic"))


def _unknown(option: str, word: str, known: tuple[str, ...]) -> ConfigError:
    expected = f"{option} to be one of {', '.join(known)}"
    return ConfigError("flows", expected=expected, got=repr(word), fix=nearest(word, known))


def stacked(
    where: str,
    features: int | Shape,
    layer: Callable[[int, Shape], Sequence[Bijection]],
    *,
    layers: int,
    scales: int,
    act_norm: bool,
    quantized: int | None,
    preprocessing: Sequence[Bijection],
    base: str,
    logit_alpha: float,
) -> Flow:
    """Preprocessing, then ``layers`` times what ``layer`` makes, at each scale of images, the last one flattened.

    Args:
        where: the caller, for errors.
        features: D of vectors, or ``(channels, height, width)`` of images.
        layer: from the number of the layer and the event shape there to bijections that keep it.
        layers: how many times, at each scale.
        scales: of images; vectors have one.
        act_norm: whether an act-norm stands before each.
        quantized: the number of values of integer data; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Raises:
        ConfigError: a count below one, or an unknown word.
        ShapeError: events that are neither vectors nor images, or sides that do not halve often enough.
    """
    for option, count in (("layers", layers), ("scales", scales)):
        check_count(where, option, count)
    shape = check_event_shape(where, features)
    if len(shape) not in (1, 3):
        raise ShapeError(
            where,
            expected="vectors (D,) or images (channels, height, width)",
            got=str(shape),
            fix="put a Flatten into preprocessing",
        )
    images = len(shape) == 3
    fixed, dequantization = ([], None) if quantized is None else for_levels(quantized, logit_alpha)
    chain: list[Bijection] = [*preprocessing, *fixed]
    for scale in range(scales if images else 1):
        if scale:
            chain.append(Squeeze(2))
            shape = chain[-1].latent_shape(shape)
        for number in range(layers):
            if act_norm:
                chain.append(ActNorm(shape[0], vectors=not images))
            chain += layer(scale * layers + number, shape)
    if images:
        chain.append(Flatten(shape))
    return Flow(Chain(chain), base_density(base, (math.prod(shape),)), dequantization)


def assembled(
    where: str,
    features: int | Shape,
    layer: Callable[[int, int], Sequence[Bijection]],
    *,
    layers: int,
    mixing: VectorMixing,
    quantized: int | None,
    preprocessing: Sequence[Bijection],
    base: str,
    logit_alpha: float,
    last: Callable[[int], Sequence[Bijection]] = lambda _: (),
) -> Flow:
    """Preprocessing, then ``layers`` times what ``layer`` makes, a mixing between each two, then ``last``.

    Args:
        where: the caller, for errors.
        features: D, or the shape of events that are flattened.
        layer: from the number of the layer and D to bijections on vectors of D.
        layers: how many times.
        mixing: what stands between two layers.
        quantized: the number of values of integer data; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.
        last: from D to the layers behind all others.

    Raises:
        ConfigError: a count below one, or an unknown word.
    """
    check_count(where, "layers", layers)
    check_choice(where, "mixing", mixing, VectorMixing)
    shape = check_event_shape(where, features)
    size = math.prod(shape)
    fixed, dequantization = ([], None) if quantized is None else for_levels(quantized, logit_alpha)
    chain: list[Bijection] = [*preprocessing, *fixed]
    if len(shape) != 1:
        chain.append(Flatten(shape))
    for number in range(layers):
        if number:
            chain += _mixing(mixing, size)
        chain += layer(number, size)
    return Flow(Chain([*chain, *last(size)]), base_density(base, (size,)), dequantization)


def _mixing(name: VectorMixing, features: int) -> list[Bijection]:
    match name:
        case "reverse":
            return [Permutation.reversed(features)]
        case "random":
            return [Permutation.random(features)]
        case "lu":
            return [LULinear(features)]
        case "none":
            return []
