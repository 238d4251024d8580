"""Neural spline flows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from snflow.bijections.autoregressive import Autoregressive
from snflow.bijections.base import Bijection, Shape
from snflow.bijections.chain import Chain
from snflow.bijections.coupling import Coupling, alternating
from snflow.bijections.elementwise import Elementwise
from snflow.bijections.transformers.base import Transformer
from snflow.bijections.transformers.spline import (
    CircularSplineTransformer,
    CubicSplineTransformer,
    LinearSplineTransformer,
    QuadraticSplineTransformer,
    RationalQuadraticTransformer,
)
from snflow.distributions.base import Uniform
from snflow.distributions.flow import Flow
from snflow.errors import ConfigError, check_choice, check_count
from snflow.flows.composition import assembled
from snflow.flows.options import SplineName, VectorMixing
from snflow.nets.mlp import MLP, Activation, PeriodicMLP

SplineKind = Literal["coupling", "autoregressive"]

_SPLINES: dict[str, type[Transformer]] = {
    "rational_quadratic": RationalQuadraticTransformer,
    "cubic": CubicSplineTransformer,
    "quadratic": QuadraticSplineTransformer,
    "linear": LinearSplineTransformer,
}


def neural_spline(
    features: int | Shape,
    *,
    context_features: int = 0,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 5,
    mixing: VectorMixing = "lu",
    width: int = 64,
    depth: int = 2,
    residual: bool = False,
    activation: Activation = "relu",
    kind: SplineKind = "coupling",
    spline: SplineName = "rational_quadratic",
    bins: int = 8,
    tail_bound: float = 5.0,
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """zᵢ = s(xᵢ; hᵢ), s a monotone spline of K pieces: in couplings fast both ways, autoregressive more expressive.

    Args:
        features: D, two or more for couplings, or the shape of events that are flattened.
        context_features: size of a context; 0 for none.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of couplings, whose parts alternate, or of autoregressive layers.
        mixing: what stands between two of them: ``"reverse"``, ``"random"``, ``"lu"`` or ``"none"``.
        width: features inside of each network.
        depth: hidden layers of it.
        residual: whether they add up.
        activation: what stands between the hidden layers, ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.
        kind: ``"coupling"`` or ``"autoregressive"``.
        spline: ``"rational_quadratic"``, ``"cubic"``, ``"quadratic"`` or ``"linear"``.
        bins: K.
        tail_bound: half-width B of the splines' box: outside [−B, B] they are the identity, and networks see the
            nearest point inside.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.

    References:
        Durkan et al. (2019), Neural spline flows; Durkan et al. (2019), Cubic-spline flows; Müller et al. (2019),
        Neural importance sampling.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.neural_spline(3, kind="autoregressive", layers=2).log_prob(torch.randn(4, 3)).shape
        torch.Size([4])
    """
    check_choice("flows.neural_spline", "kind", kind, SplineKind)
    check_choice("flows.neural_spline", "spline", spline, SplineName)

    def layer(number: int, size: int) -> list[Bijection]:
        transformer = _SPLINES[spline](bins, tail_bound)
        if kind == "autoregressive":
            return [Autoregressive(size, transformer, width, depth, context_features, residual, activation, tail_bound)]
        mask = alternating(size, number)
        kept = int(mask.sum())
        outputs = transformer.parameters_per_element * (size - kept)
        net = MLP(kept, outputs, width, depth, context_features, residual, activation, tail_bound)
        return [Coupling(mask, transformer, net, context_features)]

    return assembled(
        "flows.neural_spline",
        features,
        layer,
        layers=layers,
        mixing=mixing,
        quantized=quantized,
        preprocessing=preprocessing,
        base=base,
        logit_alpha=logit_alpha,
    )


def circular_spline(
    features: int,
    *,
    context_features: int = 0,
    layers: int = 4,
    width: int = 64,
    depth: int = 2,
    activation: Activation = "silu",
    bins: int = 8,
) -> Flow:
    """zᵢ = s(xᵢ; hᵢ) for angles in [−π, π), s a spline of the circle: periodic data, on a torus of D circles.

    The networks see the cosine and the sine of each angle, so that the density has no seam; the base is uniform.

    Args:
        features: D; a single angle has a spline of its own, more have couplings.
        context_features: size of a context; 0 for none. A single angle takes none.
        layers: number of couplings, or of splines on a single angle.
        width: features inside of each network.
        depth: hidden layers of it.
        activation: what stands between them, ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.
        bins: pieces of each spline.

    Returns:
        A flow on angles in radians; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.

    References:
        Rezende et al. (2020), Normalizing flows on tori and spheres, section 2.1.2.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.circular_spline(2)
        >>> x = torch.rand(3, 2)
        >>> torch.allclose(flow.log_prob(x), flow.log_prob(x + 2 * torch.pi), atol=1e-4)
        True
    """
    check_count("flows.circular_spline", "features", features)
    if layers < (1 if features == 1 else 2):
        raise ConfigError(
            "flows.circular_spline",
            expected="two layers or more",
            got=str(layers),
            fix="a coupling maps half of the angles",
        )
    chain: list[Bijection] = []
    for number in range(layers):
        transformer = CircularSplineTransformer(bins)
        if features == 1:
            chain.append(Elementwise(transformer, (1,)))
            continue
        mask = alternating(features, number)
        kept = int(mask.sum())
        outputs = transformer.parameters_per_element * (features - kept)
        net = PeriodicMLP(kept, outputs, width, depth, context_features, activation)
        chain.append(Coupling(mask, transformer, net, context_features))
    return Flow(Chain(chain), Uniform((features,), -math.pi, math.pi))
