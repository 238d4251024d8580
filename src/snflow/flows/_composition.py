"""The structures that ready flows share: layers in a row, images at several scales, couplings, mixing convolutions."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Literal, ParamSpec, final

import torch
from torch import Tensor, nn

from snflow.bijections.autoregressive import Autoregressive
from snflow.bijections.base import Bijection, Shape
from snflow.bijections.chain import Chain
from snflow.bijections.convolution.conv2d import Conv2d, PLUConv2d, Woodbury
from snflow.bijections.convolution.emerging import EmergingConv2d
from snflow.bijections.convolution.exponential import ConvExponential
from snflow.bijections.convolution.periodic import PeriodicConv2d
from snflow.bijections.coupling import Coupling, alternating
from snflow.bijections.factored_linear import LULinear
from snflow.bijections.linear import Permutation
from snflow.bijections.normalization import ActNorm
from snflow.bijections.reshaping import Flatten, Squeeze
from snflow.bijections.transformers.base import Transformer
from snflow.distributions.base import BaseDensity, StandardNormal
from snflow.distributions.flow import Flow
from snflow.errors import (
    ShapeError,
    check_arguments,
    check_choice,
    check_context_shape,
    check_count,
    check_event_shape,
)
from snflow.nets.mlp import MLP, Activation
from snflow.selfnorm.layers import SelfNormalizingConv2d
from snflow.selfnorm.tracking import Tracking

VectorMixing = Literal["reverse", "random", "lu", "none"]
"""What mixes the features between two layers: their reversal, a fixed permutation, a learned LU matrix, or nothing."""

ConvMixing = Literal["free", "plu", "emerging", "exponential", "periodic", "woodbury"]
"""The linear layer of an image flow: a free convolution, or one restricted so that its determinant is cheap."""

ConvRule = Literal["self_normalized", "exact", "exact_by_rows"]
"""How a free convolution computes the gradient of its log-determinant."""

Options = ParamSpec("Options")


def ready_flow(function: Callable[Options, Flow]) -> Callable[Options, Flow]:
    """Make a ready flow refuse arguments that it does not have, with the nearest right name."""
    return checked_arguments(function, f"flows.{function.__name__}")


def checked_arguments(function: Callable[Options, Flow], where: str | None = None) -> Callable[Options, Flow]:
    """Make a function refuse arguments that it does not have, with the nearest right name.

    Args:
        function: the function; signature and docstring are kept.
        where: its name in errors.
    """
    signature, name = inspect.signature(function), where or function.__name__

    @functools.wraps(function)
    def checked(*args: Options.args, **kwargs: Options.kwargs) -> Flow:
        check_arguments(name, signature, args, kwargs)
        return function(*args, **kwargs)

    return checked


def stacked(
    where: str,
    event_shape: int | Shape,
    layer: Callable[[int, int], Sequence[Bijection]],
    *,
    layers: int,
    mixing: VectorMixing = "none",
    last: Callable[[int], Sequence[Bijection]] = lambda _: (),
    base: Callable[[Shape], BaseDensity] = StandardNormal,
) -> Flow:
    """Compose a flow on flattened events: ``layers`` times ``layer``, a mixing between each two, then ``last``.

    Args:
        where: the caller, for errors.
        event_shape: D, or the shape of events that are flattened.
        layer: maps the number of a layer and D to its bijections on vectors of D.
        layers: number of layers.
        mixing: what mixes the features between two layers.
        last: maps D to the bijections after all layers.
        base: maps the shape of the latents to their density.

    Raises:
        ConfigError: a count is below one, or the mixing is unknown.
    """
    check_count(where, "layers", layers)
    check_choice(where, "mixing", mixing, VectorMixing)
    shape = check_event_shape(where, event_shape)
    features = math.prod(shape)
    chain: list[Bijection] = [] if len(shape) == 1 else [Flatten(shape)]
    for number in range(layers):
        if number:
            chain += _mixing(mixing, features)
        chain += layer(number, features)
    return Flow(Chain([*chain, *last(features)]), base((features,)))


def multiscale(
    where: str,
    event_shape: int | Shape,
    layer: Callable[[int, Shape], Sequence[Bijection]],
    *,
    layers: int,
    scales: int,
    act_norm: bool,
) -> Flow:
    """Compose a flow on vectors or images: ``layers`` times ``layer`` per scale, a squeeze between each two scales.

    Args:
        where: the caller, for errors.
        event_shape: D of vectors, or ``(channels, height, width)`` of images.
        layer: maps the number of a layer and the event shape at its scale to bijections that keep that shape.
        layers: number of layers per scale.
        scales: number of scales of images; vectors have one.
        act_norm: whether an act-norm precedes each layer.

    Raises:
        ConfigError: a count is below one.
        ShapeError: events that are neither vectors nor images, or sides that cannot be halved ``scales − 1`` times.
    """
    for option, count in (("layers", layers), ("scales", scales)):
        check_count(where, option, count)
    shape = check_event_shape(where, event_shape)
    images = vectors_or_images(where, shape)
    chain: list[Bijection] = []
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
    return Flow(Chain(chain), StandardNormal((math.prod(shape),)))


def vectors_or_images(where: str, shape: Shape) -> bool:
    """Return whether events are images; refuse what is neither an image nor a vector.

    Raises:
        ShapeError: events that are neither vectors nor images.
    """
    if len(shape) not in (1, 3):
        raise ShapeError(
            where,
            expected="vectors (D,) or images (channels, height, width)",
            got=str(shape),
            fix="flatten or reshape the events",
        )
    return len(shape) == 3


def check_image(where: str, event_shape: Shape) -> Shape:
    """Return the shape of images.

    Raises:
        ConfigError: it is not a shape.
        ShapeError: events that are not images.
    """
    shape = check_event_shape(where, event_shape)
    if len(shape) != 3:
        raise ShapeError(where, expected="images, (channels, height, width)", got=str(shape), fix="use flows.dense")
    return shape


def coupling(
    number: int,
    features: int,
    transformer: Transformer,
    *,
    width: int,
    depth: int,
    activation: Activation,
    context_shape: int | Shape | None,
    residual: bool = False,
    input_bound: float | None = None,
) -> Bijection:
    """Make coupling ``number`` on vectors; couplings alternate between the even and the odd features.

    A coupling of a single feature has nothing to keep. It becomes an autoregressive layer with the same transformer,
    whose parameters are learned or, with a context, predicted from it.
    """
    if features == 1:
        return Autoregressive(
            1,
            transformer,
            width=width,
            depth=depth,
            context_shape=context_shape,
            residual=residual,
            activation=activation,
            input_bound=input_bound,
        )
    mask = alternating(features, number)
    kept = int(mask.sum())
    net = MLP(
        kept,
        transformer.parameters_per_element * (features - kept),
        width=width,
        depth=depth,
        context_shape=context_shape,
        residual=residual,
        activation=activation,
        input_bound=input_bound,
    )
    return Coupling(mask, transformer, net, context_shape=context_shape)


def image_network(network: Callable[[int], nn.Module], channels: int, context_shape: int | Shape | None) -> nn.Module:
    """Make a network of images with this many channels, which sees the context, if any, as further channels.

    Args:
        network: maps a number of input channels to a network.
        channels: number of channels of the images.
        context_shape: the shape of one sample's context, whose elements are repeated at each pixel.

    Returns:
        A network called with images ``(batch, channels, height, width)``, and with the context if there is one.
    """
    shape = check_context_shape("flows", context_shape)
    return network(channels) if shape is None else _OnContext(network(channels + math.prod(shape)))


@final
class _OnContext(nn.Module):
    """y = net(a, context), the context repeated at each pixel."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, a: Tensor, context: Tensor) -> Tensor:
        """Map images ``(batch, channels, height, width)`` and the context ``(batch, *context_shape)``."""
        everywhere = context.flatten(1)[:, :, None, None].expand(-1, -1, *a.shape[2:])
        y: Tensor = self.net(torch.cat([a, everywhere], 1))
        return y


def mixing_convolution(
    where: str,
    name: ConvMixing,
    event_shape: Shape,
    *,
    kernel_size: int,
    inverse_kernel_size: int | None,
    log_det_rule: ConvRule,
    tracking: Tracking | None,
) -> Bijection:
    """Make the linear layer of an image flow by its name; the rule and what follows it concern free convolutions.

    Raises:
        ConfigError: an unknown name or rule.
    """
    channels = event_shape[0]
    check_choice(where, "mixing", name, ConvMixing)
    check_choice(where, "log_det_rule", log_det_rule, ConvRule)
    match name:
        case "free":
            if log_det_rule == "self_normalized":
                return SelfNormalizingConv2d(
                    channels, kernel_size, inverse_kernel_size=inverse_kernel_size, tracking=tracking
                )
            return Conv2d(channels, kernel_size, log_det_rule=log_det_rule)
        case "plu":
            return PLUConv2d(channels)
        case "emerging":
            return EmergingConv2d(channels, kernel_size)
        case "exponential":
            return ConvExponential(channels, kernel_size)
        case "periodic":
            return PeriodicConv2d(channels, kernel_size)
        case "woodbury":
            return Woodbury(event_shape)


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
