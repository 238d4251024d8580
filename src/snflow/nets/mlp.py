"""Multilayer perceptrons: plain, residual and periodic."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor, nn

from snflow.errors import CheckedConstructor, check_choice, check_context_vector, check_count

Activation = Literal["relu", "silu", "elu", "tanh"]
"""The nonlinearity: ReLU fits sharp edges fastest; the others give smooth densities."""

LipschitzActivation = Literal["lipswish", "clipswish"]
"""Activations with Lipschitz constant one: x σ(βx) / 1.1, or its values at x and −x, concatenated and normalized."""


_MODULES: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "elu": nn.ELU, "tanh": nn.Tanh}


def activation_module(where: str, name: Activation) -> nn.Module:
    """Return the activation with the given name.

    Args:
        where: the name of the caller, for error messages.
        name: one of ``Activation``.

    Raises:
        ConfigError: an unknown name.

    Example:
        >>> activation_module("MLP", "silu")
        SiLU()
    """
    check_choice(where, "activation", name, Activation)
    return _MODULES[name]()


def clamped(x: Tensor, bound: float | None) -> Tensor:
    """x limited to [−bound, bound], by default by the fourth root of the largest number of its dtype.

    The outputs of a network grow with its input, and scaling factors with the exponential of its outputs. Of a distant
    point a network should not see the distance. The default, 4e9 in float32, only keeps squares of outputs finite.

    Example:
        >>> clamped(torch.tensor([1.0, 1e30]), 10.0).tolist()
        [1.0, 10.0]
    """
    bound = torch.finfo(x.dtype).max ** 0.25 if bound is None else bound
    return x.clamp(-bound, bound)


@final
class MLP(nn.Module, metaclass=CheckedConstructor):
    """h₀ = W₀ (x, context), hᵢ = Wᵢ φ(hᵢ₋₁), y = V φ(hₙ).

    Args:
        features: D of x.
        outputs: O of y.
        width: units of each hidden layer.
        depth: n + 1, the number of hidden layers.
        context_shape: C, the size of a context vector that is concatenated to x; ``None`` for no context.
        residual: whether the hidden layers after the first are residual.
        activation: φ, ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.
        input_bound: bound to which x is clamped, on both sides, so that the outputs do not grow without bound at
            distant points; ``None`` for no bound.

    Shapes:
        x: ``(batch, D)``; context: ``(batch, C)``; y: ``(batch, O)``.

    Raises:
        ConfigError: a count below one, or an unknown activation.

    Example:
        >>> import torch
        >>> MLP(3, 4)(torch.randn(2, 3)).shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        *,
        width: int = 64,
        depth: int = 2,
        context_shape: int | tuple[int, ...] | None = None,
        residual: bool = False,
        activation: Activation = "relu",
        input_bound: float | None = None,
    ) -> None:
        super().__init__()
        for option, count in (("features", features), ("outputs", outputs), ("width", width), ("depth", depth)):
            check_count("MLP", option, count)
        self.first = nn.Linear(features + check_context_vector("MLP", context_shape), width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.last = nn.Linear(width, outputs)
        self.activation = activation_module("MLP", activation)
        self.residual, self.input_bound = residual, input_bound

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """y = net(x, context)."""
        x = clamped(x, self.input_bound)
        h = self.first(x if context is None else torch.cat([x, context], 1))
        for layer in self.hidden:
            further = layer(self.activation(h))
            h = h + further if self.residual else further
        y: Tensor = self.last(self.activation(h))
        return y


@final
class ResidualMLP(nn.Module, metaclass=CheckedConstructor):
    """h₀ = W (x, context), hᵢ = hᵢ₋₁ + Bᵢ SiLU(Aᵢ SiLU(hᵢ₋₁)), y = x + V hₙ: smooth, initially close to the identity.

    Args:
        features: D of x and y.
        width: units of each hidden layer.
        blocks: number of residual blocks.
        context_shape: C, the size of a context vector that is concatenated to x; ``None`` for no context.

    Shapes:
        x, y: ``(batch, *event)`` with D elements in each event; context: ``(batch, C)``.

    Raises:
        ConfigError: a count below one.

    References:
        He et al. (2016), Identity mappings in deep residual networks.

    Example:
        >>> import torch
        >>> net, x = ResidualMLP(3, width=8), torch.randn(4, 3)
        >>> bool((net(x) - x).abs().max() < 0.1)
        True
    """

    def __init__(
        self,
        features: int,
        *,
        width: int = 256,
        blocks: int = 2,
        context_shape: int | tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        for option, count in (("features", features), ("width", width), ("blocks", blocks)):
            check_count("ResidualMLP", option, count)
        self.first = nn.Linear(features + check_context_vector("ResidualMLP", context_shape), width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(blocks)
        )
        self.last = nn.Linear(width, features)
        with torch.no_grad():
            for layer in [block[3] for block in self.blocks] + [self.last]:  # type: ignore[index]
                layer.weight.mul_(0.1)
                layer.bias.zero_()

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """y = x + net(x, context)."""
        flat = x.flatten(1)
        h = self.first(flat if context is None else torch.cat([flat, context], 1))
        for block in self.blocks:
            h = h + block(h)
        y: Tensor = x + self.last(h).view_as(x)
        return y


@final
class PeriodicMLP(nn.Module, metaclass=CheckedConstructor):
    """y = MLP(cos x, sin x, context): a network that is periodic in each angle.

    Args:
        features: D of x, angles in radians.
        outputs: O of y.
        width: units of each hidden layer.
        depth: number of hidden layers.
        context_shape: C, the size of a context vector that is concatenated to x; ``None`` for no context.
        activation: ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.

    Shapes:
        x: ``(batch, D)``; context: ``(batch, C)``; y: ``(batch, O)``.

    Raises:
        ConfigError: a count below one, or an unknown activation.

    Example:
        >>> import torch
        >>> PeriodicMLP(2, 3)(torch.randn(4, 2)).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        *,
        width: int = 64,
        depth: int = 2,
        context_shape: int | tuple[int, ...] | None = None,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.net = MLP(
            2 * features, outputs, width=width, depth=depth, context_shape=context_shape, activation=activation
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """y = net(x, context)."""
        y: Tensor = self.net(torch.cat([x.cos(), x.sin()], 1), context)
        return y
