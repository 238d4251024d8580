"""Preprocessing and base density, composed around a flow: standardization, dequantization, logit, base."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.chain import Chain
from snflow.bijections.context import ContextEmbedding, Standardization
from snflow.bijections.coupling import checkerboard
from snflow.bijections.domain import bounds
from snflow.bijections.elementwise import Affine, Logit
from snflow.bijections.transformers.affine import AffineTransformer
from snflow.distributions.base import BaseDensity, DiagonalNormal, Logistic, StandardNormal
from snflow.distributions.dequantization import Dequantization, UniformDequantization, VariationalDequantization
from snflow.distributions.flow import Flow
from snflow.errors import ConfigError, ShapeError, check_arguments, check_choice, check_count, checked_arguments
from snflow.flows.flowpp import attention_coupling
from snflow.flows.gaussianization import gaussianize

BaseName = Literal["normal", "diagonal_normal", "logistic"]
"""Base densities without options: N(0, I), N(μ, diag σ²) with learned μ and σ, and independent logistics."""

NoiseName = Literal["uniform", "variational"]
"""How integer data become continuous: uniform noise, or noise from a second flow conditioned on the image."""

_BASES: dict[str, type[BaseDensity]] = {
    "normal": StandardNormal,
    "diagonal_normal": DiagonalNormal,
    "logistic": Logistic,
}

_LARGEST_LOG_SCALE = 3.0

_NEARLY_CONSTANT = 8.0
"""Elements count as constant if their standard deviation is below this many roundings of their largest magnitude."""


@checked_arguments()
def standardized(flow: Flow, x: Tensor, context: Tensor | None = None) -> Flow:
    """Add the layer z = (x − mean)/σ before a flow, with the mean and standard deviation of each element of ``x``.

    The layer is fixed, saved with the flow and included in its log-determinant, so that ``log_prob`` is the density of
    the unscaled data. Elements that do not vary are only shifted.

    Args:
        flow: A flow on continuous data; its layers are shared with the result, not copied.
        x: Training data, with shape ``(N, *event)``.
        context: Training contexts, with shape ``(N, *context_shape)``, which are then standardized too.

    Returns:
        The flow with one more layer, on the same device and with the same dtype; ``log_prob`` is in nats.

    Raises:
        ConfigError: the flow is on integer data, or on a bounded range such as angles, which must keep their scale.
        DataError: there are no rows, or a value is not finite.

    Example:
        >>> import torch, snflow
        >>> x = 100 + 5 * torch.randn(1000, 3)
        >>> flow = snflow.standardized(snflow.flows.maf(3), x)
        >>> bool(flow.encode(x).mean().abs() < 2)
        True
    """
    if flow.dequantization is not None or not is_unbounded(flow):
        bounded = "integer data" if flow.dequantization is not None else "a bounded range"
        raise ConfigError(
            "standardized",
            expected="a flow on continuous, unbounded data",
            got=f"one on {bounded}",
            fix="leave standardization out (in a recipe: preprocessing.standardize: false)",
        )
    floor = _NEARLY_CONSTANT * torch.finfo(flow.base.dtype).eps
    if context is not None:
        flow = with_context_embedding(flow, Standardization.of(context, floor), tuple(context.shape[1:]))
    return _rebuilt(flow, in_front=[Affine.standardizing(x, floor)])


def is_unbounded(flow: Flow) -> bool:
    """Whether the density is positive for all real numbers, so that data of any scale may be standardized.

    Example:
        >>> import snflow
        >>> is_unbounded(snflow.flows.maf(2)), is_unbounded(snflow.flows.circular_spline(2))
        (True, False)
    """
    return bounds(flow.bijection.preimage(flow.base.support)) == (-math.inf, math.inf)


@checked_arguments()
def dequantized(
    flow: Flow,
    num_values: int,
    *,
    logit_alpha: float = 1e-6,
    noise: NoiseName = "uniform",
    noise_layers: int = 4,
    noise_width: int = 96,
    noise_depth: int = 2,
) -> Flow:
    """Make a flow on integer data k: z = flow(logit(α + (1 − 2α) (k + u)/L)), u noise on [0, 1).

    Noise and logit are part of the density: −log p, in nats, is on average an upper bound on the negative
    log-probability of the integers. Divided by D ln 2 it is in bits per dimension.

    Args:
        flow: A flow on continuous data; its layers are shared with the result, not copied.
        num_values: L, the number of values of an element, which are 0 to L − 1; 256 for bytes.
        logit_alpha: Margin α of the logit that maps integer data to all real numbers, between 0 and 0.5.
        noise: Distribution of the noise u that is added to integer data: ``"uniform"``, or ``"variational"``, a second
            flow that is conditioned on the image and trained by the same objective (images only).
        noise_layers: Number of affine couplings of the variational noise.
        noise_width: Number of channels of the networks of the variational noise, a multiple of 4.
        noise_depth: Number of blocks in each network of the variational noise.

    Returns:
        The flow on integers, on the same device and with the same dtype; ``sample`` returns integers too.

    Raises:
        ConfigError: an option is out of its range, or the flow already has a dequantization.
        ShapeError: variational noise for events that are not images.

    References:
        Dinh et al. (2017), Density estimation using Real NVP, section 4.1; Theis et al. (2016), A note on the
        evaluation of generative models; Ho et al. (2019), Flow++, section 3.1, for the variational noise.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.dequantized(snflow.flows.conv((1, 8, 8)), 17)
        >>> flow.log_prob(torch.randint(17, (3, 1, 8, 8))).shape
        torch.Size([3])
        >>> flow.sample(2).dtype
        torch.uint8
    """
    check_choice("dequantized", "noise", noise, NoiseName)
    if flow.dequantization is not None:
        raise ConfigError("dequantized", expected="a flow on continuous data", got="one that is dequantized already")
    dequantization: Dequantization
    if noise == "uniform":
        dequantization = UniformDequantization(num_values)
    else:
        dequantization = VariationalDequantization(
            num_values, _noise_flow(flow.event_shape, noise_layers, noise_width, noise_depth)
        )
    in_front = [Affine(0.0, float(num_values)), Logit(logit_alpha)]
    return _rebuilt(flow, in_front=in_front, dequantization=dequantization)


@checked_arguments()
def with_context_embedding(flow: Flow, net: nn.Module, context_shape: int | Shape) -> Flow:
    """Condition a flow on features that a network computes from a context, as :class:`~snflow.ContextEmbedding`.

    Args:
        flow: A flow conditioned on the features; its layers are shared with the result, not copied.
        net: Maps contexts to features, each with shape ``flow.context_shape``.
        context_shape: C for vectors, or the shape of one context.

    Returns:
        The flow, conditioned on the context, on the same device and with the same dtype.

    Raises:
        ConfigError: the flow is unconditional.

    Example:
        >>> import torch, snflow
        >>> images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
        >>> flow = snflow.with_context_embedding(snflow.flows.maf(2, context_shape=4), images, (1, 8, 8))
        >>> flow.log_prob(torch.randn(5, 2), torch.rand(5, 1, 8, 8)).shape
        torch.Size([5])
    """
    bijection = ContextEmbedding(flow.bijection, net, context_shape)
    return Flow(bijection, flow.base, flow.dequantization).to(flow.base.device, flow.base.dtype).train(flow.training)


@checked_arguments()
def with_base(flow: Flow, base: BaseName | BaseDensity) -> Flow:
    """Return the flow with another base density.

    Args:
        flow: A flow; its layers are shared with the result, not copied.
        base: A name, ``"normal"``, ``"diagonal_normal"`` (learned means and standard deviations) or ``"logistic"``, or
            a density with the event shape of the latents.

    Returns:
        The flow, on the same device and with the same dtype.

    Raises:
        ConfigError: the name is unknown.
        ShapeError: the event shape of the density is not that of the latents.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.with_base(snflow.flows.realnvp(2), snflow.NormalMixture((2,), components=4))
        >>> flow.log_prob(torch.randn(5, 2)).shape
        torch.Size([5])
    """
    if not isinstance(base, BaseDensity):
        check_choice("with_base", "base", base, BaseName)
        base = _BASES[base](flow.base.event_shape)
    return _rebuilt(flow, base=base)


def preprocess(
    flow: Flow,
    x: Tensor,
    num_values: int | None = None,
    *,
    context: Tensor | None = None,
    standardize: bool = True,
    base: BaseName | None = None,
    **dequantization: Any,
) -> Flow:
    """Add the usual preprocessing to a flow: standardize continuous data, dequantize integer data.

    Recipes do the same, with the keyword arguments in their ``preprocessing`` section. The layers of
    :func:`snflow.flows.gaussianization` are fitted to the data as well.

    Args:
        flow: A ready flow, as from :mod:`snflow.flows`; its layers are shared with the result, not copied.
        x: Training data, with shape ``(N, *event)``; integers where ``num_values`` is given.
        num_values: L, the number of values of integer data; ``None`` for continuous data.
        context: Training contexts, with shape ``(N, *context_shape)``, which are standardized with continuous data.
        standardize: Whether continuous data are shifted and scaled so that the training data have mean zero and
            standard deviation one. Ignored for integer data.
        base: Base density of the flow: ``"normal"``, ``"diagonal_normal"`` (learned means and standard deviations) or
            ``"logistic"``; ``None`` keeps the flow's own.
        dequantization: Keyword arguments of :func:`dequantized`, for integer data.

    Returns:
        The flow on the original data; ``log_prob`` is in nats.

    Raises:
        ConfigError, ShapeError, DataError: as :func:`standardized`, :func:`dequantized` and :func:`with_base`.

    Example:
        >>> import torch, snflow
        >>> x = torch.randint(17, (100, 1, 8, 8))
        >>> flow = snflow.preprocess(snflow.flows.realnvp((1, 8, 8)), x, 17, logit_alpha=0.05)
        >>> flow.log_prob(x[:3]).shape
        torch.Size([3])
    """
    check_arguments("preprocess", _preprocess_signature(), (flow, x), dequantization)
    if num_values is not None:
        flow = dequantized(flow, num_values, **dequantization)
    elif standardize:
        flow = standardized(flow, x, context)
    if base is not None:
        flow = with_base(flow, base)
    return gaussianize(flow, x)


def _preprocess_signature() -> inspect.Signature:
    """The signature of :func:`preprocess` with the options of :func:`dequantized` written out."""
    own, further = (list(inspect.signature(f).parameters.values()) for f in (preprocess, dequantized))
    return inspect.Signature([*own[:-1], *(p for p in further if p.kind is p.KEYWORD_ONLY)])


def _rebuilt(
    flow: Flow,
    *,
    in_front: Iterable[Bijection] = (),
    base: BaseDensity | None = None,
    dequantization: Dequantization | None = None,
) -> Flow:
    """The flow with fixed layers in front, in one flat chain, on its device, with its dtype and in its mode."""
    own = flow.bijection if isinstance(flow.bijection, Chain) else [flow.bijection]
    rebuilt = Flow(Chain([*in_front, *own]), flow.base if base is None else base, dequantization or flow.dequantization)
    return rebuilt.to(flow.base.device, flow.base.dtype).train(flow.training)


def _noise_flow(event_shape: tuple[int, ...], layers: int, width: int, depth: int) -> Chain:
    check_count("dequantized", "noise_layers", layers)
    if len(event_shape) != 3:
        raise ShapeError(
            "dequantized",
            expected="images, (channels, height, width), for variational noise",
            got=f"events of shape {event_shape}",
            fix="use noise='uniform'",
        )
    return Chain(
        attention_coupling(
            checkerboard(event_shape[1], event_shape[2], number),
            event_shape,
            AffineTransformer(_LARGEST_LOG_SCALE),
            width,
            depth,
            context_shape=event_shape,
        )
        for number in range(layers)
    )
