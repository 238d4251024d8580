"""Neural spline flows, on vectors and on angles."""

from __future__ import annotations

import math
from typing import Any, Literal

from snflow.bijections.autoregressive import Autoregressive
from snflow.bijections.base import Bijection, Shape
from snflow.bijections.coupling import Coupling, alternating
from snflow.bijections.elementwise import Elementwise
from snflow.bijections.transformers.spline import (
    CircularSplineTransformer,
    CubicSplineTransformer,
    LinearSplineTransformer,
    QuadraticSplineTransformer,
    RationalQuadraticTransformer,
)
from snflow.bijections.transformers.transformer import Transformer
from snflow.distributions.base import Uniform
from snflow.distributions.flow import Flow
from snflow.errors import ConfigError, check_choice, check_count, check_event_shape
from snflow.flows._composition import LayerKind, VectorMixing, conditioned, ready_flow, stacked
from snflow.nets.mlp import Activation, PeriodicMLP

SplineName = Literal["rational_quadratic", "cubic", "quadratic", "linear"]

_SPLINES: dict[str, type[Transformer]] = {
    "rational_quadratic": RationalQuadraticTransformer,
    "cubic": CubicSplineTransformer,
    "quadratic": QuadraticSplineTransformer,
    "linear": LinearSplineTransformer,
}


@ready_flow(like=conditioned)
def neural_spline(
    event_shape: int | Shape,
    *,
    mixing: VectorMixing = "lu",
    kind: LayerKind = "coupling",
    spline: SplineName = "rational_quadratic",
    bins: int = 8,
    tail_bound: float = 5.0,
    input_bound: float | None = 5.0,
    **options: Any,
) -> Flow:
    """zᵢ = s(xᵢ; hᵢ), s a monotone spline of K pieces with parameters h predicted by a network.

    Couplings are fast in both directions; autoregressive layers are more expressive, but a sample takes D steps. With a
    single feature each layer is a spline, which is learned, or predicted from the context if there is one.

    Args:
        layers: Number of couplings, which alternate between the even and the odd features, or of autoregressive layers.
        kind: ``"coupling"`` for layers that are fast in both directions, ``"autoregressive"`` for layers that are more
            expressive.
        spline: Kind of spline: ``"rational_quadratic"``, ``"cubic"``, ``"quadratic"`` or ``"linear"``.
        bins: Number K of pieces of each spline.
        tail_bound: Half-width B of the splines' box. Outside [−B, B] the splines are the identity.

    Returns:
        A flow on vectors with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.

    References:
        Durkan et al. (2019), Neural spline flows; Durkan et al. (2019), Cubic-spline flows; Müller et al. (2019),
        Neural importance sampling.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.neural_spline(3, kind="autoregressive", layers=2).log_prob(torch.randn(4, 3)).shape
        torch.Size([4])
    """
    check_choice("flows.neural_spline", "kind", kind, LayerKind)
    check_choice("flows.neural_spline", "spline", spline, SplineName)
    return conditioned(
        "flows.neural_spline",
        event_shape,
        lambda: _SPLINES[spline](bins, tail_bound=tail_bound),
        kind=kind,
        input_bound=input_bound,
        mixing=mixing,
        **options,
    )


@ready_flow(like=conditioned)
def circular_spline(
    event_shape: int | Shape,
    *,
    context_shape: int | Shape | None = None,
    layers: int = 4,
    width: int = 64,
    depth: int = 2,
    activation: Activation = "silu",
    bins: int = 8,
) -> Flow:
    """zᵢ = s(xᵢ; hᵢ) for angles in [−π, π), s a circular spline: for periodic data, on a torus of D circles.

    The networks receive the cosine and the sine of each angle, so that the density is continuous at ±π. Angles must not
    be standardized: set ``preprocessing.standardize: false`` in a recipe.

    Args:
        event_shape: Shape of one event; an int D for vectors of angles. Other events are flattened.
        layers: Number of couplings, at least two; for a single angle, the number of splines.
        bins: Number of pieces of each spline.

    Returns:
        A flow on angles in radians with a uniform base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.

    References:
        Rezende et al. (2020), Normalizing flows on tori and spheres, section 2.1.2.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.flows.circular_spline(2)
        >>> x = torch.rand(3, 2)
        >>> torch.allclose(flow.log_prob(x), flow.log_prob(x + 2 * torch.pi), atol=1e-4)
        True
    """
    shape = check_event_shape("flows.circular_spline", event_shape)
    check_count("flows.circular_spline", "layers", layers)
    if math.prod(shape) > 1 and layers < 2:
        raise ConfigError(
            "flows.circular_spline",
            expected="two layers or more",
            got=str(layers),
            fix="take at least two: each coupling maps half of the angles",
        )

    def layer(number: int, features: int) -> list[Bijection]:
        transformer = CircularSplineTransformer(bins)
        if features == 1 and context_shape is None:
            return [Elementwise(transformer, (1,))]
        if features == 1:
            return [
                Autoregressive(
                    1, transformer, width=width, depth=depth, context_shape=context_shape, activation=activation
                )
            ]
        mask = alternating(features, number)
        kept = int(mask.sum())
        outputs = transformer.parameters_per_element * (features - kept)
        net = PeriodicMLP(kept, outputs, width=width, depth=depth, context_shape=context_shape, activation=activation)
        return [Coupling(mask, transformer, net, context_shape=context_shape)]

    def base(latent_shape: Shape) -> Uniform:
        return Uniform(latent_shape, low=-math.pi, high=math.pi)

    return stacked("flows.circular_spline", shape, layer, layers=layers, base=base)
