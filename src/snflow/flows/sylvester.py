"""Planar, radial and Sylvester flows."""

from __future__ import annotations

from snflow.bijections.base import Shape
from snflow.bijections.residual.planar import Planar, Radial
from snflow.bijections.residual.sylvester import Basis, GeneralizedSylvester, Sylvester
from snflow.distributions.flow import Flow
from snflow.flows._composition import VectorMixing, conditioned, ready_flow, stacked
from snflow.nets.mlp import Activation


@ready_flow(like=conditioned)
def planar(
    event_shape: int | Shape,
    *,
    context_shape: int | Shape | None = None,
    layers: int = 16,
    mixing: VectorMixing = "none",
) -> Flow:
    """z = x + û tanh(wᵀx + b), repeatedly: each layer moves points along one direction.

    A layer takes O(D) for a density and one scalar root search for a sample. An expressive flow needs many layers.

    Args:
        context_shape: Shape of one sample's context, from which u, w and b are predicted; an int for vectors, ``None``
            for no context.

    Returns:
        A flow on vectors with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.

    References:
        Rezende & Mohamed (2015), Variational inference with normalizing flows.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.planar(3, layers=2).log_prob(torch.randn(4, 3)).shape
        torch.Size([4])
    """
    return stacked(
        "flows.planar",
        event_shape,
        lambda _, features: [Planar(features, context_shape=context_shape)],
        layers=layers,
        mixing=mixing,
    )


@ready_flow(like=conditioned)
def radial(
    event_shape: int | Shape,
    *,
    context_shape: int | Shape | None = None,
    layers: int = 16,
    mixing: VectorMixing = "none",
) -> Flow:
    """z = x + β (x − x₀)/(α + ‖x − x₀‖), repeatedly: each layer moves points toward a center or away from it.

    A layer takes O(D) for a density and for a sample, both in closed form. An expressive flow needs many layers.

    Args:
        context_shape: Shape of one sample's context, from which x₀, α and β are predicted; an int for vectors, ``None``
            for no context.

    Returns:
        A flow on vectors with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.

    References:
        Rezende & Mohamed (2015), Variational inference with normalizing flows.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.radial(3, layers=2).log_prob(torch.randn(4, 3)).shape
        torch.Size([4])
    """
    return stacked(
        "flows.radial",
        event_shape,
        lambda _, features: [Radial(features, context_shape=context_shape)],
        layers=layers,
        mixing=mixing,
    )


@ready_flow(like=conditioned)
def sylvester(
    event_shape: int | Shape,
    *,
    context_shape: int | Shape | None = None,
    layers: int = 8,
    mixing: VectorMixing = "none",
    units: int | None = None,
    basis: Basis = "householder",
) -> Flow:
    """z = x + Q R tanh(R̃ Qᵀx + b), repeatedly: each layer combines M planar layers.

    A layer takes O(M D) for a density and M scalar root searches for a sample.

    Args:
        context_shape: Shape of one sample's context, from which Q, R, R̃ and b are predicted; an int for vectors,
            ``None`` for no context.
        units: Number M of tanh units in each layer, at most D; ``None`` for D.
        basis: How the columns of Q are kept orthonormal: ``"householder"`` (a product of reflections),
            ``"orthogonal"`` (the orthogonal factor of a free matrix) or ``"triangular"`` (the features themselves).

    Returns:
        A flow on vectors with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.

    References:
        van den Berg et al. (2018), Sylvester normalizing flows for variational inference.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.sylvester(3, layers=2).log_prob(torch.randn(4, 3)).shape
        torch.Size([4])
    """
    return stacked(
        "flows.sylvester",
        event_shape,
        lambda _, features: [Sylvester(features, units=units, basis=basis, context_shape=context_shape)],
        layers=layers,
        mixing=mixing,
    )


@ready_flow(like=conditioned)
def generalized_sylvester(
    event_shape: int | Shape,
    *,
    context_shape: int | Shape | None = None,
    layers: int = 4,
    mixing: VectorMixing = "none",
    units: int = 4,
    width: int = 64,
    depth: int = 2,
    activation: Activation = "relu",
) -> Flow:
    """z = x + Wᵀ f(W x), repeatedly: W orthogonal, f autoregressive with slopes above −1.

    A layer takes one pass through a masked network for a density and D scalar root searches for a sample.

    Args:
        units: Number of tanh units in the map of each element.

    Returns:
        A flow on vectors with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.

    References:
        Hoogeboom et al. (2020), The convolution exponential and generalized Sylvester flows.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.generalized_sylvester(3, layers=2).log_prob(torch.randn(4, 3)).shape
        torch.Size([4])
    """

    def layer(_: int, features: int) -> list[GeneralizedSylvester]:
        return [
            GeneralizedSylvester(
                features, units=units, width=width, depth=depth, context_shape=context_shape, activation=activation
            )
        ]

    return stacked("flows.generalized_sylvester", event_shape, layer, layers=layers, mixing=mixing)
