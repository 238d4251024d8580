"""Glow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.chain import Chain
from snflow.bijections.coupling import AffineCoupling
from snflow.bijections.linear import LogDetRule
from snflow.bijections.normalization import ActNorm
from snflow.bijections.reshaping import Flatten, Split, Squeeze
from snflow.distributions.flow import Flow
from snflow.errors import ShapeError, check_count, check_event_shape
from snflow.flows.composition import base_density, for_levels, mixing_layer
from snflow.flows.options import MixingName
from snflow.selfnorm.options import LearnedInverseArguments


def glow(
    event_shape: Shape,
    *,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    levels: int = 2,
    steps: int = 16,
    width: int = 512,
    mixing: MixingName = "free",
    kernel_size: int = 1,
    inverse_kernel_size: int | None = None,
    log_det_rule: LogDetRule = "self_normalized",
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
    **learned: Unpack[LearnedInverseArguments],
) -> Flow:
    """L levels of K steps: act-norm, mixing convolution, affine coupling; half of the channels leaves between levels.

    A level begins with a squeeze. What leaves has a learned prior given what stays; all latents are kept, as one
    vector, so that every inverse gives the same image back.

    Args:
        event_shape: ``(channels, height, width)`` of one image; its sides must halve ``levels`` times.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        levels: L.
        steps: K, in each level.
        width: channels inside of the couplings' networks.
        mixing: the convolution of each step: ``"free"``, ``"plu"``, ``"emerging"``, ``"exponential"``,
            ``"periodic"`` or ``"woodbury"``.
        kernel_size: its side, odd; a free 1×1 one with the exact rule is Glow's own.
        inverse_kernel_size: side of the learned inverse kernels; ``kernel_size`` when ``None``.
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
        Kingma & Dhariwal (2018), Glow: generative flow with invertible 1×1 convolutions; Keller et al. (2021), Self
        Normalizing Flows, section 5.1 and appendix A.5.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.glow((1, 8, 8), quantized=17, levels=2, steps=2, width=8, kernel_size=3)
        >>> flow(torch.randint(17, (3, 1, 8, 8))).shape
        torch.Size([3])
    """
    for option, count in (("levels", levels), ("steps", steps), ("width", width)):
        check_count("flows.glow", option, count)
    event_shape = check_event_shape("flows.glow", event_shape)
    if len(event_shape) != 3:
        raise ShapeError(
            "flows.glow", expected="images, (channels, height, width)", got=str(event_shape), fix="use flows.dense"
        )
    fixed, dequantization = ([], None) if quantized is None else for_levels(quantized, logit_alpha)

    def level(shape: Shape, left: int) -> Chain:
        squeeze = Squeeze(2)
        inside = squeeze.latent_shape(shape)
        layers: list[Bijection] = [squeeze]
        for _ in range(steps):
            layers += [
                ActNorm(inside[0]),
                mixing_layer(mixing, inside, kernel_size, inverse_kernel_size, log_det_rule, learned),
                AffineCoupling(inside[0], width),
            ]
        kept = (inside[0] // 2, *inside[1:])
        layers.append(Split(inside, level(kept, left - 1)) if left > 1 else Flatten(inside))
        return Chain(layers)

    body = level(event_shape, levels)
    latent = body.latent_shape(event_shape)
    return Flow(Chain([*preprocessing, *fixed, *body]), base_density(base, latent), dequantization)
