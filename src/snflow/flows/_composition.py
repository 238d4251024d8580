"""Builders shared by the ready flows: stacks of layers, multi-scale flows, couplings and mixing convolutions."""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, ParamSpec, final, get_type_hints

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
from snflow.bijections.transformers.transformer import Transformer
from snflow.distributions.base import BaseDensity, StandardNormal
from snflow.distributions.flow import Flow
from snflow.errors import (
    ShapeError,
    check_choice,
    check_context_shape,
    check_count,
    check_event_shape,
    checked_arguments,
)
from snflow.nets.mlp import MLP, Activation
from snflow.selfnorm.layers import SelfNormalizingConv2d
from snflow.selfnorm.tracking import Tracking

VectorMixing = Literal["reverse", "random", "lu", "none"]
"""What mixes the features between layers: reversal, a fixed random permutation, a learned LU matrix, or nothing."""

ConvMixing = Literal["free", "plu", "emerging", "exponential", "periodic", "woodbury"]
"""The linear layer of an image flow: a free convolution, or one restricted so that its determinant is cheap."""

ConvRule = Literal["self_normalized", "exact", "exact_by_rows"]
"""How a free convolution computes the gradient of its log-determinant."""

LayerKind = Literal["coupling", "autoregressive"]

Options = ParamSpec("Options")


def ready_flow(
    like: Callable[..., object] | None = None,
) -> Callable[[Callable[Options, Flow]], Callable[Options, Flow]]:
    """Make a function a ready flow: complete its signature and docstring, and reject wrong arguments.

    Args:
        like: a builder whose keyword arguments are options of several flows. A flow that takes ``**options`` inherits
            all of them, with the builder's defaults. The docstring inherits the descriptions of the arguments that the
            flow does not describe itself.

    Returns:
        A decorator. The decorated function lists every option in its signature and its docstring.
    """

    def decorate(function: Callable[Options, Flow]) -> Callable[Options, Flow]:
        where = f"flows.{function.__name__}"
        return checked_arguments(where)(function if like is None else _inheriting(function, like))

    return decorate


