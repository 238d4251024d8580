"""Autoregressive flows: MAF, IAF, neural, block neural, unconstrained monotonic and sum-of-squares."""

from __future__ import annotations

from typing import Any, Literal

from snflow.bijections.autoregressive import BlockAutoregressive
from snflow.bijections.base import Shape
from snflow.bijections.inverse import Inverse
from snflow.bijections.normalization import BatchNorm
from snflow.bijections.transformers.affine import AffineTransformer, GatedTransformer
from snflow.bijections.transformers.monotone import IntegralTransformer, SigmoidalTransformer, SumOfSquaresTransformer
from snflow.distributions.flow import Flow
from snflow.errors import check_choice
from snflow.flows._composition import VectorMixing, conditioned, ready_flow, stacked

IAFUpdate = Literal["affine", "gated"]


@ready_flow(like=conditioned)
def maf(
    event_shape: int | Shape,
    *,
    batch_norm: bool = False,
    **options: Any,
) -> Flow:
    """zᵢ = xᵢ exp(sᵢ) + tᵢ, (sᵢ, tᵢ) predicted from x₁ … xᵢ₋₁: densities in one pass per layer, samples in D.

    Args:
        batch_norm: Whether an invertible batch normalization follows each layer.

    Returns:
        A flow on vectors with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.

    References:
        Papamakarios et al. (2017), Masked autoregressive flow for density estimation.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.maf(3, context_shape=2)
        >>> flow.log_prob(torch.randn(4, 3), torch.randn(4, 2)).shape
        torch.Size([4])
    """
    return conditioned(
        "flows.maf",
        event_shape,
        AffineTransformer,
        wrap=lambda layer, features: [layer, BatchNorm(features)] if batch_norm else [layer],
        **options,
    )


@ready_flow(like=conditioned)
def iaf(
    event_shape: int | Shape,
    *,
    update: IAFUpdate = "gated",
    gate_bias: float = 2.0,
    **options: Any,
) -> Flow:
    """xᵢ = σᵢ zᵢ + (1 − σᵢ) mᵢ, (σᵢ, mᵢ) predicted from z₁ … zᵢ₋₁: samples in one pass per layer, densities in D.

    The density of the flow's own samples takes one pass too, so ``flow.rsample_and_log_prob`` and variational inference
    are cheap. The affine update is xᵢ = zᵢ exp(sᵢ) + tᵢ.

    Args:
        context_shape: Shape of one sample's context, the h of the paper; an int for vectors, ``None`` for no context.
        update: Map of each element: ``"gated"``, the convex combination in algorithm 1 of the paper, or ``"affine"``, a
            scale and a shift.
        gate_bias: Constant added to each gate before its sigmoid, so that gated layers begin near the identity; unused
            by affine updates.

    Returns:
        A flow on vectors with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.

    References:
        Kingma et al. (2016), Improving variational inference with inverse autoregressive flow.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.iaf(3, update="affine").sample(4).shape
        torch.Size([4, 3])
    """
    check_choice("flows.iaf", "update", update, IAFUpdate)
    return conditioned(
        "flows.iaf",
        event_shape,
        lambda: GatedTransformer(gate_bias) if update == "gated" else AffineTransformer(),
        wrap=lambda layer, _: [Inverse(layer)],
        **options,
    )


@ready_flow(like=conditioned)
def naf(
    event_shape: int | Shape,
    *,
    units: int = 8,
    sigmoidal_layers: int = 2,
    **options: Any,
) -> Flow:
    """zᵢ = τ(xᵢ; hᵢ), τ a monotone network of sigmoids with weights h predicted from x₁ … xᵢ₋₁.

    A density takes one pass per layer, a sample takes D root searches per layer.

    Args:
        units: Number of sigmoids in each layer of a monotone network.
        sigmoidal_layers: Number of layers of each monotone network.

    Returns:
        A flow on vectors with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.

    References:
        Huang et al. (2018), Neural autoregressive flows.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.naf(3, layers=2).log_prob(torch.randn(4, 3)).shape
        torch.Size([4])
    """
    return conditioned(
        "flows.naf",
        event_shape,
        lambda: SigmoidalTransformer(units, layers=sigmoidal_layers),
        **options,
    )


@ready_flow(like=conditioned)
def bnaf(
    event_shape: int | Shape,
    *,
    context_shape: int | Shape | None = None,
    layers: int = 3,
    mixing: VectorMixing = "reverse",
    width: int = 16,
    depth: int = 2,
) -> Flow:
    """z = net(x), net block-triangular with positive diagonal blocks: one monotone network for the whole vector.

    Args:
        layers: Number of networks.
        width: Number of hidden units per feature in each hidden layer.
        depth: Number of hidden layers of each network.

    Returns:
        A flow on vectors with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.

    References:
        De Cao et al. (2019), Block neural autoregressive flow.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.bnaf(3).log_prob(torch.randn(4, 3)).shape
        torch.Size([4])
    """
    return stacked(
        "flows.bnaf",
        event_shape,
        lambda _, features: [BlockAutoregressive(features, block=width, depth=depth, context_shape=context_shape)],
        layers=layers,
        mixing=mixing,
    )


@ready_flow(like=conditioned)
def umnn(
    event_shape: int | Shape,
    *,
    embedding: int = 8,
    integrand_width: int = 32,
    nodes: int = 48,
    **options: Any,
) -> Flow:
    """zᵢ = ∫₀^xᵢ g(t; hᵢ) dt + βᵢ, g a positive network, (h, β) predicted from x₁ … xᵢ₋₁.

    A density takes one pass per layer, a sample takes D root searches per layer.

    Args:
        embedding: Size of the vector h on which each integrand is conditioned.
        integrand_width: Number of units in each hidden layer of an integrand.
        nodes: Number of quadrature nodes. Half as many are twice as fast, and exact to about 1e-7 nats.

    Returns:
        A flow on vectors with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.

    References:
        Wehenkel & Louppe (2019), Unconstrained monotonic neural networks.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.umnn(3, layers=2).log_prob(torch.randn(4, 3)).shape
        torch.Size([4])
    """
    return conditioned(
        "flows.umnn",
        event_shape,
        lambda: IntegralTransformer(embedding, width=integrand_width, nodes=nodes),
        **options,
    )


@ready_flow(like=conditioned)
def sos(
    event_shape: int | Shape,
    *,
    polynomials: int = 3,
    degree: int = 3,
    input_bound: float | None = 5.0,
    **options: Any,
) -> Flow:
    """zᵢ = βᵢ + ∫₀^xᵢ Σₖ pₖ(t)² dt, β and the coefficients of the polynomials p predicted from x₁ … xᵢ₋₁.

    A density takes one pass per layer, a sample takes D root searches per layer.

    Args:
        polynomials: Number of squared polynomials in each sum.
        degree: Degree of each polynomial p.

    Returns:
        A flow on vectors with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.

    References:
        Jaini et al. (2019), Sum-of-squares polynomial flow.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.sos(3, layers=2).log_prob(torch.randn(4, 3)).shape
        torch.Size([4])
    """
    return conditioned(
        "flows.sos",
        event_shape,
        lambda: SumOfSquaresTransformer(polynomials, degree),
        **options,
        # Composed polynomials of an outlier overflow unless the layers begin as the identity and clamp their inputs.
        input_bound=input_bound,
        zero_start=True,
    )
