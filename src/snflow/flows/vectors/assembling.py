"""What the flows on vectors share: fixed layers first, the same kind of layer again and again, a mixing in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from snflow.arguments import check_choice, check_count, check_event_shape
from snflow.bijections import Bijection, Chain, Flatten, LULinear, Permutation
from snflow.bijections.base import Shape
from snflow.distributions import Flow
from snflow.flows.layers import base_density
from snflow.flows.preprocessing import for_levels
from snflow.flows.vectors.options import VectorMixing


def assembled(
    where: str,
    features: int | Shape,
    layer: Callable[[int, int], Sequence[Bijection]],
    *,
    layers: int,
    mixing: VectorMixing,
    quantized: int | None,
    preprocessing: Sequence[Bijection],
    base: str,
    logit_alpha: float,
    last: Callable[[int], Sequence[Bijection]] = lambda _: (),
) -> Flow:
    """Preprocessing, then ``layers`` times what ``layer`` makes, a mixing between each two, then ``last``.

    Args:
        where: the caller, for errors.
        features: D, or the shape of events that are flattened.
        layer: from the number of the layer and D to bijections on vectors of D.
        layers: how many times.
        mixing: what stands between two layers.
        quantized: the number of values of integer data; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.
        last: from D to the layers behind all others.

    Raises:
        ConfigError: a count below one, or an unknown word.
    """
    check_count(where, "layers", layers)
    check_choice(where, "mixing", mixing, VectorMixing)
    shape = check_event_shape(where, features)
    size = math.prod(shape)
    fixed, dequantization = ([], None) if quantized is None else for_levels(quantized, logit_alpha)
    chain: list[Bijection] = [*preprocessing, *fixed]
    if len(shape) != 1:
        chain.append(Flatten(shape))
    for number in range(layers):
        if number:
            chain += _mixing(mixing, size)
        chain += layer(number, size)
    return Flow(Chain([*chain, *last(size)]), base_density(base, (size,)), dequantization)


def _mixing(name: VectorMixing, features: int) -> list[Bijection]:
    match name:
        case "reverse":
            return [Permutation.reversed(features)]
        case "random":
            return [Permutation.random(features)]
        case "lu":
            return [LULinear(features)]
        case "none":
            return []
