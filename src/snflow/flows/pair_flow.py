"""Flows of free networks, each with a network beside it that learns its inverse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from snflow.arguments import check_count, check_event_shape
from snflow.bijections import Bijection, Chain, Flatten
from snflow.bijections.base import Shape
from snflow.distributions import Flow
from snflow.flows.layers import base_density
from snflow.flows.preprocessing import for_levels
from snflow.nets import ResidualMLP
from snflow.selfnorm.networks import ProbeName, SelfNormalizing


def pair(
    event_shape: int | Shape,
    *,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 1,
    width: int = 256,
    blocks: int = 3,
    penalty_weight: float = 10.0,
    jacobian_penalty: float = 1.0,
    penalty_spread: float = 0.7,
    probe: ProbeName = "orthogonal",
    probes: int = 1,
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """z = f(x) for a residual network f, with another one g ≈ f⁻¹ beside it.

    Args:
        event_shape: the shape of one event, or D of vectors; images are flattened.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of pairs, one behind the other.
        width: features inside of each network.
        blocks: residual blocks of each network.
        penalty_weight: λ of the reconstruction penalty.
        jacobian_penalty: weight of ‖J_g J_f ν − ν‖².
        penalty_spread: deviation of the noise around the data where the penalty holds too.
        probe: the kind of the random vectors ν.
        probes: how many for each row.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on events of ``event_shape``; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.

    References:
        Keller et al. (2021), Self Normalizing Flows, section 3.2; Draxler et al. (2024), Free-form flows.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.pair((2,), width=16)
        >>> flow(torch.randn(3, 2)).shape
        torch.Size([3])
    """
    check_count("flows.pair", "layers", layers)
    shape = check_event_shape("flows.pair", event_shape)
    features = math.prod(shape)
    fixed, dequantization = ([], None) if quantized is None else for_levels(quantized, logit_alpha)
    chain: list[Bijection] = [*preprocessing, *fixed, Flatten(shape)]
    for _ in range(layers):
        forward_net, inverse_net = (ResidualMLP(features, width, blocks) for _ in range(2))
        chain.append(
            SelfNormalizing(
                forward_net,
                inverse_net,
                (features,),
                penalty_weight=penalty_weight,
                jacobian_penalty=jacobian_penalty,
                penalty_spread=penalty_spread,
                probe=probe,
                probes=probes,
            )
        )
    return Flow(Chain(chain), base_density(base, (features,)), dequantization)
