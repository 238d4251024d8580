"""Tracking: how a learned inverse follows its weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from snflow.numerics.operators.conv import ConvOperator
from snflow.numerics.operators.dense import Operator
from snflow.numerics.probes import rademacher
from snflow.selfnorm.gradient import Operators
from snflow.selfnorm.options import LearnedInverse

CONTRACTING = 0.7
"""The residual ‖I − WR‖_F/√n up to which a Newton–Schulz step is trusted: it squares the residual, if below one."""


def newton(weight: Tensor, inverse: Tensor) -> Tensor:
    """R + R (I − W R): the residual I − WR becomes its square. O(n³), two products.

    Args:
        weight: W, with shape ``(m, n, n)``.
        inverse: R, with the same shape; ‖I − WR‖ < 1 is needed.

    Returns:
        The new R, with the same shape.

    References:
        Schulz (1933), Iterative Berechnung der reziproken Matrix.

    Example:
        >>> newton(torch.tensor([[[2.0]]]), torch.tensor([[[0.45]]]))
        tensor([[[0.4950]]])
    """
    residual = _residual(weight, inverse)
    return torch.baddbmm(inverse, inverse, residual)


def contracted(weight: Tensor, inverse: Tensor) -> Tensor:
    """R + R (I − W R) where ‖I − W R‖_F/√n < 0.7, else R: :func:`newton`, decided on the device.

    A large step of an optimizer may leave a residual that Newton–Schulz would blow up; there R waits for somebody who
    can look at it and take a factorisation.

    Args:
        weight: W, with shape ``(m, n, n)``.
        inverse: R, with the same shape.

    Returns:
        The new R, with the same shape.

    Example:
        >>> contracted(torch.tensor([[[2.0]]]), torch.tensor([[[0.45]]]))
        tensor([[[0.4950]]])
        >>> contracted(torch.tensor([[[2.0]]]), torch.tensor([[[5.0]]]))
        tensor([[[5.]]])
    """
    residual = _residual(weight, inverse)
    trusted = residual.square().mean((-2, -1), keepdim=True) * weight.shape[-1] < CONTRACTING**2
    return torch.where(trusted, torch.baddbmm(inverse, inverse, residual), inverse)


def secant(weight: Tensor, inverse: Tensor, probes: Tensor) -> Tensor:
    """R + (N − R S)(SᵀS)⁻¹Sᵀ, S = W N: the matrix nearest to R that undoes W on the probes. O(p n²).

    Args:
        weight: W, with shape ``(m, n, n)``.
        inverse: R, with the same shape.
        probes: N, with shape ``(m, n, p)``, p ≤ n.

    Returns:
        The new R, with R S = N.

    References:
        The least-change update of Broyden (1965), in a block of directions.

    Example:
        >>> secant(torch.tensor([[[2.0]]]), torch.tensor([[[0.45]]]), torch.ones(1, 1, 1))
        tensor([[[0.5000]]])
    """
    seen = weight @ probes
    gram = seen.mT @ seen
    # Rounding must not make the Gram matrix of nearly dependent probes indefinite.
    jitter = 10 * torch.finfo(gram.dtype).eps * gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    gram.diagonal(dim1=-2, dim2=-1).add_(jitter[:, None])
    factor, _ = torch.linalg.cholesky_ex(gram)
    return torch.baddbmm(inverse, probes - inverse @ seen, torch.cholesky_solve(seen.mT, factor))


def exact(weight: Tensor) -> Tensor:
    """W⁻¹ by factorisation, O(n³); not finite where W is singular.

    Args:
        weight: W, with shape ``(m, n, n)``.

    Example:
        >>> exact(torch.tensor([[[2.0]]]))
        tensor([[[0.5000]]])
    """
    inverse: Tensor = torch.linalg.inv_ex(weight).inverse
    return inverse


def _residual(weight: Tensor, inverse: Tensor) -> Tensor:
    """I − W R."""
    residual = -(weight @ inverse)
    residual.diagonal(dim1=-2, dim2=-1).add_(1)
    return residual


@dataclass(frozen=True)
class Residual:
    """‖I − A(w) A(r)‖, by its size and by its largest direction.

    Attributes:
        size: ‖I − A(w) A(r)‖_F / √D, estimated.
        growth: ‖E² ν‖ / ‖E ν‖ for E = I − A(w) A(r): near the spectral radius of E where one direction dominates it.
    """

    size: float
    growth: float

    @property
    def contracts(self) -> bool:
        """Whether the powers of E seem to vanish, so that iterations on it converge."""
        return self.size < CONTRACTING and self.growth < CONTRACTING

    @property
    def finite(self) -> bool:
        """Whether both numbers are finite."""
        return math.isfinite(self.size) and math.isfinite(self.growth)


def inverse_residual(
    weight: Tensor, inverse_weight: Tensor, operators: Operators, event_shape: tuple[int, ...], probes: int
) -> Residual:
    """‖I − A(w) A(r)‖_F/√D = √ E ‖ν − A(w) A(r) ν‖²/D, from a few Rademacher ν, and how fast its powers grow.

    Args:
        weight: w.
        inverse_weight: r.
        operators: A of w and A of r.
        event_shape: the shape of one event.
        probes: the number of ν.

    Returns:
        The estimate; reading it waits for the device.

    Example:
        >>> from snflow.numerics.operators.dense import DenseOperator, TransposedDenseOperator
        >>> dense = Operators(DenseOperator(), TransposedDenseOperator())
        >>> round(inverse_residual(2 * torch.eye(3), 0.45 * torch.eye(3), dense, (3,), 2).size, 6)
        0.1
    """

    def error(v: Tensor) -> Tensor:
        return v - operators.forward.product(weight, operators.inverse.product(inverse_weight, v))

    once = error(rademacher(probes, event_shape, weight))
    twice = error(once)
    squares = torch.stack([once.square().mean(), twice.square().mean()])
    first, second = squares.tolist()
    return Residual(math.sqrt(first), math.sqrt(second / first) if first > 0 else 0.0)


OVERSAMPLING = 8
"""Equations for each unknown: with as many equations as unknowns the fit would follow the noise of the probes."""


def least_squares_kernel(
    weight: Tensor, inverse_weight: Tensor, operators: Operators, event_shape: tuple[int, ...]
) -> Tensor:
    """argmin_r E_ν ‖r ⋆ w ⋆ ν − ν‖²: the inverse kernel for white noise, zero padding and all.

    The normal equations have C/groups · k² unknowns for each output channel. The expectation is a mean over random
    images, eight equations for each unknown; what the noise of so few leaves open, the present kernel decides.

    Args:
        weight: w, with shape ``(C, C/groups, k, k)``.
        inverse_weight: the present r, whose size is kept.
        operators: the convolutions of w and r.
        event_shape: ``(C, height, width)``.

    Returns:
        The new r.

    Raises:
        TypeError: the inverse operator is no convolution.

    Example:
        >>> kernel = torch.zeros(1, 1, 3, 3)
        >>> kernel[0, 0, 1, 1] = 2.0
        >>> convs = Operators(ConvOperator(3), ConvOperator(3))
        >>> least_squares_kernel(kernel, kernel / 5, convs, (1, 8, 8))[0, 0, 1, 1]
        tensor(0.5000)
    """
    conv = _as_conv(operators.inverse)
    _, height, width = event_shape
    unknowns = inverse_weight[0].numel()
    images = max(1, math.ceil(OVERSAMPLING * unknowns / (height * width)))
    noise = rademacher(images, event_shape, weight)
    patches = functional.unfold(
        operators.forward.product(weight, noise), conv.kernel_size, dilation=conv.dilation, padding=conv.padding
    )
    # One system a group: rows are the pixels of all images, columns the unknowns.
    rows = patches.unflatten(1, (conv.groups, unknowns)).permute(1, 0, 3, 2).flatten(1, 2)
    target = noise.flatten(2).unflatten(1, (conv.groups, -1)).permute(1, 0, 3, 2).flatten(1, 2)
    present: Tensor = inverse_weight.flatten(1).unflatten(0, (conv.groups, -1)).mT
    gram = rows.mT @ rows
    size = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    gram.diagonal(dim1=-2, dim2=-1).add_(10 * unknowns * torch.finfo(gram.dtype).eps * size[:, None])
    factor, _ = torch.linalg.cholesky_ex(gram)
    change = torch.cholesky_solve(rows.mT @ (target - rows @ present), factor)
    return (present + change).mT.reshape(inverse_weight.shape)


def _as_conv(operator: Operator) -> ConvOperator:
    if not isinstance(operator, ConvOperator):
        raise TypeError(f"expected a ConvOperator, got {type(operator).__name__}")
    return operator


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
