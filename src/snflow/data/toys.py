"""Points in the plane: small densities whose fit can be judged by eye.

The pictures are those that the literature on flows draws (Johnson et al. 2016 for the pinwheel; Grathwohl et al. 2019,
figure 2, for most others); all lie within about [−4, 4]².
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from snflow.data.dataset import Dataset, ToyOptions, ToyShape
from snflow.errors import ConfigError, nearest


def load_toy(options: ToyOptions) -> Dataset:
    """Draw the points of a picture, the same ones for the same seed.

    Args:
        options: the picture, how many points, the seed.

    Returns:
        Points with shape ``(N, 2)``, float32.

    Raises:
        ConfigError: there is no such picture.

    Example:
        >>> load_toy(ToyOptions(shape="pinwheel", train=50)).train.shape
        torch.Size([50, 2])
    """
    if options.shape not in _SHAPES:
        known = ", ".join(_SHAPES)
        raise ConfigError(
            "data.shape", expected=f"one of {known}", got=repr(options.shape), fix=nearest(options.shape, _SHAPES)
        )
    sizes = [options.train, options.validation, options.test]
    points = _SHAPES[options.shape](sum(sizes), Generator().manual_seed(options.seed))
    return Dataset(options.shape, *points.to(torch.float32).split(sizes))


def _two_moons(n: int, generator: Generator) -> Tensor:
    """Two interleaved half circles of radius 2, blurred by 0.2."""
    lower = _integers(2, n, generator)
    angle = math.pi * (_uniform(n, generator) + lower)
    centre = torch.stack([2 * lower - 1, 1 - 2 * lower], 1) * torch.tensor([1.0, -0.5], dtype=torch.float64)
    return 2 * _polar(1, angle) + centre + 0.2 * _normal(n, generator)


def _rings(n: int, generator: Generator) -> Tensor:
    """Four concentric circles of radius 0.75 to 3, blurred by 0.08."""
    radius = 0.75 * (1 + _integers(4, n, generator))
    return _polar(radius, 2 * math.pi * _uniform(n, generator)) + 0.08 * _normal(n, generator)


def _pinwheel(n: int, generator: Generator) -> Tensor:
    """Five normal arms, each turned further the further out (Johnson et al. 2016, appendix)."""
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
    """Eight normals of deviation 0.25 on a circle of radius 2.8."""
    return _polar(2.8, math.pi / 4 * _integers(8, n, generator)) + 0.25 * _normal(n, generator)


def _two_spirals(n: int, generator: Generator) -> Tensor:
    """Two arms of 1.5 turns, one the mirror image of the other through the origin, blurred by 0.1."""
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


# In float64 whatever torch's default is, so that the points do not depend on it.
def _uniform(n: int, generator: Generator) -> Tensor:
    return torch.rand(n, dtype=torch.float64, generator=generator)


def _normal(n: int, generator: Generator) -> Tensor:
    return torch.randn(n, 2, dtype=torch.float64, generator=generator)


def _integers(count: int, n: int, generator: Generator) -> Tensor:
    return torch.randint(count, (n,), generator=generator).to(torch.float64)
