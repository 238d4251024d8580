"""Dense flows: free square matrices with activations between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Unpack

from snflow.arguments import check_count, check_event_shape
from snflow.bijections import Bijection, Chain, Flatten
from snflow.bijections.base import Shape
from snflow.bijections.linear import LogDetRule
from snflow.bijections.linear.initialization import Initialization
from snflow.distributions import Flow
from snflow.flows.layers import activation_layer, base_density, dense_layer
from snflow.flows.preprocessing import for_levels
from snflow.selfnorm.options import LearnedInverseArguments


def dense(
    event_shape: int | Shape,
    *,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 2,
    activation: Literal["smooth_leaky_relu", "leaky_relu", "spline"] = "smooth_leaky_relu",
    alpha: float = 0.3,
    log_det_rule: LogDetRule = "self_normalized",
    initialization: Initialization = "identity",
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
    **learned: Unpack[LearnedInverseArguments],
) -> Flow:
    """z = Wₙ σ(… σ(W₁ x + b₁) …) + bₙ: the paper's dense model, two layers by default.

    Args:
        event_shape: the shape of one event, or D of vectors; images are flattened.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one, as for standardising a table.
        layers: number of dense layers.
        activation: the function between two layers, none after the last.
        alpha: slope of the leaky activations.
        log_det_rule: ``"self_normalized"``, ``"exact"`` or ``"relative"``.
        initialization: of the forward weights.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.
        learned: how the inverses are learned, the fields of :class:`~snflow.LearnedInverse`.

    Returns:
        A flow on events of ``event_shape``; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.

    References:
        Keller et al. (2021), Self Normalizing Flows, section 5.1; Gresele et al. (2020) for the activation.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.dense((1, 4, 4), quantized=17)
        >>> flow(torch.randint(17, (3, 1, 4, 4))).shape
        torch.Size([3])
    """
    check_count("flows.dense", "layers", layers)
    shape = check_event_shape("flows.dense", event_shape)
    features = math.prod(shape)
    fixed, dequantization = ([], None) if quantized is None else for_levels(quantized, logit_alpha)
    chain: list[Bijection] = [*preprocessing, *fixed, Flatten(shape)]
    for position in range(layers):
        if position > 0:
            chain.append(activation_layer(activation, (features,), alpha=alpha, bins=5, tail_bound=10.0))
        chain.append(dense_layer(features, log_det_rule, initialization, learned))
    return Flow(Chain(chain), base_density(base, (features,)), dequantization)
