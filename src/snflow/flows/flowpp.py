"""Flow++."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.chain import Chain
from snflow.bijections.convolution.conv2d import PLUConv2d
from snflow.bijections.coupling import Coupling, checkerboard, halves
from snflow.bijections.normalization import ActNorm
from snflow.bijections.reshaping import Flatten, Squeeze
from snflow.bijections.transformers.affine import AffineTransformer
from snflow.bijections.transformers.base import Transformer
from snflow.bijections.transformers.monotone import LogisticMixtureTransformer
from snflow.distributions.dequantization import Dequantization, VariationalDequantization
from snflow.distributions.flow import Flow
from snflow.errors import ShapeError, check_choice, check_count, check_event_shape
from snflow.flows.composition import base_density, for_levels
from snflow.nets.convnet import AttentionConvNet

DequantizationName = Literal["variational", "uniform"]


def flowpp(
    event_shape: Shape,
    *,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    first: int = 4,
    channel: int = 2,
    last: int = 3,
    width: int = 96,
    blocks: int = 10,
    components: int = 32,
    dequantization: DequantizationName = "variational",
    dequantization_couplings: int = 4,
    dequantization_blocks: int = 2,
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """Couplings by mixtures of logistics with attention: by checkerboard, squeezed by channel, again by checkerboard.

    Each coupling has an act-norm and a 1×1 convolution before it. Integer data are dequantized by a flow of affine
    couplings of the same networks, which sees the image.

    Args:
        event_shape: ``(channels, height, width)`` of one image, its sides even.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        first: couplings by checkerboard before the squeeze.
        channel: couplings by channel behind it.
        last: couplings by checkerboard behind those.
        width: channels inside of each network.
        blocks: blocks of gated convolution and attention of each network.
        components: logistics in each mixture.
        dequantization: ``"variational"`` or ``"uniform"``.
        dequantization_couplings: couplings of the dequantizing flow.
        dequantization_blocks: blocks of each of its networks.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on images of ``event_shape``; ``log_prob`` is in nats, for integer data a bound.

    Raises:
        ConfigError: an option is out of its range.
        ShapeError: the event is no image, or has an odd side.

    References:
        Ho et al. (2019), Flow++: improving flow-based generative models with variational dequantization and
        architecture design.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.flowpp((1, 4, 4), quantized=17, width=8, blocks=1, components=4)
        >>> flow(torch.randint(17, (3, 1, 4, 4))).shape
        torch.Size([3])
    """
    counts = {"first": first, "channel": channel, "last": last, "dequantization_couplings": dequantization_couplings}
    for option, count in counts.items():
        check_count("flows.flowpp", option, count)
    check_choice("flows.flowpp", "dequantization", dequantization, DequantizationName)
    event_shape = check_event_shape("flows.flowpp", event_shape)
    if len(event_shape) != 3 or event_shape[1] % 2 or event_shape[2] % 2:
        raise ShapeError(
            "flows.flowpp", expected="images with even sides, (channels, height, width)", got=str(event_shape)
        )

    def couplings(shape: Shape, count: int, by_channel: bool) -> list[Bijection]:
        layers: list[Bijection] = []
        for number in range(count):
            mask = halves(shape[0], number) if by_channel else checkerboard(shape[1], shape[2], number)
            layers += [ActNorm(shape[0]), PLUConv2d(shape[0])]
            layers.append(attention_coupling(mask, shape, LogisticMixtureTransformer(components), width, blocks))
        return layers

    squeeze = Squeeze(2)
    inside = squeeze.latent_shape(event_shape)
    body = [
        *couplings(event_shape, first, False),
        squeeze,
        *couplings(inside, channel, True),
        *couplings(inside, last, False),
        Flatten(inside),
    ]
    fixed, noise = ([], None) if quantized is None else for_levels(quantized, logit_alpha)
    dequantize: Dequantization | None = noise
    if quantized is not None and dequantization == "variational":
        learned = [
            attention_coupling(
                checkerboard(event_shape[1], event_shape[2], n),
                event_shape,
                AffineTransformer(3.0),
                width,
                dequantization_blocks,
                conditioned=True,
            )
            for n in range(dequantization_couplings)
        ]
        dequantize = VariationalDequantization(quantized, Chain(learned))
    chain = Chain([*preprocessing, *fixed, *body])
    return Flow(chain, base_density(base, chain.latent_shape(event_shape)), dequantize)


def attention_coupling(
    mask: Tensor, shape: Shape, transformer: Transformer, width: int, depth: int, *, conditioned: bool = False
) -> Coupling:
    """A coupling with Flow++'s network, which sees an image of the event's shape as context where ``conditioned``."""
    channels, height, wide = shape
    by_channel = mask.dim() == 1
    seen, mapped = (int(mask.sum()), int((~mask).sum())) if by_channel else (channels, channels)
    outputs = transformer.parameters_per_element * mapped
    net = AttentionConvNet(seen, outputs, (height, wide), width=width, blocks=blocks, context_channels=channels if with_image else 0)
    return Coupling(mask, transformer, net, context_shape=shape if conditioned else 0, image=by_channel)
