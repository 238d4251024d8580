"""Planar, radial and Sylvester flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.residual.planar import Planar, Radial
from snflow.bijections.residual.sylvester import Sylvester
from snflow.distributions.flow import Flow
from snflow.flows.composition import assembled
from snflow.flows.options import SylvesterBasis, VectorMixing


def planar(
    features: int | Shape,
    *,
    context_features: int = 0,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 16,
    mixing: VectorMixing = "none",
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """z = x + û tanh(wᵀx + b), again and again: each layer moves space along one direction.

    O(D) a layer for a density, a root of one number a row for a sample. It takes many layers to say much.

    Args:
        features: D, or the shape of events that are flattened.
        context_features: size of a context; 0 for none.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of layers.
        mixing: what stands between two of them: ``"reverse"``, ``"random"``, ``"lu"`` or ``"none"``.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.

    References:
        Rezende & Mohamed (2015), Variational inference with normalizing flows.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.planar(3, layers=2).log_prob(torch.randn(4, 3)).shape
        torch.Size([4])
    """
    return assembled(
        "flows.planar",
        features,
        lambda _, size: [Planar(size, context_features)],
        layers=layers,
        mixing=mixing,
        quantized=quantized,
        preprocessing=preprocessing,
        base=base,
        logit_alpha=logit_alpha,
    )


def radial(
    features: int | Shape,
    *,
    context_features: int = 0,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 16,
    mixing: VectorMixing = "none",
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """z = x + β (x − x₀)/(α + ‖x − x₀‖), again and again: each layer moves space towards a point or away.

    O(D) a layer for a density and for a sample, both in closed form. It takes many layers to say much.

    Args:
        features: D, or the shape of events that are flattened.
        context_features: size of a context; 0 for none.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of layers.
        mixing: what stands between two of them: ``"reverse"``, ``"random"``, ``"lu"`` or ``"none"``.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.

    References:
        Rezende & Mohamed (2015), Variational inference with normalizing flows.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.radial(3, layers=2).log_prob(torch.randn(4, 3)).shape
        torch.Size([4])
    """
    return assembled(
        "flows.radial",
        features,
        lambda _, size: [Radial(size, context_features)],
        layers=layers,
        mixing=mixing,
        quantized=quantized,
        preprocessing=preprocessing,
        base=base,
        logit_alpha=logit_alpha,
    )


def sylvester(
    features: int | Shape,
    *,
    context_features: int = 0,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 8,
    units: int | None = None,
    basis: SylvesterBasis = "householder",
    mixing: VectorMixing = "none",
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """z = x + Q R tanh(R̃ Qᵀx + b), again and again: each layer is M planar ones at once.

    O(M D) a layer for a density, M roots of one number a row for a sample.

    Args:
        features: D, or the shape of events that are flattened.
        context_features: size of a context; 0 for none.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of layers.
        units: M of each layer, D at most; D when ``None``.
        basis: how Q is kept orthogonal: ``"householder"``, ``"orthogonal"``, or ``"triangular"``, the features.
        mixing: what stands between two of them: ``"reverse"``, ``"random"``, ``"lu"`` or ``"none"``.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.

    References:
        van den Berg et al. (2018), Sylvester normalizing flows for variational inference.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.sylvester(3, layers=2).log_prob(torch.randn(4, 3)).shape
        torch.Size([4])
    """
    return assembled(
        "flows.sylvester",
        features,
        lambda _, size: [Sylvester(size, units, basis, context_features)],
        layers=layers,
        mixing=mixing,
        quantized=quantized,
        preprocessing=preprocessing,
        base=base,
        logit_alpha=logit_alpha,
    )
