"""Networks with a bounded Lipschitz constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snflow.errors import (
    CheckedConstructor,
    ConfigError,
    check_choice,
    check_context_vector,
    check_count,
    check_event_shape,
)
from snflow.nets.mlp import LipschitzActivation
from snflow.nets.spectral_norm import spectral_layer
from snflow.numerics.monotone import SOFTPLUS_ONE

_SWISH_SLOPE = 1.1
"""The slope of x σ(βx) is at most 1.0998… for every β."""
_PAIR_SLOPE = 1.004
"""The Lipschitz constant of the pair (LipSwish(x), LipSwish(−x)): √(1.0998² + 0.0998²) / 1.1."""


@final
class LipSwish(nn.Module, metaclass=CheckedConstructor):
    """y = x σ(βx) / 1.1, β > 0 learned: slopes between −0.1 and 1, and nonvanishing second derivatives.

    The loss of a residual flow contains first derivatives of its networks, so its gradient contains second derivatives.
    These are zero for a ReLU, and small for saturating activations where their slope is near one.

    References:
        Chen, Behrmann, Duvenaud, Jacobsen (2019), Residual flows for invertible generative modeling, section 3.3.

    Example:
        >>> import torch
        >>> bool(LipSwish()(torch.tensor(100.0)) < 100 / 1.09)
        True
    """

    factor = 1
    """Number of outputs per input."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """y, with the shape of x."""
        sharpness = F.softplus(self.sharpness)
        return F.silu(sharpness * x) * (1 / (_SWISH_SLOPE * sharpness))


@final
class CLipSwish(nn.Module, metaclass=CheckedConstructor):
    """y = (LipSwish(x), LipSwish(−x)) / 1.004: doubles the channels, with slopes near one for both signs of x.

    References:
        Perugachi-Diaz, Tomczak, Bhulai (2021), Invertible DenseNets with concatenated LipSwish, section 3.3.

    Example:
        >>> import torch
        >>> CLipSwish()(torch.randn(3, 5)).shape
        torch.Size([3, 10])
    """

    factor = 2
    """Number of outputs per input."""

    def __init__(self) -> None:
        super().__init__()
        self.swish = LipSwish()

    def forward(self, x: Tensor) -> Tensor:
        """y, with twice as many channels (dimension 1)."""
        return torch.cat([self.swish(x), self.swish(-x)], 1) / _PAIR_SLOPE


def lipschitz_activation(where: str, name: LipschitzActivation) -> LipSwish | CLipSwish:
    """Return the activation with the given name.

    Args:
        where: the name of the caller, for error messages.
        name: ``"lipswish"`` or ``"clipswish"``.

    Raises:
        ConfigError: an unknown name.

    Example:
        >>> lipschitz_activation("net", "clipswish").factor
        2
    """
    check_choice(where, "activation", name, LipschitzActivation)
    return LipSwish() if name == "lipswish" else CLipSwish()


@final
class LipschitzNet(nn.Module, metaclass=CheckedConstructor):
    """g(x) = Wₙ φ(… φ(W₁ x + A c)), each ‖Wᵢ‖ ≤ L^(1/n): ‖g(x) − g(y)‖ ≤ L ‖x − y‖ for every context c.

    Args:
        event_shape: D or ``(D,)`` of vectors, or ``(channels, height, width)`` of images.
        width: number of units, or channels, of the hidden layers.
        depth: n − 1, the number of hidden layers.
        kernel_sizes: for images, the side length of each of the n kernels, odd; by default 3 for the first and the last
            layer, and 1 for the others.
        lipschitz: L, in (0, 1).
        context_shape: C, the size of a context vector that adds a bias to the first layer; ``None`` for no context.
        activation: φ, ``"lipswish"`` or ``"clipswish"``.

    Shapes:
        x, g(x): ``(batch, *event_shape)``; context: ``(batch, C)``.

    Raises:
        ConfigError: a count below one, a bound out of range, or a number of kernels that differs from that of layers.

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
        event_shape: int | tuple[int, ...],
        *,
        width: int = 64,
        depth: int = 2,
        kernel_sizes: Sequence[int] | None = None,
        lipschitz: float = 0.97,
        context_shape: int | tuple[int, ...] | None = None,
        activation: LipschitzActivation = "lipswish",
    ) -> None:
        super().__init__()
        event_shape = check_event_shape("LipschitzNet", event_shape)
        for option, count in (("width", width), ("depth", depth)):
            check_count("LipschitzNet", option, count)
        if not 0 < lipschitz < 1:
            raise ConfigError("LipschitzNet", expected="0 < lipschitz < 1", got=str(lipschitz), fix="use 0.97")
        kernels = [3, *[1] * (depth - 1), 3] if kernel_sizes is None else list(kernel_sizes)
        if len(kernels) != depth + 1:
            raise ConfigError(
                "LipschitzNet",
                expected=f"{depth + 1} kernels, one per layer",
                got=str(kernels),
                fix="give a kernel size for each hidden layer and for the output layer",
            )
        context_size = check_context_vector("LipschitzNet", context_shape)
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
        self.context = nn.Linear(context_size, width, bias=False) if context_size else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """g(x, context)."""
        h: Tensor = self.layers[0](x)
        if self.context is not None:
            bias: Tensor = self.context(context)
            h = h + bias.view(*bias.shape, *(1 for _ in h.shape[2:]))
        for activation, layer in zip(self.activations, self.layers[1:], strict=True):
            h = layer(activation(h))
        return h


