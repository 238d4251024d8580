"""Flows of free linear maps and networks: dense, convolutional, Glow, and pairs of networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Unpack

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.chain import Chain
from snflow.bijections.linear import Initialization, LogDetRule
from snflow.bijections.reshaping import Flatten, Squeeze
from snflow.distributions.flow import Flow
from snflow.errors import ShapeError, check_count, check_event_shape
from snflow.flows.composition import activation_layer, base_density, dense_layer, for_levels, mixing_layer
from snflow.flows.options import MixingName
from snflow.nets.mlp import ResidualMLP
from snflow.numerics.probes import ProbeName
from snflow.selfnorm.options import LearnedInverseArguments
from snflow.selfnorm.pair import SelfNormalizing


def dense(
    event_shape: int | Shape,
    *,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 2,
    activation: Literal["smooth_leaky_relu", "leaky_relu", "spline"] = "smooth_leaky_relu",
    alpha: float = 0.3,
    log_det_rule: LogDetRule = "self_normalized",
    initialization: Initialization = "identity",
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
    **learned: Unpack[LearnedInverseArguments],
) -> Flow:
    """z = Wₙ σ(… σ(W₁ x + b₁) …) + bₙ: the paper's dense model, two layers by default.

    Args:
        event_shape: the shape of one event, or D of vectors; images are flattened.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one, as for standardising a table.
        layers: number of dense layers.
        activation: the function between two layers, none after the last.
        alpha: slope of the leaky activations.
        log_det_rule: ``"self_normalized"``, ``"exact"`` or ``"relative"``.
        initialization: of the forward weights.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.
        learned: how the inverses are learned, the fields of :class:`~snflow.LearnedInverse`.

    Returns:
        A flow on events of ``event_shape``; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.

    References:
        Keller et al. (2021), Self Normalizing Flows, section 5.1; Gresele et al. (2020) for the activation.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.dense((1, 4, 4), quantized=17)
        >>> flow(torch.randint(17, (3, 1, 4, 4))).shape
        torch.Size([3])
    """
    check_count("flows.dense", "layers", layers)
    shape = check_event_shape("flows.dense", event_shape)
    features = math.prod(shape)
    fixed, dequantization = ([], None) if quantized is None else for_levels(quantized, logit_alpha)
    chain: list[Bijection] = [*preprocessing, *fixed, Flatten(shape)]
    for position in range(layers):
        if position > 0:
            chain.append(activation_layer(activation, (features,), alpha=alpha, bins=5, tail_bound=10.0))
        chain.append(dense_layer(features, log_det_rule, initialization, learned))
    return Flow(Chain(chain), base_density(base, (features,)), dequantization)


def conv(
    event_shape: Shape,
    *,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    blocks: int = 3,
    layers_per_block: int = 3,
    mixing: MixingName = "free",
    kernel_size: int = 3,
    inverse_kernel_size: int | None = None,
    activation: Literal["spline", "smooth_leaky_relu", "leaky_relu"] = "spline",
    bins: int = 5,
    tail_bound: float = 10.0,
    alpha: float = 0.3,
    log_det_rule: LogDetRule = "self_normalized",
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
    **learned: Unpack[LearnedInverseArguments],
) -> Flow:
    """z = wₙ ⋆ σ(… σ(w₁ ⋆ x + b₁) …) + bₙ: the paper's convolutional model, nine layers in three blocks by default.

    Args:
        event_shape: ``(channels, height, width)`` of one image; its sides must halve ``blocks − 1`` times.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        blocks: number of blocks, with a squeeze between each two.
        layers_per_block: number of convolutions in each.
        mixing: the linear layers: ``"free"`` convolutions, or one of the restricted ones.
        kernel_size: side of the kernels, odd.
        inverse_kernel_size: side of the learned inverse kernels; ``kernel_size`` when ``None``.
        activation: the function after each convolution, none after the last.
        bins: bins of the spline activation.
        tail_bound: half-width of the spline's box.
        alpha: slope of the leaky activations.
        log_det_rule: of free convolutions, ``"self_normalized"``, ``"exact"`` (from the whole matrix) or
            ``"exact_by_rows"``.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.
        learned: how the inverses are learned, the fields of :class:`~snflow.LearnedInverse`.

    Returns:
        A flow on images of ``event_shape``; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.
        ShapeError: the event is no image, or its sides do not halve often enough.

    References:
        Keller et al. (2021), Self Normalizing Flows, section 5.1 and appendix A.5.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.conv((1, 8, 8), quantized=17)
        >>> flow(torch.randint(17, (3, 1, 8, 8))).shape
        torch.Size([3])
    """
    check_count("flows.conv", "blocks", blocks)
    check_count("flows.conv", "layers_per_block", layers_per_block)
    event_shape = check_event_shape("flows.conv", event_shape)
    if len(event_shape) != 3:
        raise ShapeError(
            "flows.conv", expected="images, (channels, height, width)", got=str(event_shape), fix="use flows.dense"
        )
    fixed, dequantization = ([], None) if quantized is None else for_levels(quantized, logit_alpha)
    chain: list[Bijection] = [*preprocessing, *fixed]
    shape: Shape = event_shape
    for position in range(blocks * layers_per_block):
        if position > 0:
            chain.append(activation_layer(activation, shape, alpha=alpha, bins=bins, tail_bound=tail_bound))
        if position > 0 and position % layers_per_block == 0:
            squeeze = Squeeze(2)
            shape = squeeze.latent_shape(shape)
            chain.append(squeeze)
        chain.append(mixing_layer(mixing, shape, kernel_size, inverse_kernel_size, log_det_rule, learned))
    return Flow(Chain(chain), base_density(base, shape), dequantization)


def pair(
    event_shape: int | Shape,
    *,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 1,
    width: int = 256,
    blocks: int = 3,
    penalty_weight: float = 10.0,
    jacobian_penalty: float = 1.0,
    penalty_spread: float = 0.7,
    probe: ProbeName = "orthogonal",
    probes: int = 1,
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """z = f(x) for a residual network f, with another one g ≈ f⁻¹ beside it.

    Args:
        event_shape: the shape of one event, or D of vectors; images are flattened.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of pairs, one behind the other.
        width: features inside of each network.
        blocks: residual blocks of each network.
        penalty_weight: λ of the reconstruction penalty.
        jacobian_penalty: weight of ‖J_g J_f ν − ν‖².
        penalty_spread: deviation of the noise around the data where the penalty holds too.
        probe: the kind of the random vectors ν.
        probes: how many for each row.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on events of ``event_shape``; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.

    References:
        Keller et al. (2021), Self Normalizing Flows, section 3.2; Draxler et al. (2024), Free-form flows.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.pair((2,), width=16)
        >>> flow(torch.randn(3, 2)).shape
        torch.Size([3])
    """
    check_count("flows.pair", "layers", layers)
    shape = check_event_shape("flows.pair", event_shape)
    features = math.prod(shape)
    fixed, dequantization = ([], None) if quantized is None else for_levels(quantized, logit_alpha)
    chain: list[Bijection] = [*preprocessing, *fixed, Flatten(shape)]
    for _ in range(layers):
        forward_net, inverse_net = (ResidualMLP(features, width, blocks) for _ in range(2))
        chain.append(
            SelfNormalizing(
                forward_net,
                inverse_net,
                (features,),
                penalty_weight=penalty_weight,
                jacobian_penalty=jacobian_penalty,
                penalty_spread=penalty_spread,
                probe=probe,
                probes=probes,
            )
        )
    return Flow(Chain(chain), base_density(base, (features,)), dequantization)
