"""Flow++."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.chain import Chain
from snflow.bijections.convolution.conv2d import PLUConv2d
from snflow.bijections.coupling import Coupling, checkerboard, halves
from snflow.bijections.normalization import ActNorm
from snflow.bijections.reshaping import Flatten, Squeeze
from snflow.bijections.transformers.monotone import LogisticMixtureTransformer
from snflow.bijections.transformers.transformer import Transformer
from snflow.distributions.base import StandardNormal
from snflow.distributions.flow import Flow
from snflow.errors import ShapeError, check_count
from snflow.flows._composition import check_image, image_network, ready_flow
from snflow.nets.convnet import AttentionConvNet


@ready_flow()
def flowpp(
    event_shape: Shape,
    *,
    context_shape: int | Shape | None = None,
    first_layers: int = 4,
    channel_layers: int = 2,
    last_layers: int = 3,
    width: int = 96,
    depth: int = 10,
    components: int = 32,
    input_bound: float | None = 10.0,
) -> Flow:
    """Mixture-of-logistics couplings with attention: checkerboard, then a squeeze, channel-wise and checkerboard again.

    An act-norm and a 1×1 convolution precede each coupling. The paper dequantizes integer images with a second flow:
    ``snflow.dequantized(flow, 256, noise="variational")``, or ``preprocessing.noise: variational`` in a recipe.

    Args:
        event_shape: Shape ``(channels, height, width)`` of one image with even sides.
        context_shape: Shape of one sample's context, such as a one-hot label; an int for vectors, ``None`` for no
            context. The networks receive it at every pixel.
        first_layers: Number of checkerboard couplings before the squeeze.
        channel_layers: Number of channel-wise couplings after the squeeze.
        last_layers: Number of checkerboard couplings after the channel-wise ones.
        width: Number of channels of each network, a multiple of 4.
        depth: Number of blocks of gated convolution and attention in each network.
        components: Number of logistics in each mixture.
        input_bound: Bound to which the inputs of the networks, normalized by an act-norm, are clamped, on both sides;
            ``None`` for no bound.

    Returns:
        A flow on images of ``event_shape`` with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.
        ShapeError: the event is not an image, or has an odd side.

    References:
        Ho et al. (2019), Flow++: improving flow-based generative models with variational dequantization and
        architecture design.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.flowpp((1, 4, 4), width=8, depth=1, components=4)
        >>> flow = snflow.dequantized(flow, 17, noise="variational", noise_width=8)
        >>> flow(torch.randint(17, (3, 1, 4, 4))).shape
        torch.Size([3])
    """
    counts = {"first_layers": first_layers, "channel_layers": channel_layers, "last_layers": last_layers}
    for option, count in counts.items():
        check_count("flows.flowpp", option, count)
    shape = check_image("flows.flowpp", event_shape)
    if shape[1] % 2 or shape[2] % 2:
        raise ShapeError("flows.flowpp", expected="images with even sides", got=str(shape), fix="pad the images")

    def couplings(shape: Shape, count: int, by_channel: bool) -> list[Bijection]:
        layers: list[Bijection] = []
        for number in range(count):
            mask = halves(shape[0], number) if by_channel else checkerboard(shape[1], shape[2], number)
            layers += [ActNorm(shape[0]), PLUConv2d(shape[0])]
            mixture = LogisticMixtureTransformer(components)
            options: dict[str, Any] = {"context_shape": context_shape, "input_bound": input_bound}
            layers.append(attention_coupling(mask, shape, mixture, width, depth, **options))
        return layers

    squeeze = Squeeze(2)
    squeezed = squeeze.latent_shape(shape)
    body = Chain(
        [
            *couplings(shape, first_layers, False),
            squeeze,
            *couplings(squeezed, channel_layers, True),
            *couplings(squeezed, last_layers, False),
            Flatten(squeezed),
        ]
    )
    return Flow(body, StandardNormal(body.latent_shape(shape)))


def attention_coupling(
    mask: Tensor,
    shape: Shape,
    transformer: Transformer,
    width: int,
    depth: int,
    *,
    context_shape: int | Shape | None = None,
    input_bound: float | None = None,
) -> Coupling:
    """Make a coupling on images with Flow++'s network; a context of the same shape enters pixel by pixel."""
    channels, height, wide = shape
    by_channel = mask.dim() == 1
    kept, mapped = (int(mask.sum()), int((~mask).sum())) if by_channel else (channels, channels)
    outputs = transformer.parameters_per_element * mapped
    of_pixels = (channels, height, wide) if context_shape == shape else None

    def network(seen: int) -> AttentionConvNet:
        return AttentionConvNet(seen, outputs, (height, wide), width=width, blocks=depth, context_shape=of_pixels)

    net = network(kept) if of_pixels else image_network(network, kept, context_shape)
    return Coupling(mask, transformer, net, context_shape=context_shape, image=by_channel, input_bound=input_bound)
