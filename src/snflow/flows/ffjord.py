"""FFJORD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.continuous import ContinuousFlow, SolverName, TraceName
from snflow.distributions.flow import Flow
from snflow.flows.composition import stacked
from snflow.nets.mlp import Activation
from snflow.nets.velocity import VelocityNet


def ffjord(
    features: int | Shape,
    *,
    context_features: int = 0,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 1,
    scales: int = 2,
    width: int = 64,
    depth: int = 3,
    activation: Activation = "tanh",
    trace: TraceName = "auto",
    solver: SolverName = "dopri5",
    tolerance: float = 1e-5,
    steps: int = 20,
    adjoint: bool = True,
    kinetic_weight: float = 0.0,
    jacobian_weight: float = 0.0,
    exact_dimensions: int = 64,
    act_norm: bool = False,
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """dx/dt = v(x, t), log|det| = ∫ tr(∂v/∂x) dt: any network for a velocity, the same cost both ways.

    Args:
        features: D of vectors, or ``(channels, height, width)`` of images.
        context_features: size of a context that the velocity sees; 0 for none.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of equations, one behind the other, at each scale of images.
        scales: of images, a squeeze between each two.
        width: features, or channels, inside of each velocity.
        depth: hidden layers of it.
        activation: what stands between them, smooth.
        trace: ``"exact"``, ``"hutchinson"``, or ``"auto"``: exact for D ≤ 3, in training.
        solver: the method, of :class:`~snflow.ContinuousFlow`.
        tolerance: of adaptive methods.
        steps: of the others.
        adjoint: whether gradients come from the equation solved backwards, in constant memory.
        kinetic_weight: of ∫‖v‖² in training.
        jacobian_weight: of ∫‖∂v/∂x‖_F² in training.
        exact_dimensions: the largest D for which evaluation takes the exact trace; above it is an unbiased estimate.
        act_norm: whether a scale and a shift, set by the first batch, stand before each equation.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors or images; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.
        ShapeError: events that are neither vectors nor images, or sides that do not halve often enough.

    References:
        Grathwohl et al. (2019), FFJORD: free-form continuous dynamics for scalable reversible generative models;
        Finlay et al. (2020), How to train your neural ODE.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.ffjord(2, width=8).log_prob(torch.randn(4, 2)).shape
        torch.Size([4])
    """

    def layer(_: int, shape: Shape) -> list[Bijection]:
        return [
            ContinuousFlow(
                VelocityNet(shape, width, depth, 3, context_features, activation),
                shape,
                context_shape=(context_features,) if context_features else None,
                trace=trace,
                solver=solver,
                tolerance=tolerance,
                steps=steps,
                adjoint=adjoint,
                kinetic_weight=kinetic_weight,
                jacobian_weight=jacobian_weight,
                exact_dimensions=exact_dimensions,
            )
        ]

    return stacked(
        "flows.ffjord",
        features,
        layer,
        layers=layers,
        scales=scales,
        act_norm=act_norm,
        quantized=quantized,
        preprocessing=preprocessing,
        base=base,
        logit_alpha=logit_alpha,
    )
