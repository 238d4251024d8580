"""A masked network, whose i-th outputs depend only on the inputs before the i-th."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snflow.errors import CheckedConstructor, check_context_vector, check_count
from snflow.nets.mlp import Activation, activation_module, clamped
from snflow.numerics.devices import structure_device

Layer = Callable[[Tensor], Tensor]


@final
class MaskedMLP(nn.Module, metaclass=CheckedConstructor):
    """yᵢ = netᵢ(x₁ … xᵢ₋₁, context): one network with masked weights, so that its Jacobians are strictly triangular.

    A hidden unit of degree m < D is connected to the first m inputs and to hidden units of degree at most m; the
    outputs for input i (from 0) are connected to units of degree at most i. Units are ordered by degree, so that
    :meth:`steps` can compute the outputs for one input after another at the total cost of a single pass.

    Args:
        features: D of x.
        outputs: P, the number of outputs for each input.
        width: number of units of each hidden layer; raised to D if it is smaller.
        depth: number of hidden layers.
        context_shape: C, the size of a context vector on which all units depend; ``None`` for no context.
        residual: whether the hidden layers after the first are residual.
        activation: ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.
        input_bound: bound to which x is clamped, on both sides, so that the outputs do not grow without bound at
            distant points; ``None`` for no bound.
        zero_start: whether the outputs are initially zero.

    Shapes:
        x: ``(batch, D)``; context: ``(batch, C)``; y: ``(batch, P, D)``.

    Raises:
        ConfigError: a count below one, a context that is not a vector, or an unknown activation.

    References:
        Germain et al. (2015), MADE: masked autoencoder for distribution estimation; Papamakarios et al. (2017).

    Example:
        >>> import torch
        >>> net = MaskedMLP(3, 2)
        >>> net(torch.randn(5, 3)).shape
        torch.Size([5, 2, 3])
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
        zero_start: bool = False,
    ) -> None:
        super().__init__()
        for option, count in (("features", features), ("outputs", outputs), ("width", width), ("depth", depth)):
            check_count("MaskedMLP", option, count)
        self.activation = activation_module("MaskedMLP", activation)
        context_size = check_context_vector("MaskedMLP", context_shape)
        width = max(width, features)
        self.features, self.outputs, self.residual = features, outputs, residual
        self.input_bound = input_bound
        # without a context, a unit without inputs is constant and redundant with the bias
        lowest = 0 if context_size or features == 1 else 1
        device = structure_device()
        degrees = lowest + torch.arange(width, device=device) * (features - lowest) // width
        inputs = torch.arange(features, device=device)
        self.bounds: tuple[int, ...] = tuple(int((degrees <= m).sum()) for m in range(-1, features))
        """Entry m + 1: the number of units of a hidden layer with a degree of at most m."""
        self.first = _Masked(degrees[:, None] > inputs)
        self.hidden = nn.ModuleList(_Masked(degrees[:, None] >= degrees) for _ in range(depth - 1))
        self.last = _Masked((inputs[:, None] >= degrees).repeat_interleave(outputs, 0))
        self.context = nn.Linear(context_size, width, bias=False) if context_size else None
        if zero_start:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """y with shape ``(batch, P, D)``."""
        return self._by_input(self._run(self._bounded(x), list(self._layers()), self._of_context(context)))

    @torch.no_grad()
    def frozen(self, context: Tensor | None = None) -> Layer:
        """:meth:`forward` for a fixed context, without gradients; the weights are masked only once for many calls."""
        of_context = self._of_context(context)
        layers: list[Layer] = [partial(F.linear, weight=layer.masked, bias=layer.bias) for layer in self._layers()]

        @torch.no_grad()
        def run(x: Tensor) -> Tensor:
            return self._by_input(self._run(self._bounded(x), layers, of_context))

        return run

    @property
    def multiplications(self) -> int:
        """The number of multiplications in one pass of one row, including those with masked weights."""
        return sum(layer.weight.numel() for layer in self._layers())

    def steps(self, context: Tensor | None = None) -> MaskedSteps:
        """The outputs for one input after another, with gradients: see :class:`MaskedSteps`."""
        return MaskedSteps(self, context)

    def walk(self, like: Tensor, context: Tensor | None = None) -> MaskedWalk:
        """The outputs for one input after another, faster but without gradients: see :class:`MaskedWalk`."""
        return MaskedWalk(self, like, context)

    def _layers(self) -> tuple[_Masked, ...]:
        return (self.first, *self.hidden, self.last)

    def _of_context(self, context: Tensor | None) -> Tensor | None:
        """The term that the context adds to the first hidden layer, ``(batch, width)``."""
        if self.context is None:
            return None
        shift: Tensor = self.context(context)
        return shift

    def _bounded(self, x: Tensor) -> Tensor:
        return clamped(x, self.input_bound)

    def _by_input(self, y: Tensor) -> Tensor:
        by_input: Tensor = y.unflatten(1, (self.features, self.outputs)).transpose(1, 2)
        return by_input

    def _run(
        self,
        x: Tensor,
        layers: Sequence[Layer],
        of_context: Tensor | None,
        store: Callable[[int, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The computation of the network, for all units or for those of one degree.

        Args:
            x: the input of the first layer.
            layers: the linear maps of the first, the hidden and the last layers.
            of_context: the term that is added to the first layer.
            store: maps the index of a hidden layer and its new units to the input of the next layer.
        """
        h = layers[0](x)
        if of_context is not None:
            h = h + of_context
        below = self.activation(h) if store is None else store(0, self.activation(h))
        for number, layer in enumerate(layers[1:-1], 1):
            h = h + layer(below) if self.residual else layer(below)
            below = self.activation(h) if store is None else store(number, self.activation(h))
        return layers[-1](below)


@final
class MaskedSteps:
    """yᵢ of a :class:`MaskedMLP` for i = 0, 1, … under autograd, from the inputs before each.

    Args:
        net: the network.
        context: with shape ``(batch, C)``.
    """

    def __init__(self, net: MaskedMLP, context: Tensor | None = None) -> None:
        self._net, self._of_context = net, net._of_context(context)
        self._units: list[Tensor | None] = [None] * (len(net.hidden) + 1)

    def outputs(self, index: int, x: Tensor) -> Tensor:
        """The outputs for input ``index``, ``(batch, P)``; call it for 0, 1, …, each time with one more input.

        Args:
            index: the input, from 0.
            x: the inputs before it, with shape ``(batch, index)``.
        """
        net = self._net
        low, high = net.bounds[index], net.bounds[index + 1]
        first, *hidden, last = net._layers()
        new, known = slice(low, high), slice(0, high)
        layers: list[Layer] = [
            partial(first.part, new, slice(0, index)),
            *(partial(layer.part, new, known) for layer in hidden),
            partial(last.part, slice(index * net.outputs, (index + 1) * net.outputs), known),
        ]
        of_context = None if self._of_context is None else self._of_context[:, new]
        return net._run(net._bounded(x), layers, of_context, self._store)

    def _store(self, number: int, new: Tensor) -> Tensor:
        known = self._units[number]
        units = new if known is None else torch.cat([known, new], 1)
        self._units[number] = units
        return units


@final
class MaskedWalk:
    """yᵢ of a :class:`MaskedMLP` for i = 0, 1, …: in place and without gradients.

    The masked weights, their slices and the memory for the units are prepared once; units not yet computed are zero.

    Args:
        net: the network.
        like: a tensor with the shape ``(batch, D)``, the dtype and the device of the inputs.
        context: with shape ``(batch, C)``.
    """

    @torch.no_grad()
    def __init__(self, net: MaskedMLP, like: Tensor, context: Tensor | None = None) -> None:
        layers = [net.first, *net.hidden]
        sizes = [high - low for low, high in itertools.pairwise(net.bounds)]
        left = len(net.first.bias) - sum(sizes)  # units not connected to any output
        self._net = net
        self._inputs = like.new_zeros(like.shape[0], net.features)
        self._columns = self._inputs.split(1, 1)
        self._units = [like.new_zeros(like.shape[0], len(net.first.bias)) for _ in layers]
        self._places = [units.split([*sizes, left], 1) for units in self._units]
        weights = [layer.masked.mT.split([*sizes, left], 1) for layer in layers]
        biases = [layer.bias.split([*sizes, left]) for layer in layers]
        weights.append(net.last.masked.mT.split(net.outputs, 1))
        biases.append(net.last.bias.split(net.outputs))
        self._layers = [
            [_product(bias[index], weight[index]) for weight, bias in zip(weights, biases, strict=True)]
            for index in range(net.features)
        ]
        of_context = net._of_context(context)
        self._of_context = None if of_context is None else of_context.split([*sizes, left], 1)
        self._sizes = sizes

    @torch.no_grad()
    def outputs(self, index: int) -> Tensor:
        """The outputs for input ``index``, ``(batch, P)``; call it for 0, 1, …, with :meth:`put` after each call."""
        layers = self._layers[index]
        if not self._sizes[index]:  # no new units
            return layers[-1](self._units[-1])
        of_context = None if self._of_context is None else self._of_context[index]

        def store(number: int, new: Tensor) -> Tensor:
            self._places[number][index].copy_(new)
            return self._units[number]

        return self._net._run(self._inputs, layers, of_context, store)

    @torch.no_grad()
    def put(self, index: int, x: Tensor) -> None:
        """Set input ``index``, with shape ``(batch, 1)``."""
        self._columns[index].copy_(self._net._bounded(x))


def _product(bias: Tensor, weight: Tensor) -> Layer:
    return lambda below: torch.addmm(bias, below, weight)


class _Masked(nn.Linear):
    """y = (W ⊙ M) x + b, initialized with the variance of a dense layer with as many inputs as are not masked."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)
        with torch.no_grad():
            fan_in = self.mask.sum(1, keepdim=True).clamp_min(1)
            self.weight.mul_((mask.shape[1] / fan_in).sqrt()).mul_(self.mask)

    def forward(self, input: Tensor) -> Tensor:
        """y = (W ⊙ M) x + b."""
        return F.linear(input, self.masked, self.bias)

    @property
    def masked(self) -> Tensor:
        """W ⊙ M."""
        return self.weight * self.mask

    def part(self, rows: slice, columns: slice, x: Tensor) -> Tensor:
        """Selected rows of y, from the selected columns of x, the only ones on which they depend."""
        return F.linear(x, self.weight[rows, columns] * self.mask[rows, columns], self.bias[rows])
