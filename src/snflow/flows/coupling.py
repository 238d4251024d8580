"""Coupling flows: NICE and Real NVP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.chain import Chain
from snflow.bijections.coupling import Coupling, alternating, checkerboard, halves
from snflow.bijections.elementwise import Scaling
from snflow.bijections.normalization import BatchNorm
from snflow.bijections.reshaping import Flatten, Split, Squeeze
from snflow.bijections.transformers.affine import AdditiveTransformer, AffineTransformer
from snflow.distributions.flow import Flow
from snflow.errors import ShapeError, check_count, check_event_shape
from snflow.flows.composition import assembled, base_density, for_levels
from snflow.flows.options import VectorMixing
from snflow.nets.convnet import ResidualConvNet
from snflow.nets.mlp import MLP, Activation


def nice(
    features: int | Shape,
    *,
    context_features: int = 0,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 4,
    mixing: VectorMixing = "none",
    width: int = 64,
    depth: int = 2,
    residual: bool = False,
    activation: Activation = "relu",
    base: Literal["normal", "diagonal_normal", "logistic"] = "logistic",
    logit_alpha: float = 1e-6,
) -> Flow:
    """z_c = x_c + net(x_a), the parts alternating, then z ⊙ exp(s): volume is kept by all layers but the last.

    Args:
        features: D ≥ 2, or the shape of events that are flattened.
        context_features: size of a context; 0 for none.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of couplings.
        mixing: what stands between two of them besides: ``"reverse"``, ``"random"``, ``"lu"`` or ``"none"``.
        width: features inside of each network.
        depth: hidden layers of it.
        residual: whether they add up.
        activation: what stands between the hidden layers, ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range, or there is one feature alone.

    References:
        Dinh et al. (2015), NICE: non-linear independent components estimation.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.nice(4).log_prob(torch.randn(2, 4)).shape
        torch.Size([2])
    """

    def layer(number: int, size: int) -> list[Bijection]:
        mask = alternating(size, number)
        kept = int(mask.sum())
        net = MLP(kept, size - kept, width, depth, context_features, residual, activation)
        return [Coupling(mask, AdditiveTransformer(), net, context_features)]

    return assembled(
        "flows.nice",
        features,
        layer,
        layers=layers,
        mixing=mixing,
        quantized=quantized,
        preprocessing=preprocessing,
        base=base,
        logit_alpha=logit_alpha,
        last=lambda size: [Scaling((size,))],
    )


_LARGEST = 3.0
"""Bound of the log-scales."""


def realnvp(
    features: int | Shape,
    *,
    context_features: int = 0,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 6,
    levels: int = 2,
    width: int = 64,
    depth: int = 2,
    activation: Activation = "relu",
    batch_norm: bool = True,
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 0.05,
) -> Flow:
    """z_c = x_c exp(s(x_a)) + t(x_a): affine couplings, alternating; on images by checkerboards and by channels.

    On images a level is three couplings by checkerboard, a squeeze, three couplings by channel; half of the channels
    then leaves, with a learned prior given the other half, and the last level is four couplings by checkerboard.

    Args:
        features: D ≥ 2, or ``(D,)``, or ``(channels, height, width)`` of images whose sides halve ``levels − 1`` times.
        context_features: size of a context, of vectors alone; 0 for none.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of couplings on vectors.
        levels: levels of scale of images.
        width: features or channels inside of each network.
        depth: hidden layers of it; on images its residual blocks.
        activation: what stands between the layers on vectors, ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.
        batch_norm: whether an invertible batch normalization follows each coupling.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors or images; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.
        ShapeError: the event is neither a vector nor an image, a side does not halve, or images come with a context.

    References:
        Dinh et al. (2017), Density estimation using Real NVP.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.realnvp((1, 8, 8), width=8).log_prob(torch.randn(2, 1, 8, 8)).shape
        torch.Size([2])
    """
    for option, count in (("layers", layers), ("levels", levels), ("width", width), ("depth", depth)):
        check_count("flows.realnvp", option, count)
    shape = check_event_shape("flows.realnvp", features)
    if len(shape) not in (1, 3) or (len(shape) == 3 and context_features):
        raise ShapeError(
            "flows.realnvp",
            expected="vectors, or images without a context",
            got=f"events of shape {shape}, {context_features} features of context",
            fix="flatten the events, or leave the context out",
        )
    fixed, dequantization = ([], None) if quantized is None else for_levels(quantized, logit_alpha)
    if len(shape) == 1:
        body: list[Bijection] = []
        for number in range(layers):
            mask = alternating(shape[0], number)
            net = MLP(int(mask.sum()), 2 * int((~mask).sum()), width, depth, context_features, activation=activation)
            body.append(Coupling(mask, AffineTransformer(_LARGEST), net, context_features))
            body += [BatchNorm(shape[0])] if batch_norm else []
    else:
        body = list(_level(shape, levels, width, depth, batch_norm))
    latent = Chain(body).latent_shape(shape)
    return Flow(Chain([*preprocessing, *fixed, *body]), base_density(base, latent), dequantization)


def _level(shape: Shape, left: int, width: int, blocks: int, batch_norm: bool) -> Chain:
    def coupling(mask: Tensor, channels: int, by_channel: bool) -> list[Bijection]:
        seen, mapped = (int(mask.sum()), int((~mask).sum())) if by_channel else (channels, channels)
        net = ResidualConvNet(seen, width, 2 * mapped, blocks)
        layer = Coupling(mask, AffineTransformer(_LARGEST), net, image=by_channel)
        return [layer, BatchNorm(channels, image=True)] if batch_norm else [layer]

    channels, height, wide = shape
    layers: list[Bijection] = []
    for number in range(3 if left > 1 else 4):
        layers += coupling(checkerboard(height, wide, number), channels, False)
    if left == 1:
        return Chain([*layers, Flatten(shape)])
    squeeze = Squeeze(2)
    inside = squeeze.latent_shape(shape)
    layers.append(squeeze)
    for number in range(3):
        layers += coupling(halves(inside[0], number), inside[0], True)
    kept = (inside[0] // 2, *inside[1:])
    return Chain([*layers, Split(inside, _level(kept, left - 1, width, blocks, batch_norm))])
