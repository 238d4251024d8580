"""Glow."""

from __future__ import annotations

from typing import Any

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.chain import Chain
from snflow.bijections.coupling import affine_coupling
from snflow.bijections.normalization import ActNorm
from snflow.bijections.reshaping import Flatten, Split, Squeeze
from snflow.distributions.base import StandardNormal
from snflow.distributions.flow import Flow
from snflow.errors import check_count
from snflow.flows._composition import check_image, image_network, mixing_convolution, ready_flow
from snflow.nets.convnet import ConvNet


@ready_flow(like=mixing_convolution)
def glow(
    event_shape: Shape,
    *,
    context_shape: int | Shape | None = None,
    layers: int = 16,
    scales: int = 2,
    width: int = 512,
    kernel_size: int = 1,
    input_bound: float | None = 10.0,
    **convolution: Any,
) -> Flow:
    """L scales of K steps, each an act-norm, a mixing convolution and an affine coupling.

    Each scale begins with a squeeze. Between scales half of the channels is factored out, with a learned prior
    conditioned on the other half. The latent is the vector of all latents, so that every inverse recovers the image.

    Args:
        event_shape: Shape ``(channels, height, width)`` of one image, whose sides can be halved ``scales`` times.
        context_shape: Shape of one sample's context, such as a one-hot label; an int for vectors, ``None`` for no
            context. The networks of the couplings receive it at every pixel.
        layers: Number K of steps per scale.
        scales: Number L of scales.
        width: Number of channels in each layer of the couplings' networks.
        kernel_size: Side of the mixing kernels, odd; the original Glow has free 1×1 convolutions and the exact rule.
        input_bound: Bound to which the inputs of the couplings' networks, normalized by an act-norm, are clamped, on
            both sides; ``None`` for no bound, as in the original Glow.

    Returns:
        A flow on images of ``event_shape`` with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.
        ShapeError: the event is not an image, or its sides cannot be halved ``scales`` times.

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
                mixing_convolution("flows.glow", squeezed, kernel_size=kernel_size, **convolution),
                _affine_coupling(squeezed[0], width, context_shape, input_bound),
            ]
        kept = (squeezed[0] // 2, *squeezed[1:])
        chain.append(Split(squeezed, scale(kept, left - 1)) if left > 1 else Flatten(squeezed))
        return Chain(chain)

    body = scale(shape, scales)
    return Flow(body, StandardNormal(body.latent_shape(shape)))


def _affine_coupling(
    channels: int, width: int, context_shape: int | Shape | None, input_bound: float | None
) -> Bijection:
    kept = channels // 2
    net = image_network(lambda seen: ConvNet(seen, 2 * (channels - kept), width=width), kept, context_shape)
    return affine_coupling(channels, conditioner=net, context_shape=context_shape, input_bound=input_bound)
