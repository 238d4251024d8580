"""First weights of free linear layers, as in the paper: near the identity, or a random rotation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Initialization = Literal["identity", "orthogonal"]


def initial_matrix(features: int, initialization: Initialization = "identity") -> Tensor:
    """W = I + ε with Xavier-normal ε of gain 0.01, or a random orthogonal W.

    Args:
        features: the number of rows and columns.
        initialization: ``"identity"`` or ``"orthogonal"``.

    Returns:
        The matrix, with shape ``(features, features)``.

    References:
        Keller et al. (2021), Self Normalizing Flows, appendix A.5.

    Example:
        >>> initial_matrix(3).shape
        torch.Size([3, 3])
    """
    weight = torch.empty(features, features)
    if initialization == "orthogonal":
        return nn.init.orthogonal_(weight)
    return torch.eye(features) + nn.init.xavier_normal_(weight, gain=0.01)


def initial_kernel(channels: int, kernel_size: int, groups: int = 1) -> Tensor:
    """w = δ + ε with a Dirac kernel δ and Xavier-normal ε of gain 0.01; a random orthogonal matrix for 1×1.

    Args:
        channels: the number of channels in and out.
        kernel_size: k, odd.
        groups: number of groups of channels that do not see each other.

    Returns:
        The kernel, with shape ``(channels, channels / groups, k, k)``.

    References:
        Keller et al. (2021), Self Normalizing Flows, appendix A.5; Kingma & Dhariwal (2018), Glow, for 1×1.

    Example:
        >>> initial_kernel(2, 3).shape
        torch.Size([2, 2, 3, 3])
    """
    weight = torch.empty(channels, channels // groups, kernel_size, kernel_size)
    if kernel_size == 1:
        for block in weight.chunk(groups):
            nn.init.orthogonal_(block.flatten(1))
        return weight
    return nn.init.dirac_(torch.empty_like(weight), groups) + nn.init.xavier_normal_(weight, gain=0.01)
