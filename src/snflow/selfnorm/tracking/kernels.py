"""The kernel r whose convolution comes nearest to the inverse of another one."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from snflow.numerics.operators import ConvOperator, Operator
from snflow.numerics.probes import rademacher
from snflow.selfnorm.gradient import Operators

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
