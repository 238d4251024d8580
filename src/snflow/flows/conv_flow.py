"""Convolutional flows: blocks of free convolutions with a squeeze between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

from snflow.arguments import check_count, check_event_shape
from snflow.bijections import Bijection, Chain, Squeeze
from snflow.bijections.base import Shape
from snflow.bijections.linear import LogDetRule
from snflow.distributions import Flow
from snflow.errors import ShapeError
from snflow.flows.layers import activation_layer, base_density, mixing_layer
from snflow.flows.options import MixingName
from snflow.flows.preprocessing import for_levels
from snflow.selfnorm.options import LearnedInverseArguments


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
