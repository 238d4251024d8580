"""Networks with a bound on the Lipschitz constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snflow.errors import ConfigError, check_choice, check_context_vector, check_count
from snflow.nets.mlp import LipschitzActivation
from snflow.nets.spectral_norm import spectral_layer
from snflow.numerics.monotone import SOFTPLUS_ONE

_SWISH_SLOPE = 1.1
"""No slope of x σ(βx) is larger (1.0998…), whatever β is."""
_PAIR_SLOPE = 1.004
"""Of the pair (LipSwish(x), LipSwish(−x)): √(1.0998² + 0.0998²) / 1.1."""


@final
class LipSwish(nn.Module):
    """y = x σ(βx) / 1.1, β > 0 learned: slopes between −0.1 and 1, and second derivatives that do not vanish.

    A residual flow's loss holds first derivatives of its networks, so that its gradient holds second ones: a ReLU's are
    zero, those of saturating activations are small where their slope is near one.

    References:
        Chen, Behrmann, Duvenaud, Jacobsen (2019), Residual flows for invertible generative modeling, section 3.3.

    Example:
        >>> import torch
        >>> bool(LipSwish()(torch.tensor(100.0)) < 100 / 1.09)
        True
    """

    factor = 1
    """How many numbers come out for one."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """y, with the shape of x."""
        sharpness = F.softplus(self.sharpness)
        return F.silu(sharpness * x) * (1 / (_SWISH_SLOPE * sharpness))


@final
class CLipSwish(nn.Module):
    """y = (LipSwish(x), LipSwish(−x)) / 1.004: twice the channels, and a slope that stays near one on both sides.

    References:
        Perugachi-Diaz, Tomczak, Bhulai (2021), Invertible DenseNets with concatenated LipSwish, section 3.3.

    Example:
        >>> import torch
        >>> CLipSwish()(torch.randn(3, 5)).shape
        torch.Size([3, 10])
    """

    factor = 2
    """How many numbers come out for one."""

    def __init__(self) -> None:
        super().__init__()
        self.swish = LipSwish()

    def forward(self, x: Tensor) -> Tensor:
        """y, the channels (dimension 1) doubled."""
        return torch.cat([self.swish(x), self.swish(-x)], 1) / _PAIR_SLOPE


def lipschitz_activation(where: str, name: LipschitzActivation) -> LipSwish | CLipSwish:
    """Make the activation of this name.

    Args:
        where: the caller, for the error.
        name: ``"lipswish"`` or ``"clipswish"``.

    Raises:
        ConfigError: there is none of that name.

    Example:
        >>> lipschitz_activation("net", "clipswish").factor
        2
    """
    check_choice(where, "activation", name, LipschitzActivation)
    return LipSwish() if name == "lipswish" else CLipSwish()


@final
class LipschitzNet(nn.Module):
    """g(x) = Wₙ φ(… φ(W₁ x + A c)), each ‖Wᵢ‖ ≤ L^(1/n): ‖g(x) − g(y)‖ ≤ L ‖x − y‖ for every context c.

    Args:
        event_shape: ``(D,)`` of vectors or ``(channels, height, width)`` of images.
        width: features, or channels, inside.
        depth: number n − 1 of hidden layers.
        kernel_sizes: for images, the side of each of the n kernels, odd; by default 3 for the first and the last and 1
            between them.
        lipschitz: L, in (0, 1).
        context_shape: C, the size of a context vector that adds a bias to the first layer; ``None`` for no context.
        activation: φ, ``"lipswish"`` or ``"clipswish"``.

    Shapes:
        x, g(x): ``(batch, *event_shape)``; context: ``(batch, C)``.

    Raises:
        ConfigError: a count below one, a bound out of its range, or as many kernels as there are no layers.

    References:
        Behrmann et al. (2019), Invertible residual networks; Chen et al. (2019), Residual flows, appendix E.

    Example:
        >>> import torch
        >>> net = LipschitzNet((2,), lipschitz=0.9).eval()
        >>> x, y = torch.randn(2, 100, 2)
        >>> bool(((net(x) - net(y)).norm(dim=1) <= 0.9 * (x - y).norm(dim=1)).all())
        True
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        width: int = 64,
        depth: int = 2,
        kernel_sizes: Sequence[int] | None = None,
        lipschitz: float = 0.97,
        context_shape: int | tuple[int, ...] | None = None,
        activation: LipschitzActivation = "lipswish",
    ) -> None:
        super().__init__()
        for option, count in (("width", width), ("depth", depth)):
            check_count("LipschitzNet", option, count)
        if not 0 < lipschitz < 1:
            raise ConfigError("LipschitzNet", expected="0 < lipschitz < 1", got=str(lipschitz), fix="use 0.97")
        kernels = [3, *[1] * (depth - 1), 3] if kernel_sizes is None else list(kernel_sizes)
        if len(kernels) != depth + 1:
            raise ConfigError(
                "LipschitzNet",
                expected=f"{depth + 1} kernels, one a layer",
                got=str(kernels),
                fix="give a kernel for each hidden layer and for the last",
            )
        told = check_context_vector("LipschitzNet", context_shape)
        self.lipschitz = lipschitz
        bound = lipschitz ** (1 / (depth + 1))
        inner = event_shape[1:]
        self.activations = nn.ModuleList(lipschitz_activation("LipschitzNet", activation) for _ in range(depth))
        widths = [event_shape[0], *[width * int(a.factor) for a in self.activations]]  # type: ignore[arg-type]
        outputs = [width] * depth + [event_shape[0]]
        self.layers = nn.ModuleList(
            spectral_layer((size, *inner), out, kernel, bound)
            for size, out, kernel in zip(widths, outputs, kernels, strict=True)
        )
        self.told = nn.Linear(told, width, bias=False) if told else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """g(x, context)."""
        h: Tensor = self.layers[0](x)
        if self.told is not None:
            told: Tensor = self.told(context)
            h = h + told.view(*told.shape, *(1 for _ in h.shape[2:]))
        for activation, layer in zip(self.activations, self.layers[1:], strict=True):
            h = layer(activation(h))
        return h


