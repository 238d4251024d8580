"""Glow."""

from __future__ import annotations

from typing import Unpack

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.chain import Chain
from snflow.bijections.coupling import AffineCoupling
from snflow.bijections.normalization import ActNorm
from snflow.bijections.reshaping import Flatten, Split, Squeeze
from snflow.distributions.base import StandardNormal
from snflow.distributions.flow import Flow
from snflow.errors import check_count
from snflow.flows._composition import ConvMixing, ConvRule, check_image, mixing_convolution, ready_flow
from snflow.selfnorm.options import LearnedInverseArguments


@ready_flow
def glow(
    event_shape: Shape,
    *,
    layers: int = 16,
    scales: int = 2,
    width: int = 512,
    mixing: ConvMixing = "free",
    kernel_size: int = 1,
    inverse_kernel_size: int | None = None,
    log_det_rule: ConvRule = "self_normalized",
    **learned: Unpack[LearnedInverseArguments],
) -> Flow:
    """L scales of K steps, each an act-norm, a mixing convolution and an affine coupling.

    A scale begins with a squeeze, and half of the channels leaves between two scales, with a learned prior given the
    other half. All latents are kept, as one vector, so that every inverse reproduces the same image.

    Args:
        event_shape: Shape ``(channels, height, width)`` of one image, whose sides can be halved ``scales`` times.
        layers: Number K of steps per scale.
        scales: Number L of scales.
        width: Channels in each layer of the couplings' networks.
        mixing: Convolution of each step: ``"free"``, or one restricted so that its determinant is cheap, ``"plu"``,
            ``"emerging"``, ``"exponential"``, ``"periodic"`` or ``"woodbury"``.
        kernel_size: Side of the mixing kernels, odd; a free 1×1 convolution with the exact rule is Glow's own.
        inverse_kernel_size: Side of the learned inverse kernels, odd and at least ``kernel_size``; ``None`` for
            ``kernel_size``.
        log_det_rule: Gradient of the log-determinant of free convolutions: ``"self_normalized"`` (from the learned
            inverse), ``"exact"`` (from the whole matrix) or ``"exact_by_rows"`` (eliminated by rows of the image).
        learned: Options of the learned inverses, the fields of :class:`~snflow.LearnedInverse`.

    Returns:
        A flow on images of ``event_shape`` with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.
        ShapeError: the event is no image, or its sides cannot be halved ``scales`` times.

    References:
        Kingma & Dhariwal (2018), Glow: generative flow with invertible 1×1 convolutions; Keller et al. (2021), Self
        Normalizing Flows, section 5.1 and appendix A.3.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.glow((1, 8, 8), scales=2, layers=2, width=8, kernel_size=3)
        >>> snflow.dequantized(flow, 17)(torch.randint(17, (3, 1, 8, 8))).shape
        torch.Size([3])
    """
    for option, count in (("layers", layers), ("scales", scales), ("width", width)):
        check_count("flows.glow", option, count)
    shape = check_image("flows.glow", event_shape)

    def scale(shape: Shape, left: int) -> Chain:
        squeeze = Squeeze(2)
        squeezed = squeeze.latent_shape(shape)
        chain: list[Bijection] = [squeeze]
        for _ in range(layers):
            chain += [
                ActNorm(squeezed[0]),
                mixing_convolution(
                    "flows.glow",
                    mixing,
                    squeezed,
                    kernel_size=kernel_size,
                    inverse_kernel_size=inverse_kernel_size,
                    log_det_rule=log_det_rule,
                    **learned,
                ),
                AffineCoupling(squeezed[0], width=width),
            ]
        kept = (squeezed[0] // 2, *squeezed[1:])
        chain.append(Split(squeezed, scale(kept, left - 1)) if left > 1 else Flatten(squeezed))
        return Chain(chain)

    body = scale(shape, scales)
    return Flow(body, StandardNormal(body.latent_shape(shape)))