def _inheriting(function: Callable[Options, Flow], like: Callable[..., object]) -> Callable[Options, Flow]:
    """Complete the signature and the docstring of a function with those of a builder."""

    @functools.wraps(function)
    def complete(*args: Options.args, **kwargs: Options.kwargs) -> Flow:
        return function(*args, **kwargs)

    hints = {**get_type_hints(like), **get_type_hints(function)}
    own, shared = inspect.signature(function).parameters, inspect.signature(like).parameters
    inherited = [p for p in shared.values() if p.kind is p.KEYWORD_ONLY]
    if not any(p.kind is p.VAR_KEYWORD for p in own.values()):
        inherited = [p for p in inherited if p.name in own]
    first = [p for p in own.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    rest = {p.name: own.get(p.name, p) for p in inherited}
    rest |= {name: p for name, p in own.items() if p.kind is p.KEYWORD_ONLY and name not in rest}
    parameters = [p.replace(annotation=hints[p.name]) for p in (*first, *rest.values())]
    complete.__signature__ = inspect.Signature(parameters, return_annotation=Flow)  # type: ignore[attr-defined]
    complete.__annotations__ = {p.name: hints[p.name] for p in parameters} | {"return": Flow}
    before, described, after = split_docstring(function.__doc__ or "")
    described = {**split_docstring(like.__doc__ or "")[1], **described}
    complete.__doc__ = before + "".join(described[p.name] for p in parameters) + after
    return complete


def split_docstring(text: str) -> tuple[str, dict[str, str], str]:
    """The docstring up to its arguments, the lines of each argument by name, and the rest.

    Python 3.13 has removed the indentation of docstrings already; it is removed here from those of other versions.
    """
    text = inspect.cleandoc(text) + "\n"
    if "\nArgs:\n" not in text:
        text = re.sub(r"\n(Returns|Raises):\n", r"\nArgs:\n\n\1:\n", text, count=1)
    before, heading, body = text.partition("\nArgs:\n")
    section = re.match(r"(?: {4}.*\n)*", body)
    end = section.end() if section else 0
    entries = re.findall(r"^ {4}\w+: .*\n(?: {8}.*\n)*", body[:end], re.MULTILINE)
    return before + heading, {entry.split(":")[0].strip(): entry for entry in entries}, body[end:]


def ready_flows() -> dict[str, Callable[..., Flow]]:
    """Return the ready flows by name: each exported function of an ``event_shape`` that returns a :class:`Flow`.

    The names are those of ``flows/__init__.pyi``; a new flow is listed there and nowhere else.

    Example:
        >>> from snflow.flows import ready_flows
        >>> flows = ready_flows()
        >>> flows["maf"](3).event_shape
        (3,)
    """
    import snflow.flows

    def is_flow(function: object) -> bool:
        if not inspect.isfunction(function):
            return False
        signature = inspect.signature(function)
        returns_flow = signature.return_annotation in ("Flow", Flow)
        return returns_flow and next(iter(signature.parameters), None) == "event_shape"

    exported = {name: getattr(snflow.flows, name) for name in dir(snflow.flows)}
    return {name: function for name, function in exported.items() if is_flow(function)}


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
    """Compose a flow on flattened events: ``layers`` layers, mixed between each two, followed by ``last``.

    Args:
        where: the caller, for errors.
        event_shape: D, or the shape of events that are flattened.
        layer: maps the index of a layer and D to its bijections on vectors of length D.
        layers: number of layers.
        mixing: what mixes the features between consecutive layers.
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


def conditioned(
    where: str,
    event_shape: int | Shape,
    transformer: Callable[[], Transformer],
    kind: LayerKind = "autoregressive",
    wrap: Callable[[Bijection, int], Sequence[Bijection]] = lambda layer, features: [layer],
    zero_start: bool = False,
    last: Callable[[int], Sequence[Bijection]] = lambda _: (),
    base: Callable[[Shape], BaseDensity] = StandardNormal,
    *,
    context_shape: int | Shape | None = None,
    layers: int = 5,
    mixing: VectorMixing = "reverse",
    width: int = 64,
    depth: int = 2,
    residual: bool = False,
    activation: Activation = "relu",
    input_bound: float | None = 10.0,
) -> Flow:
    """Compose a flow of autoregressive layers or couplings: transformers whose parameters a network predicts.

    Each layer is passed through ``wrap``.

    Args:
        event_shape: Shape of one event; an int D for vectors. Other events are flattened.
        context_shape: Shape of one sample's context, on which each layer is conditioned; an int for vectors, ``None``
            for no context.
        layers: Number of layers.
        mixing: What mixes the features between consecutive layers: ``"reverse"`` (their order is reversed),
            ``"random"`` (a fixed permutation), ``"lu"`` (a learned matrix in LU form) or ``"none"``.
        width: Number of units in each hidden layer of a network.
        depth: Number of hidden layers of each network.
        residual: Whether the networks have residual connections between their hidden layers.
        activation: Activation of the networks: ``"relu"``, or one of the smooth ``"silu"``, ``"elu"`` and ``"tanh"``.
        input_bound: Bound to which the inputs of the networks are clamped, on both sides, in standard deviations of
            standardized data: beyond it the parameters of a transformer no longer change. Without a bound, ``None``,
            scaling factors grow exponentially with the distance, and distant points cannot be recovered.
    """
    network: dict[str, Any] = {
        "width": width,
        "depth": depth,
        "residual": residual,
        "activation": activation,
        "input_bound": input_bound,
    }

    def layer(number: int, features: int) -> Sequence[Bijection]:
        if kind == "coupling":
            made = coupling(number, features, transformer(), context_shape=context_shape, **network)
        else:
            made = Autoregressive(
                features,
                transformer(),
                context_shape=context_shape,
                zero_start=zero_start,
                **network,
            )
        return wrap(made, features)

    return stacked(where, event_shape, layer, layers=layers, mixing=mixing, last=last, base=base)


def multiscale(
    where: str,
    event_shape: int | Shape,
    layer: Callable[[int, Shape], Sequence[Bijection]],
    *,
    context_shape: int | Shape | None = None,
    layers: int = 10,
    scales: int = 2,
    act_norm: bool = True,
) -> Flow:
    """Compose a flow on vectors or images: ``layers`` layers per scale, with a squeeze between consecutive scales.

    ``layer`` maps the index of a layer and the event shape at its scale to bijections that preserve that shape.

    Args:
        event_shape: Shape of one event: an int D for vectors, or ``(channels, height, width)`` of images.
        context_shape: Shape of one sample's context, on which each layer is conditioned; an int for vectors, ``None``
            for no context.
        layers: Number of layers per scale.
        scales: Number of scales for images, with a squeeze between consecutive scales; unused for vectors.
        act_norm: Whether an act-norm (a scale and shift initialized from the first batch) precedes each layer.

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
    """Return whether events are images rather than vectors; reject all others.

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

    With a single feature no part can be left unchanged. The layer is then autoregressive with the same transformer,
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
    """Make a network on images with this many channels; the context, if any, is appended as further channels.

    Args:
        network: maps the number of input channels to a network.
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
    event_shape: Shape,
    *,
    mixing: ConvMixing = "free",
    kernel_size: int = 3,
    inverse_kernel_size: int | None = None,
    log_det_rule: ConvRule = "self_normalized",
    tracking: Tracking | None = None,
) -> Bijection:
    """Make the linear layer of an image flow; all options after ``kernel_size`` apply to free convolutions only.

    Args:
        mixing: Linear layers that mix the channels: ``"free"`` convolutions, or ones with a cheap determinant:
            ``"plu"``, ``"emerging"``, ``"exponential"``, ``"periodic"`` or ``"woodbury"``.
        kernel_size: Side of the kernels, odd.
        inverse_kernel_size: Side of the learned inverse kernels, odd and at least ``kernel_size``; ``None`` for
            ``kernel_size``.
        log_det_rule: Gradient of the log-determinant of free convolutions: ``"self_normalized"`` (from the learned
            inverse), ``"exact"`` (from the whole matrix) or ``"exact_by_rows"`` (by elimination over image rows).
        tracking: Strategy that keeps the learned inverses accurate: :class:`~snflow.Penalty` (the default, the paper's
            reconstruction penalty), :class:`~snflow.Newton` or :class:`~snflow.Secant`. Each layer has its own copy.
            The default also repairs an inaccurate inverse, which the paper does not: ``Penalty(guard=False)`` is the
            paper's method.

    Raises:
        ConfigError: an unknown name or rule.
    """
    channels = event_shape[0]
    check_choice(where, "mixing", mixing, ConvMixing)
    check_choice(where, "log_det_rule", log_det_rule, ConvRule)
    match mixing:
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
