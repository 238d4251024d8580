"""Autoregressive flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from snflow.bijections.autoregressive import Autoregressive, BlockAutoregressive
from snflow.bijections.base import Bijection, Shape
from snflow.bijections.inverse import Inverse
from snflow.bijections.normalization import BatchNorm
from snflow.bijections.transformers.affine import AffineTransformer, GatedTransformer
from snflow.bijections.transformers.monotone import IntegralTransformer, SigmoidalTransformer, SumOfSquaresTransformer
from snflow.distributions.flow import Flow
from snflow.flows.composition import assembled
from snflow.flows.options import VectorMixing
from snflow.nets.mlp import Activation


def maf(
    features: int | Shape,
    *,
    context_features: int = 0,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 5,
    mixing: VectorMixing = "reverse",
    width: int = 64,
    depth: int = 2,
    residual: bool = False,
    activation: Activation = "relu",
    batch_norm: bool = False,
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """zᵢ = xᵢ exp(sᵢ) + tᵢ, (s, t) of x₁ … xᵢ₋₁: densities in one pass a layer, samples in D steps.

    Args:
        features: D, or the shape of events that are flattened.
        context_features: size of a context; 0 for none.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of autoregressive layers.
        mixing: what stands between two of them: ``"reverse"``, ``"random"``, ``"lu"`` or ``"none"``.
        width: features inside of each masked network.
        depth: hidden layers of it.
        residual: whether they add up.
        activation: what stands between the hidden layers, ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.
        batch_norm: whether an invertible batch normalization follows each layer.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.

    References:
        Papamakarios et al. (2017), Masked autoregressive flow for density estimation.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.maf(3, context_features=2)
        >>> flow.log_prob(torch.randn(4, 3), torch.randn(4, 2)).shape
        torch.Size([4])
    """

    def layer(_: int, size: int) -> list[Bijection]:
        own: list[Bijection] = [
            Autoregressive(size, AffineTransformer(), width, depth, context_features, residual, activation),
        ]
        return [*own, BatchNorm(size)] if batch_norm else own

    return assembled(
        "flows.maf",
        features,
        layer,
        layers=layers,
        mixing=mixing,
        quantized=quantized,
        preprocessing=preprocessing,
        base=base,
        logit_alpha=logit_alpha,
    )


def iaf(
    features: int | Shape,
    *,
    context_features: int = 0,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 5,
    mixing: VectorMixing = "reverse",
    width: int = 64,
    depth: int = 2,
    residual: bool = False,
    activation: Activation = "relu",
    gate_bias: float = 2.0,
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """xᵢ = σᵢ zᵢ + (1 − σᵢ) mᵢ, (σ, m) of z₁ … zᵢ₋₁: samples in one pass a layer, densities of given points in D steps.

    A sample's own density costs one pass too: ``flow.distribution().rsample`` and variational inference need no more.

    Args:
        features: D, or the shape of events that are flattened.
        context_features: size of a context, the h of the paper; 0 for none.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of autoregressive layers.
        mixing: what stands between two of them: ``"reverse"``, ``"random"``, ``"lu"`` or ``"none"``.
        width: features inside of each masked network.
        depth: hidden layers of it.
        residual: whether they add up.
        activation: what stands between the hidden layers, ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.
        gate_bias: what is added to each gate before its sigmoid.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.

    References:
        Kingma et al. (2016), Improving variational inference with inverse autoregressive flow, algorithm 1.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.iaf(3).sample(4).shape
        torch.Size([4, 3])
    """

    def layer(_: int, size: int) -> list[Bijection]:
        return [
            Inverse(
                Autoregressive(size, GatedTransformer(gate_bias), width, depth, context_features, residual, activation)
            ),
        ]

    return assembled(
        "flows.iaf",
        features,
        layer,
        layers=layers,
        mixing=mixing,
        quantized=quantized,
        preprocessing=preprocessing,
        base=base,
        logit_alpha=logit_alpha,
    )


_BOX = 5.0
"""What the networks of a polynomial flow see of far points: the nearest one in this box."""


def naf(
    features: int | Shape,
    *,
    context_features: int = 0,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 5,
    mixing: VectorMixing = "reverse",
    width: int = 64,
    depth: int = 2,
    residual: bool = False,
    activation: Activation = "relu",
    units: int = 8,
    sigmoidal_layers: int = 2,
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """zᵢ = τ(xᵢ; hᵢ), τ a monotone network of sigmoids whose weights are h: densities in one pass a layer.

    Args:
        features: D, or the shape of events that are flattened.
        context_features: size of a context; 0 for none.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of autoregressive layers.
        mixing: what stands between two of them: ``"reverse"``, ``"random"``, ``"lu"`` or ``"none"``.
        width: features inside of each masked network.
        depth: hidden layers of it.
        residual: whether they add up.
        activation: what stands between the hidden layers, ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.
        units: sigmoids in each layer of a monotone network.
        sigmoidal_layers: layers of it.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.

    References:
        Huang et al. (2018), Neural autoregressive flows.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.naf(3, layers=2).log_prob(torch.randn(4, 3)).shape
        torch.Size([4])
    """

    def layer(_: int, size: int) -> list[Bijection]:
        transformer = SigmoidalTransformer(units, sigmoidal_layers)
        return [Autoregressive(size, transformer, width, depth, context_features, residual, activation)]

    return assembled(
        "flows.naf",
        features,
        layer,
        layers=layers,
        mixing=mixing,
        quantized=quantized,
        preprocessing=preprocessing,
        base=base,
        logit_alpha=logit_alpha,
    )


def bnaf(
    features: int | Shape,
    *,
    context_features: int = 0,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 3,
    mixing: VectorMixing = "reverse",
    block: int = 16,
    depth: int = 2,
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """z = net(x), net of triangular blocks with a positive diagonal: one network for the whole vector.

    Args:
        features: D, or the shape of events that are flattened.
        context_features: size of a context; 0 for none.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of networks.
        mixing: what stands between two of them: ``"reverse"``, ``"random"``, ``"lu"`` or ``"none"``.
        block: hidden units of each feature in each hidden layer.
        depth: hidden layers of each network.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.

    References:
        De Cao et al. (2019), Block neural autoregressive flow.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.bnaf(3).log_prob(torch.randn(4, 3)).shape
        torch.Size([4])
    """

    def layer(_: int, size: int) -> list[Bijection]:
        return [BlockAutoregressive(size, block, depth, context_features)]

    return assembled(
        "flows.bnaf",
        features,
        layer,
        layers=layers,
        mixing=mixing,
        quantized=quantized,
        preprocessing=preprocessing,
        base=base,
        logit_alpha=logit_alpha,
    )


def umnn(
    features: int | Shape,
    *,
    context_features: int = 0,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 5,
    mixing: VectorMixing = "reverse",
    width: int = 64,
    depth: int = 2,
    residual: bool = False,
    activation: Activation = "relu",
    embedding: int = 8,
    integrand_width: int = 32,
    nodes: int = 24,
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """zᵢ = ∫₀^xᵢ g(t; hᵢ) dt + βᵢ, g a positive network: densities in one pass a layer.

    Args:
        features: D, or the shape of events that are flattened.
        context_features: size of a context; 0 for none.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of autoregressive layers.
        mixing: what stands between two of them: ``"reverse"``, ``"random"``, ``"lu"`` or ``"none"``.
        width: features inside of each masked network.
        depth: hidden layers of it.
        residual: whether they add up.
        activation: what stands between the hidden layers, ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.
        embedding: how many numbers the masked network tells each integrand.
        integrand_width: features inside of an integrand.
        nodes: of the quadrature rule.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.

    References:
        Wehenkel & Louppe (2019), Unconstrained monotonic neural networks.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.umnn(3, layers=2).log_prob(torch.randn(4, 3)).shape
        torch.Size([4])
    """

    def layer(_: int, size: int) -> list[Bijection]:
        transformer = IntegralTransformer(embedding, integrand_width, nodes)
        return [Autoregressive(size, transformer, width, depth, context_features, residual, activation)]

    return assembled(
        "flows.umnn",
        features,
        layer,
        layers=layers,
        mixing=mixing,
        quantized=quantized,
        preprocessing=preprocessing,
        base=base,
        logit_alpha=logit_alpha,
    )


def sos(
    features: int | Shape,
    *,
    context_features: int = 0,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 5,
    mixing: VectorMixing = "reverse",
    width: int = 64,
    depth: int = 2,
    residual: bool = False,
    activation: Activation = "relu",
    polynomials: int = 3,
    degree: int = 3,
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """zᵢ = βᵢ + ∫₀^xᵢ Σₖ pₖ(t)² dt, the coefficients of the polynomials p in hᵢ: densities in one pass a layer.

    Args:
        features: D, or the shape of events that are flattened.
        context_features: size of a context; 0 for none.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of autoregressive layers.
        mixing: what stands between two of them: ``"reverse"``, ``"random"``, ``"lu"`` or ``"none"``.
        width: features inside of each masked network.
        depth: hidden layers of it.
        residual: whether they add up.
        activation: what stands between the hidden layers, ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.
        polynomials: squared polynomials in each sum.
        degree: of each of them.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.

    References:
        Jaini et al. (2019), Sum-of-squares polynomial flow.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.sos(3, layers=2).log_prob(torch.randn(4, 3)).shape
        torch.Size([4])
    """

    def layer(_: int, size: int) -> list[Bijection]:
        transformer = SumOfSquaresTransformer(polynomials, degree)
        # polynomials of polynomials of an outlier overflow, unless they begin as the identity and see it clamped
        return [
            Autoregressive(
                size,
                transformer,
                width,
                depth,
                context_features,
                residual,
                activation,
                input_bound=_BOX,
                zero_start=True,
            )
        ]

    return assembled(
        "flows.sos",
        features,
        layer,
        layers=layers,
        mixing=mixing,
        quantized=quantized,
        preprocessing=preprocessing,
        base=base,
        logit_alpha=logit_alpha,
    )
