"""Toy densities in the plane, to judge a fit by eye.

The shapes are common in the literature on flows (Johnson et al. 2016 for the pinwheel; Grathwohl et al. 2019,
figure 2, for most others). All lie within about [−4, 4]².
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor

from snflow.data.dataset import Dataset
from snflow.errors import check_choice, check_count, check_seed, checked_arguments

_MOST_POINTS = 10**7
"""A larger sample shows no more of these densities, and would take tens of gigabytes."""

ToyShape = Literal["two_moons", "rings", "pinwheel", "checkerboard", "eight_gaussians", "two_spirals"]


@checked_arguments("data.toy")
def toy(
    shape: ToyShape = "two_moons", *, train: int = 10_000, validation: int = 2_000, test: int = 2_000, seed: int = 0
) -> Dataset:
    """Points in the plane from a density that is easy to recognize.

    Args:
        shape: Density from which the points are drawn.
        train: Number of training points.
        validation: Number of validation points, which select the best epoch.
        test: Number of test points, used for the reported likelihood.
        seed: Seed of the points.

    Returns:
        Points with shape ``(N, 2)``, float32; equal seeds give equal points.

    Raises:
        ConfigError: the shape is unknown, a number of points is not from 1 to 10⁷, or the seed is negative.

    Example:
        >>> toy("pinwheel", train=50).train.shape
        torch.Size([50, 2])
    """
    check_choice("data.toy", "shape", shape, ToyShape)
    sizes = {"train": train, "validation": validation, "test": test}
    for split, size in sizes.items():
        check_count("data.toy", split, size, most=_MOST_POINTS)
    check_seed("data.toy", "seed", seed)
    points = _SHAPES[shape](sum(sizes.values()), Generator().manual_seed(seed))
    return Dataset(shape, *points.to(torch.float32).split(list(sizes.values())))


def _two_moons(n: int, generator: Generator) -> Tensor:
    """Two interleaved half circles of radius 2, with normal noise of standard deviation 0.2."""
    lower = _integers(2, n, generator)
    angle = math.pi * (_uniform(n, generator) + lower)
    center = torch.stack([2 * lower - 1, 1 - 2 * lower], 1) * torch.tensor([1.0, -0.5], dtype=torch.float64)
    return 2 * _polar(1, angle) + center + 0.2 * _normal(n, generator)


def _rings(n: int, generator: Generator) -> Tensor:
    """Four concentric circles of radius 0.75 to 3, with normal noise of standard deviation 0.08."""
    radius = 0.75 * (1 + _integers(4, n, generator))
    return _polar(radius, 2 * math.pi * _uniform(n, generator)) + 0.08 * _normal(n, generator)


def _pinwheel(n: int, generator: Generator) -> Tensor:
    """Five normal arms, rotated by an angle that grows with the radius (Johnson et al. 2016, appendix)."""
    radial, tangential = (_normal(n, generator) * torch.tensor([0.3, 0.1], dtype=torch.float64)).unbind(1)
    radius = 1 + radial
    turn = 2 * math.pi / 5 * _integers(5, n, generator) + 0.25 * radius.exp()
    cosine, sine = turn.cos(), turn.sin()
    return 2 * torch.stack([radius * cosine - tangential * sine, radius * sine + tangential * cosine], 1)


def _checkerboard(n: int, generator: Generator) -> Tensor:
    """The dark squares of a 4×4 board on [−4, 4]², each uniform."""
    column = _integers(4, n, generator)
    row = 2 * _integers(2, n, generator) + column % 2
    corner = torch.stack([column, row], 1)
    return 2 * (corner + torch.stack([_uniform(n, generator), _uniform(n, generator)], 1)) - 4


def _eight_gaussians(n: int, generator: Generator) -> Tensor:
    """Eight normals of standard deviation 0.25 on a circle of radius 2.8."""
    return _polar(2.8, math.pi / 4 * _integers(8, n, generator)) + 0.25 * _normal(n, generator)


def _two_spirals(n: int, generator: Generator) -> Tensor:
    """Two arms of 1.5 turns, point reflections of each other, with normal noise of standard deviation 0.1."""
    angle = 3 * math.pi * _uniform(n, generator).sqrt()
    sign = 2 * _integers(2, n, generator) - 1
    return _polar(sign * angle / 3, angle) + 0.1 * _normal(n, generator)


_SHAPES: dict[ToyShape, Callable[[int, Generator], Tensor]] = {
    "two_moons": _two_moons,
    "rings": _rings,
    "pinwheel": _pinwheel,
    "checkerboard": _checkerboard,
    "eight_gaussians": _eight_gaussians,
    "two_spirals": _two_spirals,
}


def _polar(radius: Tensor | float, angle: Tensor) -> Tensor:
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


# Always in float64, so that the points do not depend on torch's default dtype.
def _uniform(n: int, generator: Generator) -> Tensor:
    return torch.rand(n, dtype=torch.float64, generator=generator)


def _normal(n: int, generator: Generator) -> Tensor:
    return torch.randn(n, 2, dtype=torch.float64, generator=generator)


def _integers(count: int, n: int, generator: Generator) -> Tensor:
    return torch.randint(count, (n,), generator=generator).to(torch.float64)
