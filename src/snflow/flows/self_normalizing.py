"""Flows of free linear maps and free networks: dense, convolutional, and pairs of networks."""

from __future__ import annotations

import math
from typing import Any, Literal

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.chain import Chain
from snflow.bijections.elementwise import LeakyReLU, SmoothLeakyReLU, rational_quadratic_spline
from snflow.bijections.linear import Dense, Initialization
from snflow.bijections.reshaping import Flatten, Squeeze
from snflow.distributions.base import StandardNormal
from snflow.distributions.flow import Flow
from snflow.errors import check_choice, check_count, check_event_shape
from snflow.flows._composition import check_image, mixing_convolution, ready_flow
from snflow.nets.mlp import ResidualMLP
from snflow.numerics.probes import ProbeName
from snflow.selfnorm.layers import SelfNormalizingDense
from snflow.selfnorm.pair import SelfNormalizing
from snflow.selfnorm.tracking import Tracking

DenseRule = Literal["self_normalized", "exact", "relative"]

ElementwiseName = Literal["smooth_leaky_relu", "leaky_relu", "spline"]


@ready_flow(like=mixing_convolution)
def dense(
    event_shape: int | Shape,
    *,
    layers: int = 2,
    activation: ElementwiseName = "smooth_leaky_relu",
    alpha: float = 0.3,
    bins: int = 5,
    tail_bound: float = 10.0,
    log_det_rule: DenseRule = "self_normalized",
    initialization: Initialization = "identity",
    tracking: Tracking | None = None,
) -> Flow:
    """z = Wₙ σ(… σ(W₁ x + b₁) …) + bₙ, W free D×D matrices: the paper's dense model, two layers by default.

    Args:
        event_shape: Shape of one event; an int D for vectors. Other events, such as images, are flattened.
        layers: Number of dense layers.
        activation: Element-wise bijection between two layers: ``"smooth_leaky_relu"``, ``"leaky_relu"`` or
            ``"spline"``; the last layer has none.
        alpha: Slope of the leaky activations for large negative inputs.
        bins: Number of bins of the spline activation.
        tail_bound: Half-width B of the spline activation's box; outside [−B, B] it is the identity.
        log_det_rule: Gradient of each log-determinant: ``"self_normalized"`` (from the learned inverse), ``"exact"`` or
            ``"relative"`` (the relative gradient, which needs neither an inverse nor a determinant).
        initialization: Initial weights: ``"identity"`` plus small noise, as in the paper; ``"exact_identity"``, as in
            the authors' code; or a random ``"orthogonal"`` matrix.

    Returns:
        A flow on events of ``event_shape`` with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.

    References:
        Keller et al. (2021), Self Normalizing Flows, section 5.1; Gresele et al. (2020), Relative gradient optimization
        of the Jacobian term in unsupervised deep learning, for the activation and the relative gradient.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.dequantized(snflow.flows.dense((1, 4, 4)), 17)
        >>> flow(torch.randint(17, (3, 1, 4, 4))).shape
        torch.Size([3])
    """
    check_count("flows.dense", "layers", layers)
    check_choice("flows.dense", "log_det_rule", log_det_rule, DenseRule)
    shape = check_event_shape("flows.dense", event_shape)
    features = math.prod(shape)
    chain: list[Bijection] = [Flatten(shape)]
    for position in range(layers):
        if position > 0:
            chain.append(_elementwise("flows.dense", activation, (features,), alpha, bins, tail_bound))
        if log_det_rule == "self_normalized":
            chain.append(SelfNormalizingDense(features, initialization=initialization, tracking=tracking))
        else:
            chain.append(Dense(features, log_det_rule=log_det_rule, initialization=initialization))
    return Flow(Chain(chain), StandardNormal((features,)))


