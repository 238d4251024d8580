"""NICE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from snflow.bijections import AdditiveTransformer, Bijection, Coupling, Scaling
from snflow.bijections.base import Shape
from snflow.bijections.coupling import alternating
from snflow.distributions import Flow
from snflow.flows.vectors.assembling import assembled
from snflow.flows.vectors.options import VectorMixing
from snflow.nets import MLP
from snflow.nets.options import Activation


def nice(
    features: int | Shape,
    *,
    context_features: int = 0,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 4,
    mixing: VectorMixing = "none",
    width: int = 64,
    depth: int = 2,
    residual: bool = False,
    activation: Activation = "relu",
    base: Literal["normal", "diagonal_normal", "logistic"] = "logistic",
    logit_alpha: float = 1e-6,
) -> Flow:
    """z_c = x_c + net(x_a), the parts alternating, then z ⊙ exp(s): volume is kept by all layers but the last.

    Args:
        features: D ≥ 2, or the shape of events that are flattened.
        context_features: size of a context; 0 for none.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of couplings.
        mixing: what stands between two of them besides: ``"reverse"``, ``"random"``, ``"lu"`` or ``"none"``.
        width: features inside of each network.
        depth: hidden layers of it.
        residual: whether they add up.
        activation: what stands between the hidden layers, ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range, or there is one feature alone.

    References:
        Dinh et al. (2015), NICE: non-linear independent components estimation.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.nice(4).log_prob(torch.randn(2, 4)).shape
        torch.Size([2])
    """

    def layer(number: int, size: int) -> list[Bijection]:
        mask = alternating(size, number)
        kept = int(mask.sum())
        net = MLP(kept, size - kept, width, depth, context_features, residual, activation)
        return [Coupling(mask, AdditiveTransformer(), net, context_features)]

    return assembled(
        "flows.nice",
        features,
        layer,
        layers=layers,
        mixing=mixing,
        quantized=quantized,
        preprocessing=preprocessing,
        base=base,
        logit_alpha=logit_alpha,
        last=lambda size: [Scaling((size,))],
    )
