"""Which elements of an event a coupling keeps: masks are data."""

from __future__ import annotations

import torch
from torch import Tensor

from snflow.errors import ConfigError


def alternating(features: int, first: int = 0) -> Tensor:
    """mᵢ = (i + first) even: every second of D features is kept, with shape ``(D,)``.

    Raises:
        ConfigError: fewer than two features.

    Example:
        >>> alternating(4).tolist(), alternating(4, 1).tolist()
        ([True, False, True, False], [False, True, False, True])
    """
    _check_size("alternating", features)
    return (torch.arange(features) + first) % 2 == 0


def halves(features: int, first: int = 0) -> Tensor:
    """mᵢ = i < ⌊D/2⌋, or the other half for ``first=1``: features or channels, with shape ``(D,)``.

    Raises:
        ConfigError: fewer than two features.

    Example:
        >>> halves(5).tolist(), halves(2, 1).tolist()
        ([True, True, False, False, False], [False, True])
    """
    _check_size("halves", features)
    low = torch.arange(features) < features // 2
    return ~low if first % 2 else low


def checkerboard(height: int, width: int, first: int = 0) -> Tensor:
    """mᵢⱼ = (i + j + first) even: pixels, with shape ``(1, height, width)`` (Dinh et al. 2017, figure 3).

    Raises:
        ConfigError: an image of one pixel.

    Example:
        >>> checkerboard(2, 2).tolist()
        [[[True, False], [False, True]]]
    """
    _check_size("checkerboard", height * width)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    return ((rows + columns + first) % 2 == 0)[None]


def _check_size(where: str, count: int) -> None:
    if count < 2:
        raise ConfigError(
            where, expected="two elements or more", got=str(count), fix="a coupling needs one to keep and one to map"
        )
