"""A network with a bounded Lipschitz constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from snflow.arguments import check_count
from snflow.errors import ConfigError
from snflow.nets.lipschitz.activation import lipschitz_activation
from snflow.nets.lipschitz.spectral import spectral_layer
from snflow.nets.options import LipschitzActivation


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
        context_features: size of a context that adds a bias to the first layer; 0 for none.
        activation: φ, ``"lipswish"`` or ``"clipswish"``.

    Shapes:
        x, g(x): ``(batch, *event_shape)``; context: ``(batch, context_features)``.

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
        width: int = 64,
        depth: int = 2,
        kernel_sizes: Sequence[int] | None = None,
        lipschitz: float = 0.97,
        context_features: int = 0,
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
        self.told = nn.Linear(context_features, width, bias=False) if context_features else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """g(x, context)."""
        h: Tensor = self.layers[0](x)
        if self.told is not None:
            told: Tensor = self.told(context)
            h = h + told.view(*told.shape, *(1 for _ in h.shape[2:]))
        for activation, layer in zip(self.activations, self.layers[1:], strict=True):
            h = layer(activation(h))
        return h
