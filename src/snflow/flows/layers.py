"""From a word in a recipe to a layer."""

from __future__ import annotations

from typing import get_args

from snflow.bijections import (
    Bijection,
    Conv2d,
    ConvExponential,
    Dense,
    EmergingConv2d,
    LeakyReLU,
    PeriodicConv2d,
    PLUConv2d,
    RationalQuadraticSpline,
    SmoothLeakyReLU,
    Woodbury,
)
from snflow.bijections.base import Shape
from snflow.bijections.linear import LogDetRule
from snflow.bijections.linear.initialization import Initialization
from snflow.distributions import BaseDensity, DiagonalNormal, Logistic, StandardNormal
from snflow.errors import ConfigError, nearest
from snflow.flows.options import MixingName
from snflow.selfnorm import SelfNormalizingConv2d, SelfNormalizingDense
from snflow.selfnorm.options import LearnedInverseArguments


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
