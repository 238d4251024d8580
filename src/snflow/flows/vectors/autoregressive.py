"""Masked autoregressive flow and inverse autoregressive flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from snflow.bijections import (
    AffineTransformer,
    Autoregressive,
    BatchNorm,
    Bijection,
    GatedTransformer,
    Inverse,
)
from snflow.bijections.base import Shape
from snflow.distributions import Flow
from snflow.flows.vectors.assembling import assembled
from snflow.flows.vectors.options import VectorMixing
from snflow.nets.options import Activation


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