@ready_flow(like=mixing_convolution)
def conv(
    event_shape: Shape,
    *,
    layers: int = 3,
    scales: int = 3,
    activation: ElementwiseName = "spline",
    bins: int = 5,
    tail_bound: float = 10.0,
    alpha: float = 0.3,
    **convolution: Any,
) -> Flow:
    """z = wₙ ⋆ σ(… σ(w₁ ⋆ x + b₁) …) + bₙ: the paper's convolutional model, nine layers at three scales by default.

    Args:
        event_shape: Shape ``(channels, height, width)`` of one image, whose sides can be halved ``scales − 1`` times.
        layers: Number of convolutions per scale.
        scales: Number of scales, with a squeeze between consecutive scales.
        activation: Element-wise bijection after each convolution except the last: ``"spline"`` (with parameters for
            each pixel), ``"smooth_leaky_relu"`` or ``"leaky_relu"``.
        bins: Number of bins of the spline activation.
        tail_bound: Half-width B of the spline activation's box; outside [−B, B] it is the identity.
        alpha: Slope of the leaky activations for large negative inputs.

    Returns:
        A flow on images of ``event_shape`` with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.
        ShapeError: the event is not an image, or its sides cannot be halved ``scales − 1`` times.

    References:
        Keller et al. (2021), Self Normalizing Flows, section 5.1 and appendix A.3.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.dequantized(snflow.flows.conv((1, 8, 8)), 17)
        >>> flow(torch.randint(17, (3, 1, 8, 8))).shape
        torch.Size([3])
    """
    for option, count in (("layers", layers), ("scales", scales)):
        check_count("flows.conv", option, count)
    shape = check_image("flows.conv", event_shape)
    chain: list[Bijection] = []
    for position in range(scales * layers):
        if position > 0:
            chain.append(_elementwise("flows.conv", activation, shape, alpha, bins, tail_bound))
        if position > 0 and position % layers == 0:
            squeeze = Squeeze(2)
            shape = squeeze.latent_shape(shape)
            chain.append(squeeze)
        chain.append(mixing_convolution("flows.conv", shape, **convolution))
    return Flow(Chain(chain), StandardNormal(shape))


@ready_flow()
def pair(
    event_shape: int | Shape,
    *,
    context_shape: int | Shape | None = None,
    layers: int = 1,
    width: int = 256,
    depth: int = 3,
    penalty_weight: float = 10.0,
    jacobian_penalty: float = 1.0,
    penalty_spread: float = 0.7,
    probe: ProbeName = "orthogonal",
    probes: int = 1,
) -> Flow:
    """z = f(x) for a free residual network f, trained together with a second network g ≈ f⁻¹.

    Args:
        event_shape: Shape of one event; an int D for vectors. Other events, such as images, are flattened.
        context_shape: Shape of one sample's context, an input of both networks; an int for vectors, ``None`` for no
            context.
        layers: Number of pairs of networks.
        width: Number of hidden units in each layer of a network.
        depth: Number of residual blocks of each network.
        penalty_weight: Weight λ of the reconstruction penalty ‖g(f(x)) − x‖².
        jacobian_penalty: Weight μ of the penalty ‖J_g J_f ν − ν‖² on the Jacobians.
        penalty_spread: Standard deviation of the noise that is added to half of the points of the reconstruction
            penalty, so that f is one-to-one around the data too.
        probe: Distribution of the random vectors ν: ``"orthogonal"``, ``"rademacher"`` or ``"gaussian"``.
        probes: Number of random vectors ν per sample.

    Returns:
        A flow on events of ``event_shape`` with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.

    References:
        Keller et al. (2021), Self Normalizing Flows, section 3.2; Draxler et al. (2024), Free-form flows.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.pair(2, context_shape=3, width=16)
        >>> flow(torch.randn(4, 2), torch.randn(4, 3)).shape
        torch.Size([4])
    """
    check_count("flows.pair", "layers", layers)
    shape = check_event_shape("flows.pair", event_shape)
    features = math.prod(shape)
    chain: list[Bijection] = [Flatten(shape)]
    for _ in range(layers):
        forward_net, inverse_net = (
            ResidualMLP(features, width=width, blocks=depth, context_shape=context_shape) for _ in range(2)
        )
        chain.append(
            SelfNormalizing(
                forward_net,
                inverse_net,
                (features,),
                context_shape=context_shape,
                penalty_weight=penalty_weight,
                jacobian_penalty=jacobian_penalty,
                penalty_spread=penalty_spread,
                probe=probe,
                probes=probes,
            )
        )
    return Flow(Chain(chain), StandardNormal((features,)))


def _elementwise(
    where: str, name: ElementwiseName, event_shape: Shape, alpha: float, bins: int, tail_bound: float
) -> Bijection:
    check_choice(where, "activation", name, ElementwiseName)
    match name:
        case "smooth_leaky_relu":
            return SmoothLeakyReLU(alpha)
        case "leaky_relu":
            return LeakyReLU(alpha)
        case "spline":
            return rational_quadratic_spline(event_shape, bins=bins, tail_bound=tail_bound)
