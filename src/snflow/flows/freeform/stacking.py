"""What free-form flows share: layers on vectors, or on images at several scales with a squeeze between."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from snflow.arguments import check_count, check_event_shape
from snflow.bijections import ActNorm, Bijection, Chain, Flatten, Squeeze
from snflow.bijections.base import Shape
from snflow.distributions import Flow
from snflow.errors import ShapeError
from snflow.flows.layers import base_density
from snflow.flows.preprocessing import for_levels


def stacked(
    where: str,
    features: int | Shape,
    layer: Callable[[int, Shape], Sequence[Bijection]],
    *,
    layers: int,
    scales: int,
    act_norm: bool,
    quantized: int | None,
    preprocessing: Sequence[Bijection],
    base: str,
    logit_alpha: float,
) -> Flow:
    """Preprocessing, then ``layers`` times what ``layer`` makes, at each scale of images, the last one flattened.

    Args:
        where: the caller, for errors.
        features: D of vectors, or ``(channels, height, width)`` of images.
        layer: from the number of the layer and the event shape there to bijections that keep it.
        layers: how many times, at each scale.
        scales: of images; vectors have one.
        act_norm: whether an act-norm stands before each.
        quantized: the number of values of integer data; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Raises:
        ConfigError: a count below one, or an unknown word.
        ShapeError: events that are neither vectors nor images, or sides that do not halve often enough.
    """
    for option, count in (("layers", layers), ("scales", scales)):
        check_count(where, option, count)
    shape = check_event_shape(where, features)
    if len(shape) not in (1, 3):
        raise ShapeError(
            where,
            expected="vectors (D,) or images (channels, height, width)",
            got=str(shape),
            fix="put a Flatten into preprocessing",
        )
    images = len(shape) == 3
    fixed, dequantization = ([], None) if quantized is None else for_levels(quantized, logit_alpha)
    chain: list[Bijection] = [*preprocessing, *fixed]
    for scale in range(scales if images else 1):
        if scale:
            chain.append(Squeeze(2))
            shape = chain[-1].latent_shape(shape)
        for number in range(layers):
            if act_norm:
                chain.append(ActNorm(shape[0], vectors=not images))
            chain += layer(scale * layers + number, shape)
    if images:
        chain.append(Flatten(shape))
    return Flow(Chain(chain), base_density(base, (math.prod(shape),)), dequantization)
