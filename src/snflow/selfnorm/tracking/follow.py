"""What is done to r when w has moved: a tracking step, or a repair by the guard."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from snflow.numerics.probes import rademacher
from snflow.selfnorm.gradient import Operators
from snflow.selfnorm.options import LearnedInverse
from snflow.selfnorm.tracking.kernels import least_squares_kernel
from snflow.selfnorm.tracking.matrices import exact, newton, secant
from snflow.selfnorm.tracking.residual import Residual, inverse_residual

Kind = Literal["newton", "secant", "exact", "least_squares"]

SLACK = 1.2
"""How far a least-squares kernel's residual may rise above what it was when fitted: it never is zero."""


@dataclass(frozen=True)
class Step:
    """A new inverse weight.

    Attributes:
        inverse_weight: r.
        kind: how it was found.
        floor: the residual below which another step of this kind would bring nothing.
    """

    inverse_weight: Tensor
    kind: Kind
    floor: float = 0.0


@dataclass(frozen=True)
class Layer:
    """What a step has to know of a layer: its weights, without gradients, and their operators."""

    weight: Tensor
    inverse_weight: Tensor
    operators: Operators
    event_shape: tuple[int, ...]

    def residual(self, probes: int) -> Residual:
        """Estimate ‖I − A(w) A(r)‖."""
        return inverse_residual(self.weight, self.inverse_weight, self.operators, self.event_shape, probes)


def track(layer: Layer, options: LearnedInverse, floor: float) -> Step | None:
    """One step of r towards A(w)⁻¹, or none where a few probes show that none is needed.

    ``newton``: R ← R + R(I − WR) when the residual is above the tolerance. ``secant``: R S = N for N random probes, the
    more of them the larger the residual. Both take the exact inverse where the residual is too large to contract, and
    fit a kernel by least squares where the inverse is no convolution: ``secant`` always, ``newton`` when the residual
    is above the tolerance and above what the last fit left.

    Args:
        layer: weights and operators.
        options: which of the two, tolerance and probes.
        floor: that of the last step.

    Returns:
        The step, or ``None``.
    """
    if not layer.operators.inverse.closed:
        if options.inverse_tracking == "newton":
            residual = layer.residual(options.tracking_probes)
            if residual.size <= max(options.tracking_tolerance, SLACK * floor):
                return None
        return _fit(layer, options)
    residual = layer.residual(options.tracking_probes)
    if residual.size <= options.tracking_tolerance and residual.contracts:
        return None
    if not residual.contracts:
        return _invert(layer)
    matrices, inverses = _matrices(layer)
    if options.inverse_tracking == "newton":
        return _step(layer, newton(matrices, inverses), "newton")
    size = matrices.shape[-1]
    count = min(size, math.ceil(residual.size / options.tracking_tolerance * options.tracking_probes))
    probes = rademacher(len(matrices), (size, count), matrices)
    return _step(layer, secant(matrices, inverses, probes), "secant")


def repair(layer: Layer, options: LearnedInverse, floor: float) -> Step | None:
    """Bring r back to A(w)⁻¹ when it is lost: the guard of a layer whose r follows by gradients.

    Newton–Schulz where that contracts, else the exact inverse; a least-squares kernel where the inverse is no
    convolution.

    Args:
        layer: weights and operators.
        options: the bound and the number of probes.
        floor: the residual that the last repair left.

    Returns:
        The step, or ``None`` where the residual is within the bound.
    """
    residual = layer.residual(options.tracking_probes)
    if residual.size <= max(options.guard_bound, SLACK * floor) and residual.growth < 1:
        return None
    if not layer.operators.inverse.closed:
        return _fit(layer, options)
    return _step(layer, newton(*_matrices(layer)), "newton") if residual.contracts else _invert(layer)


def refit(layer: Layer, options: LearnedInverse) -> Step | None:
    """The best r there is for this w, at any price: for weights that were put there from outside."""
    return _invert(layer) if layer.operators.inverse.closed else _fit(layer, options)


def _fit(layer: Layer, options: LearnedInverse) -> Step | None:
    fitted = least_squares_kernel(layer.weight, layer.inverse_weight, layer.operators, layer.event_shape)
    if not bool(torch.isfinite(fitted).all()):
        return None
    after = Layer(layer.weight, fitted, layer.operators, layer.event_shape).residual(options.tracking_probes)
    return Step(fitted, "least_squares", after.size)


def _invert(layer: Layer) -> Step | None:
    return _step(layer, exact(_matrices(layer)[0]), "exact")


def _step(layer: Layer, inverses: Tensor, kind: Kind) -> Step | None:
    """A weight that is not finite, or singular, leaves r alone: the loss tells of it."""
    if not bool(torch.isfinite(inverses).all()):
        return None
    return Step(layer.operators.inverse.from_matrices(inverses), kind)


def _matrices(layer: Layer) -> tuple[Tensor, Tensor]:
    return layer.operators.forward.matrices(layer.weight), layer.operators.inverse.matrices(layer.inverse_weight)
