"""A densely connected network with a bounded Lipschitz constant."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snflow.arguments import check_count
from snflow.errors import ConfigError
from snflow.nets.lipschitz.activation import lipschitz_activation
from snflow.nets.lipschitz.spectral import spectral_layer
from snflow.nets.options import LipschitzActivation


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
        context_features: size of a context that adds a bias to the first layer; 0 for none.
        activation: φ, ``"clipswish"`` or ``"lipswish"``.

    Shapes:
        x, g(x): ``(batch, *event_shape)``; context: ``(batch, context_features)``.

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
        growth: int = 32,
        depth: int = 3,
        kernel_size: int = 3,
        lipschitz: float = 0.97,
        context_features: int = 0,
        activation: LipschitzActivation = "clipswish",
    ) -> None:
        super().__init__()
        for option, count in (("growth", growth), ("depth", depth)):
            check_count("LipschitzDenseNet", option, count)
        if not 0 < lipschitz < 1:
            raise ConfigError("LipschitzDenseNet", expected="0 < lipschitz < 1", got=str(lipschitz), fix="use 0.97")
        self.lipschitz = lipschitz
        layers, activations = [], []
        channels, inner = event_shape[0], event_shape[1:]
        for _ in range(depth):
            layers.append(spectral_layer((channels, *inner), growth, kernel_size, 1.0))
            activations.append(lipschitz_activation("LipschitzDenseNet", activation))
            channels += growth * activations[-1].factor
        self.layers, self.activations = nn.ModuleList(layers), nn.ModuleList(activations)
        self.last = spectral_layer((channels, *inner), event_shape[0], 1, lipschitz)
        self.shares = nn.Parameter(torch.full((depth, 2), 0.5413))  # softplus of it is one
        self.told = nn.Linear(context_features, growth, bias=False) if context_features else None

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
