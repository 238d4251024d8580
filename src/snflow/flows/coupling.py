"""Coupling flows: NICE and Real NVP."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.chain import Chain
from snflow.bijections.coupling import Coupling, checkerboard, halves
from snflow.bijections.elementwise import Scaling
from snflow.bijections.normalization import BatchNorm
from snflow.bijections.reshaping import Flatten, Split, Squeeze
from snflow.bijections.transformers.affine import AdditiveTransformer, AffineTransformer
from snflow.distributions.base import Logistic, StandardNormal
from snflow.distributions.flow import Flow
from snflow.errors import check_count, check_event_shape
from snflow.flows._composition import VectorMixing, conditioned, image_network, ready_flow, vectors_or_images
from snflow.nets.convnet import ResidualConvNet
from snflow.nets.mlp import Activation

_LARGEST_LOG_SCALE = 3.0


@ready_flow(like=conditioned)
def nice(
    event_shape: int | Shape,
    *,
    layers: int = 4,
    mixing: VectorMixing = "none",
    **options: Any,
) -> Flow:
    """z_c = x_c + net(x_a) with alternating parts, then z ⊙ exp(s): only the last layer changes the volume.

    With a single feature each layer is a shift, which is learned, or predicted from the context if there is one.

    Args:
        layers: Number of couplings, which alternate between the even and the odd features.

    Returns:
        A flow on vectors with a logistic base, the paper's; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.

    References:
        Dinh et al. (2015), NICE: non-linear independent components estimation.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.nice(4).log_prob(torch.randn(2, 4)).shape
        torch.Size([2])
    """
    return conditioned(
        "flows.nice",
        event_shape,
        AdditiveTransformer,
        kind="coupling",
        last=lambda features: [Scaling((features,))],
        base=Logistic,
        layers=layers,
        mixing=mixing,
        **options,
    )


@ready_flow(like=conditioned)
def realnvp(
    event_shape: int | Shape,
    *,
    context_shape: int | Shape | None = None,
    layers: int = 6,
    scales: int = 2,
    width: int = 64,
    depth: int = 2,
    activation: Activation = "relu",
    batch_norm: bool = True,
    input_bound: float | None = 10.0,
) -> Flow:
    """z_c = x_c exp(s(x_a)) + t(x_a): alternating affine couplings; on images, checkerboard and channel-wise.

    Each scale of an image flow has three checkerboard couplings, a squeeze and three channel-wise couplings. Half of
    the channels is then factored out, with a learned prior conditioned on the other half; the last scale has four
    checkerboard couplings. For integer images the paper uses a wider logit margin than the default:
    ``snflow.dequantized(flow, 256, logit_alpha=0.05)``.

    With a single feature each layer is a scale and a shift, which are learned, or predicted from the context if there
    is one.

    Args:
        event_shape: Shape of one event: an int D for vectors, or ``(channels, height, width)`` of images whose sides
            can be halved ``scales − 1`` times.
        context_shape: Shape of one sample's context, such as a one-hot label; an int for vectors, ``None`` for no
            context. On images the networks receive it at every pixel.
        layers: Number of couplings on vectors; images have six per scale, and four at the last scale.
        scales: Number of scales for images, with a squeeze between consecutive scales; unused for vectors.
        width: Number of hidden units, or channels, in each layer of a network.
        depth: Number of hidden layers of each network; on images, of residual blocks.
        activation: Activation of the networks on vectors: ``"relu"``, or one of the smooth ``"silu"``, ``"elu"`` and
            ``"tanh"``.
        batch_norm: Whether an invertible batch normalization follows each coupling.

    Returns:
        A flow on vectors or images with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.
        ShapeError: the event is neither a vector nor an image, or a side cannot be halved.

    References:
        Dinh et al. (2017), Density estimation using Real NVP.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.realnvp((1, 8, 8), width=8).log_prob(torch.randn(2, 1, 8, 8)).shape
        torch.Size([2])
    """
    for option, count in (("layers", layers), ("scales", scales), ("width", width), ("depth", depth)):
        check_count("flows.realnvp", option, count)
    shape = check_event_shape("flows.realnvp", event_shape)
    if vectors_or_images("flows.realnvp", shape):
        body = _scale(shape, scales, width, depth, batch_norm, context_shape, input_bound)
        return Flow(body, StandardNormal(body.latent_shape(shape)))

    return conditioned(
        "flows.realnvp",
        shape,
        lambda: AffineTransformer(_LARGEST_LOG_SCALE),
        kind="coupling",
        wrap=lambda layer, features: [layer, BatchNorm(features)] if batch_norm else [layer],
        context_shape=context_shape,
        layers=layers,
        mixing="none",
        width=width,
        depth=depth,
        activation=activation,
        input_bound=input_bound,
    )


def _scale(
    shape: Shape,
    left: int,
    width: int,
    depth: int,
    batch_norm: bool,
    context_shape: int | Shape | None,
    input_bound: float | None,
) -> Chain:
    def affine(mask: Tensor, channels: int, by_channel: bool) -> list[Bijection]:
        kept, mapped = (int(mask.sum()), int((~mask).sum())) if by_channel else (channels, channels)
        net = image_network(
            lambda seen: ResidualConvNet(seen, 2 * mapped, width=width, blocks=depth), kept, context_shape
        )
        transformer = AffineTransformer(_LARGEST_LOG_SCALE)
        options: dict[str, Any] = {"context_shape": context_shape, "input_bound": input_bound}
        layer = Coupling(mask, transformer, net, image=by_channel, **options)
        return [layer, BatchNorm(channels, image=True)] if batch_norm else [layer]

    channels, height, wide = shape
    layers: list[Bijection] = []
    for number in range(3 if left > 1 else 4):
        layers += affine(checkerboard(height, wide, number), channels, False)
    if left == 1:
        return Chain([*layers, Flatten(shape)])
    squeeze = Squeeze(2)
    squeezed = squeeze.latent_shape(shape)
    layers.append(squeeze)
    for number in range(3):
        layers += affine(halves(squeezed[0], number), squeezed[0], True)
    kept = (squeezed[0] // 2, *squeezed[1:])
    deeper = _scale(kept, left - 1, width, depth, batch_norm, context_shape, input_bound)
    return Chain([*layers, Split(squeezed, deeper)])
