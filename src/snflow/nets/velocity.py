"""The velocity network of a continuous flow."""

from __future__ import annotations

import itertools
from typing import final

import torch
from torch import Tensor, nn

from snflow.errors import CheckedConstructor, check_context_vector, check_count, check_event_shape, check_kernel
from snflow.nets.mlp import Activation, activation_module


@final
class VelocityNet(nn.Module, metaclass=CheckedConstructor):
    """hᵢ = φ((Wᵢ hᵢ₋₁ + bᵢ) ⊙ 2σ(Aᵢ s + aᵢ) + Bᵢ s), s = (t, context): layers scaled and shifted by time and context.

    The last layer is initialized to zero, so that a flow starts as the identity. The gains lie between 0 and 2 and are
    initially close to 1. Gates between 0 and 1 would initially be half closed, which attenuates the output of three
    layers by a factor of eight: with such gates, flows in two and four dimensions were a quarter to half a nat worse
    after a short training run.

    Args:
        event_shape: D or ``(D,)`` of vectors, or ``(channels, height, width)`` of images.
        width: number of units, or channels, of the hidden layers.
        depth: number of hidden layers.
        kernel_size: for images, the side length of the kernels, odd.
        context_shape: C, the size of a context vector; ``None`` for no context.
        activation: φ, preferably smooth: ``"tanh"``, ``"silu"`` or ``"elu"``; ``"relu"`` slows down adaptive solvers.

    Shapes:
        x, y: ``(batch, *event_shape)``; t: a scalar; context: ``(batch, C)``.

    Raises:
        ConfigError: a count below one, an even kernel, or an unknown activation.

    References:
        Grathwohl et al. (2019), FFJORD, appendix B.1 (concatsquash layers, with σ in place of 2σ).

    Example:
        >>> import torch
        >>> VelocityNet((3,))(torch.randn(4, 3), torch.tensor(0.5)).abs().sum()
        tensor(0., grad_fn=<SumBackward0>)
    """

    def __init__(
        self,
        event_shape: int | tuple[int, ...],
        *,
        width: int = 64,
        depth: int = 2,
        kernel_size: int = 3,
        context_shape: int | tuple[int, ...] | None = None,
        activation: Activation = "tanh",
    ) -> None:
        super().__init__()
        event_shape = check_event_shape("VelocityNet", event_shape)
        for option, count in (("width", width), ("depth", depth)):
            check_count("VelocityNet", option, count)
        check_kernel("VelocityNet", kernel_size)
        seen = 1 + check_context_vector("VelocityNet", context_shape)  # the time and the context
        sizes = [event_shape[0], *[width] * depth, event_shape[0]]
        pairs = list(itertools.pairwise(sizes))
        if len(event_shape) == 1:
            self.maps = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)
        else:
            self.maps = nn.ModuleList(nn.Conv2d(a, b, kernel_size, padding=kernel_size // 2) for a, b in pairs)
        self.gains = nn.ModuleList(nn.Linear(seen, b) for _, b in pairs)
        self.shifts = nn.ModuleList(nn.Linear(seen, b, bias=False) for _, b in pairs)
        self.activation = activation_module("VelocityNet", activation)
        for last in (*self.maps[-1].parameters(), *self.shifts[-1].parameters()):
            nn.init.zeros_(last)
        for gain in self.gains:
            nn.init.zeros_(gain.get_parameter("bias"))

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity of x at time t."""
        s = t.to(x).reshape(1, 1)
        if context is not None:
            s = torch.cat([s.expand(len(context), 1), context], 1)
        h = x
        for number, (layer, gain, shift) in enumerate(zip(self.maps, self.gains, self.shifts, strict=True)):
            factor, moved = 2 * torch.sigmoid(gain(s)), shift(s)
            if h.dim() == 4:
                factor, moved = factor[..., None, None], moved[..., None, None]
            h = torch.addcmul(moved, layer(h if number == 0 else self.activation(h)), factor)
        return h
