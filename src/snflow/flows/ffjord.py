"""FFJORD."""

from __future__ import annotations

from typing import Any

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.continuous import ContinuousFlow, SolverName, TraceName
from snflow.distributions.flow import Flow
from snflow.flows._composition import multiscale, ready_flow
from snflow.nets.mlp import Activation
from snflow.nets.velocity import VelocityNet


@ready_flow(like=multiscale)
def ffjord(
    event_shape: int | Shape,
    *,
    context_shape: int | Shape | None = None,
    layers: int = 1,
    width: int = 64,
    depth: int = 3,
    activation: Activation = "tanh",
    trace: TraceName = "auto",
    solver: SolverName = "dopri5",
    tolerance: float = 1e-5,
    eval_tolerance: float = 1e-7,
    steps: int = 20,
    adjoint: bool = True,
    kinetic_weight: float = 0.0,
    jacobian_weight: float = 0.0,
    exact_dimensions: int = 64,
    act_norm: bool = False,
    **options: Any,
) -> Flow:
    """dx/dt = v(x, t), log|det| = ∫ tr(∂v/∂x) dt: the velocity v is any network, and both directions cost the same.

    Args:
        layers: Number of differential equations per scale.
        width: Number of hidden units, or channels, in each layer of a velocity network.
        depth: Number of hidden layers of each velocity network.
        activation: Smooth activation of the velocity networks: ``"tanh"``, ``"silu"`` or ``"elu"``.
        trace: How the trace is computed in training: ``"exact"``, ``"hutchinson"`` (an unbiased estimate), or
            ``"auto"``, exact for D ≤ 3.
        solver: Solver of the equations: ``"dopri5"``, ``"dopri8"``, ``"bosh3"`` or ``"adaptive_heun"``, with
            adaptive steps, or ``"rk4"``, ``"midpoint"`` or ``"euler"``, with fixed steps.
        tolerance: Relative and absolute error tolerance of the adaptive solvers: in training, log-determinants and
            round trips are off by up to ten times as much.
        eval_tolerance: The same in evaluation, if it is smaller: exact to 1e-6 in float64, for about twice the cost.
        steps: Number of steps of the fixed-step solvers.
        adjoint: Whether gradients are computed by the adjoint method, which solves the equation backward in constant
            memory.
        kinetic_weight: Weight of ∫‖v‖² dt in training, which straightens the paths.
        jacobian_weight: Weight of ∫‖∂v/∂x‖_F² dt in training, which reduces the number of solver steps.
        exact_dimensions: Largest D for which evaluation uses the exact trace; above it, an unbiased estimate.

    Returns:
        A flow on vectors or images with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.
        ShapeError: events that are neither vectors nor images, or sides that cannot be halved ``scales − 1`` times.

    References:
        Grathwohl et al. (2019), FFJORD: free-form continuous dynamics for scalable reversible generative models;
        Finlay et al. (2020), How to train your neural ODE, for the two weights.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.ffjord(2, width=8).log_prob(torch.randn(4, 2)).shape
        torch.Size([4])
    """

    def layer(_: int, shape: Shape) -> list[Bijection]:
        velocity = VelocityNet(shape, width=width, depth=depth, context_shape=context_shape, activation=activation)
        return [
            ContinuousFlow(
                velocity,
                shape,
                context_shape=context_shape,
                trace=trace,
                solver=solver,
                tolerance=tolerance,
                eval_tolerance=eval_tolerance,
                steps=steps,
                adjoint=adjoint,
                kinetic_weight=kinetic_weight,
                jacobian_weight=jacobian_weight,
                exact_dimensions=exact_dimensions,
            )
        ]

    return multiscale("flows.ffjord", event_shape, layer, layers=layers, act_norm=act_norm, **options)
