"""Real NVP, on vectors and on images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from snflow.arguments import check_count, check_event_shape
from snflow.bijections import (
    AffineTransformer,
    BatchNorm,
    Bijection,
    Chain,
    Coupling,
    Flatten,
    Split,
    Squeeze,
)
from snflow.bijections.base import Shape
from snflow.bijections.coupling import alternating, checkerboard, halves
from snflow.distributions import Flow
from snflow.errors import ShapeError
from snflow.flows.layers import base_density
from snflow.flows.preprocessing import for_levels
from snflow.nets import MLP, ResidualConvNet
from snflow.nets.options import Activation

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