@final
class LipschitzDenseNet(nn.Module):
    """hᵢ₊₁ = (η̂₁ hᵢ, η̂₂ φ(Wᵢ hᵢ)), η̂₁² + η̂₂² = 1, g(x) = W hₙ: what was found is kept and added to, ‖J_g‖ ≤ L.

    ‖Wᵢ‖ ≤ 1 and both parts are weighed so that a concatenation does not stretch; how much of the old and of the new is
    learned, one pair η a layer.

    Args:
        event_shape: ``(D,)`` of vectors or ``(channels, height, width)`` of images.
        growth: features, or channels, that a layer adds (twice as many with ``"clipswish"``).
        depth: number n of layers that add some.
        kernel_size: for images, the side of their kernels, odd; the last layer has a 1×1 kernel.
        lipschitz: L, in (0, 1).
        context_shape: C, the size of a context vector that adds a bias to the first layer; ``None`` for no context.
        activation: φ, ``"clipswish"`` or ``"lipswish"``.

    Shapes:
        x, g(x): ``(batch, *event_shape)``; context: ``(batch, C)``.

    Raises:
        ConfigError: a count below one, or a bound out of its range.

    References:
        Perugachi-Diaz, Tomczak, Bhulai (2021), Invertible DenseNets with concatenated LipSwish, section 3, eq. 6-10.

    Example:
        >>> import torch
        >>> LipschitzDenseNet((3,), growth=8)(torch.randn(4, 3)).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        growth: int = 32,
        depth: int = 3,
        kernel_size: int = 3,
        lipschitz: float = 0.97,
        context_shape: int | tuple[int, ...] | None = None,
        activation: LipschitzActivation = "clipswish",
    ) -> None:
        super().__init__()
        for option, count in (("growth", growth), ("depth", depth)):
            check_count("LipschitzDenseNet", option, count)
        if not 0 < lipschitz < 1:
            raise ConfigError("LipschitzDenseNet", expected="0 < lipschitz < 1", got=str(lipschitz), fix="use 0.97")
        told = check_context_vector("LipschitzDenseNet", context_shape)
        self.lipschitz = lipschitz
        layers, activations = [], []
        channels, inner = event_shape[0], event_shape[1:]
        for _ in range(depth):
            layers.append(spectral_layer((channels, *inner), growth, kernel_size, 1.0))
            activations.append(lipschitz_activation("LipschitzDenseNet", activation))
            channels += growth * activations[-1].factor
        self.layers, self.activations = nn.ModuleList(layers), nn.ModuleList(activations)
        self.last = spectral_layer((channels, *inner), event_shape[0], 1, lipschitz)
        self.shares = nn.Parameter(torch.full((depth, 2), SOFTPLUS_ONE))
        self.told = nn.Linear(told, growth, bias=False) if told else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """g(x, context)."""
        h = x
        shares = F.softplus(self.shares)
        shares = shares / shares.norm(dim=1, keepdim=True)
        for number, (layer, activation) in enumerate(zip(self.layers, self.activations, strict=True)):
            new = layer(h)
            if number == 0 and self.told is not None:
                told: Tensor = self.told(context)
                new = new + told.view(*told.shape, *(1 for _ in new.shape[2:]))
            h = torch.cat([shares[number, 0] * h, shares[number, 1] * activation(new)], 1)
        y: Tensor = self.last(h)
        return y