@final
class LipschitzDenseNet(nn.Module, metaclass=CheckedConstructor):
    """hᵢ₊₁ = (η̂₁ hᵢ, η̂₂ φ(Wᵢ hᵢ)), η̂₁² + η̂₂² = 1, g(x) = W hₙ: a densely connected network with ‖J_g‖ ≤ L.

    ‖Wᵢ‖ ≤ 1; with the weights η̂, learned for each layer, the Lipschitz constant of each concatenation is at most one.

    Args:
        event_shape: D or ``(D,)`` of vectors, or ``(channels, height, width)`` of images.
        growth: number of units, or channels, that each layer adds (twice as many with ``"clipswish"``).
        depth: n, the number of layers.
        kernel_size: for images, the side length of the kernels, odd; the last layer has a 1×1 kernel.
        lipschitz: L, in (0, 1).
        context_shape: C, the size of a context vector that adds a bias to the first layer; ``None`` for no context.
        activation: φ, ``"clipswish"`` or ``"lipswish"``.

    Shapes:
        x, g(x): ``(batch, *event_shape)``; context: ``(batch, C)``.

    Raises:
        ConfigError: a count below one, or a bound out of range.

    References:
        Perugachi-Diaz, Tomczak, Bhulai (2021), Invertible DenseNets with concatenated LipSwish, section 3, eq. 6-10.

    Example:
        >>> import torch
        >>> LipschitzDenseNet((3,), growth=8)(torch.randn(4, 3)).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        event_shape: int | tuple[int, ...],
        *,
        growth: int = 32,
        depth: int = 3,
        kernel_size: int = 3,
        lipschitz: float = 0.97,
        context_shape: int | tuple[int, ...] | None = None,
        activation: LipschitzActivation = "clipswish",
    ) -> None:
        super().__init__()
        event_shape = check_event_shape("LipschitzDenseNet", event_shape)
        for option, count in (("growth", growth), ("depth", depth)):
            check_count("LipschitzDenseNet", option, count)
        if not 0 < lipschitz < 1:
            raise ConfigError("LipschitzDenseNet", expected="0 < lipschitz < 1", got=str(lipschitz), fix="use 0.97")
        context_size = check_context_vector("LipschitzDenseNet", context_shape)
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
        self.context = nn.Linear(context_size, growth, bias=False) if context_size else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """g(x, context)."""
        h = x
        shares = F.softplus(self.shares)
        shares = shares / shares.norm(dim=1, keepdim=True)
        for number, (layer, activation) in enumerate(zip(self.layers, self.activations, strict=True)):
            new = layer(h)
            if number == 0 and self.context is not None:
                bias: Tensor = self.context(context)
                new = new + bias.view(*bias.shape, *(1 for _ in new.shape[2:]))
            h = torch.cat([shares[number, 0] * h, shares[number, 1] * activation(new)], 1)
        y: Tensor = self.last(h)
        return y
