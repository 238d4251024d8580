"""Convolutional flows: blocks of free convolutions with a squeeze between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from snflow.arguments import check_count
from snflow.bijections import Bijection, Chain, Squeeze
from snflow.bijections.base import Shape
from snflow.bijections.linear import LogDetRule
from snflow.distributions import Flow
from snflow.errors import ShapeError
from snflow.flows.layers import SelfNormalizingOptions, activation_layer, base_density, conv_layer
from snflow.flows.preprocessing import for_levels
from snflow.selfnorm.tracking import TrackingName


def conv(
    event_shape: Shape,
    *,
    levels: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    blocks: int = 3,
    layers_per_block: int = 3,
    kernel_size: int = 3,
    activation: Literal["spline", "smooth_leaky_relu", "leaky_relu"] = "spline",
    bins: int = 5,
    tail_bound: float = 10.0,
    alpha: float = 0.3,
    log_det_rule: LogDetRule = "self_normalized",
    inverse_tracking: TrackingName = "penalty",
    penalty_weight: float = 1.0,
    symmetric_penalty: bool = False,
    penalty_only_inverse: bool = False,
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """z = wₙ ⋆ σ(… σ(w₁ ⋆ x + b₁) …) + bₙ: the paper's convolutional model, nine layers in three blocks by default.

    Args:
        event_shape: ``(channels, height, width)`` of one image; its sides must halve ``blocks − 1`` times.
        levels: the number of integer values a pixel can take, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        blocks: number of blocks, with a squeeze between each two.
        layers_per_block: number of convolutions in each.
        kernel_size: side of the kernels, odd.
        activation: the function after each convolution, none after the last.
        bins: bins of the spline activation.
        tail_bound: half-width of the spline's box.
        alpha: slope of the leaky activations.
        log_det_rule: ``"self_normalized"`` or ``"exact"``.
        inverse_tracking: how a learned inverse is kept near the inverse.
        penalty_weight: λ.
        symmetric_penalty: also penalise ‖f(g(z)) − z‖².
        penalty_only_inverse: keep the penalty from the forward kernels.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on images of ``event_shape``; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.
        ShapeError: the event is no image, or its sides do not halve often enough.

    References:
        Keller et al. (2021), Self Normalizing Flows, section 5.1 and appendix A.5.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.conv((1, 8, 8), levels=17)
        >>> flow(torch.randint(17, (3, 1, 8, 8))).shape
        torch.Size([3])
    """
    check_count("flows.conv", "blocks", blocks)
    check_count("flows.conv", "layers_per_block", layers_per_block)
    if len(event_shape) != 3:
        raise ShapeError(
            "flows.conv", expected="images, (channels, height, width)", got=str(event_shape), fix="use flows.dense"
        )
    fixed, dequantization = ([], None) if levels is None else for_levels(levels, logit_alpha)
    chain: list[Bijection] = [*preprocessing, *fixed]
    options = SelfNormalizingOptions(
        penalty_weight=penalty_weight,
        symmetric_penalty=symmetric_penalty,
        penalty_only_inverse=penalty_only_inverse,
        inverse_tracking=inverse_tracking,
    )
    shape: Shape = event_shape
    for position in range(blocks * layers_per_block):
        if position > 0:
            chain.append(activation_layer(activation, shape, alpha=alpha, bins=bins, tail_bound=tail_bound))
        if position > 0 and position % layers_per_block == 0:
            squeeze = Squeeze(2)
            shape = squeeze.latent_shape(shape)
            chain.append(squeeze)
        chain.append(conv_layer(shape[0], kernel_size, log_det_rule, options))
    return Flow(Chain(chain), base_density(base, shape), dequantization)
