"""A network whose i-th outputs see the inputs before the i-th alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from snflow.errors import check_context_vector, check_count
from snflow.nets.mlp import Activation, activation_module


@final
class MaskedMLP(nn.Module):
    """yᵢ = netᵢ(x₁ … xᵢ₋₁, context): one network, its weights masked so that Jacobians are strictly triangular.

    A hidden unit of degree m < D sees the first m inputs and hidden units of degree at most m; the outputs of
    input i (from 0) see units of degree at most i. Units lie in the order of their degrees, so that
    :meth:`step` finds the outputs of one input after another for one pass' worth of arithmetic in all.

    Args:
        features: D of x.
        outputs: P, outputs for each input.
        width: features inside, D or more.
        depth: number of hidden layers.
        context_shape: C, the size of a context vector that every unit sees; ``None`` for no context.
        residual: whether each hidden layer behind the first adds to the one before it.
        activation: ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.
        input_bound: the network sees x clamped to ±this, so that points far outside get what the nearest point inside
            gets: a network of ReLUs would tell them ever larger numbers. ``None`` for no bound.
        zero_start: whether the outputs are zero at first, whatever x is.

    Shapes:
        x: ``(batch, D)``; context: ``(batch, C)``; y: ``(batch, P, D)``.

    Raises:
        ConfigError: a count below one, or an unknown activation.

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
        told = check_context_vector("MaskedMLP", context_shape)
        width = max(width, features)
        self.features, self.outputs, self.residual = features, outputs, residual
        self.input_bound = input_bound
        # Without a context units that see no input at all would be constants: a bias is enough for that.
        lowest = 0 if told or features == 1 else 1
        degrees = lowest + torch.arange(width) * (features - lowest) // width
        inputs = torch.arange(features)
        self.bounds: tuple[int, ...] = tuple(int((degrees <= m).sum()) for m in range(-1, features))
        """Position m + 1: how many units of a hidden layer have a degree of at most m."""
        self.first = _Masked(degrees[:, None] > inputs)
        self.hidden = nn.ModuleList(_Masked(degrees[:, None] >= degrees) for _ in range(depth - 1))
        self.last = _Masked((inputs[:, None] >= degrees).repeat_interleave(outputs, 0))
        self.context = nn.Linear(told, width, bias=False) if told else None
        if zero_start:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """y with shape ``(batch, P, D)``."""
        h = self.first(self._bounded(x))
        if self.context is not None:
            h = h + self.context(context)
        for layer in self.hidden:
            further = layer(self.activation(h))
            h = h + further if self.residual else further
        y: Tensor = self.last(self.activation(h)).unflatten(1, (self.features, self.outputs))
        return y.transpose(1, 2)

    @torch.no_grad()
    def frozen(self, context: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """:meth:`forward` for this context, to be called again and again without gradients: weights are masked once."""
        said = None if self.context is None else self.context(context)
        layers = [(layer.masked, layer.bias) for layer in (self.first, *self.hidden, self.last)]

        @torch.no_grad()
        def passed(x: Tensor) -> Tensor:
            h = nn.functional.linear(self._bounded(x), *layers[0])
            if said is not None:
                h = h + said
            for layer in layers[1:-1]:
                further = nn.functional.linear(self.activation(h), *layer)
                h = h + further if self.residual else further
            y = nn.functional.linear(self.activation(h), *layers[-1])
            outputs: Tensor = y.unflatten(1, (self.features, self.outputs)).transpose(1, 2)
            return outputs

        return passed

    @property
    def multiplications(self) -> int:
        """The products of two numbers in one pass of one row, those with zeros of the masks too."""
        return sum(layer.weight.numel() for layer in (self.first, *self.hidden, self.last))

    def _bounded(self, x: Tensor) -> Tensor:
        return x if self.input_bound is None else x.clamp(-self.input_bound, self.input_bound)

    def begin(self, batch: int, context: Tensor | None = None) -> list[list[Tensor]]:
        """What :meth:`step` remembers before the first step: for each hidden layer, its units so far."""
        said = None if self.context is None else self.context(context)
        seen: list[list[Tensor]] = [[] for _ in range(1 + len(self.hidden))]
        if said is not None:
            seen.append([said])
        return seen

    def step(self, index: int, x: Tensor, seen: list[list[Tensor]]) -> Tensor:
        """The outputs of input ``index`` from the inputs before it; call it for 0, 1, …, each time with one input more.

        Args:
            index: the input, from 0.
            x: the inputs before it, with shape ``(batch, index)``.
            seen: what :meth:`begin` gave; it is added to.

        Returns:
            Outputs with shape ``(batch, P)``.
        """
        low, high = self.bounds[index], self.bounds[index + 1]
        layers = 1 + len(self.hidden)
        h = self.first.part(slice(low, high), slice(0, index), self._bounded(x))
        if len(seen) > layers:
            h = h + seen[layers][0][:, low:high]
        active = _append(seen[0], self.activation(h))
        for number, layer in enumerate(self.hidden, 1):
            further = layer.part(slice(low, high), slice(0, high), active)  # type: ignore[operator]
            h = h + further if self.residual else further
            active = _append(seen[number], self.activation(h))
        own = slice(index * self.outputs, (index + 1) * self.outputs)
        return self.last.part(own, slice(0, high), active)

    def walk(self, like: Tensor, context: Tensor | None = None) -> MaskedWalk:
        """:meth:`begin` and :meth:`step` where no gradient is wanted: see :class:`MaskedWalk`."""
        return MaskedWalk(self, like, context)


@final
class MaskedWalk:
    """yᵢ of a :class:`MaskedMLP` for i = 0, 1, …: in place and without gradients.

    What does not change from input to input (masked weights and their rows, the places of the units) is laid out once;
    a unit that is not known yet is zero.

    Args:
        net: the network.
        like: a tensor with the batch, the dtype and the device of the inputs, with shape ``(batch, D)``.
        context: with shape ``(batch, C)``.
    """

    @torch.no_grad()
    def __init__(self, net: MaskedMLP, like: Tensor, context: Tensor | None = None) -> None:
        layers: list[_Masked] = [net.first, *net.hidden]
        sizes = [high - low for low, high in itertools.pairwise(net.bounds)]
        left = len(net.first.bias) - sum(sizes)  # units that no output sees
        self._net = net
        self._inputs = like.new_zeros(like.shape[0], net.features)
        self._columns = self._inputs.split(1, 1)
        self._units = [like.new_zeros(like.shape[0], len(net.first.bias)) for _ in layers]
        self._places = [units.split([*sizes, left], 1) for units in self._units]
        self._weights = [layer.masked.mT.split([*sizes, left], 1) for layer in layers]
        self._biases = [layer.bias.split([*sizes, left]) for layer in layers]
        self._last = net.last.masked.mT.split(net.outputs, 1), net.last.bias.split(net.outputs)
        self._said = None if net.context is None else net.context(context).split([*sizes, left], 1)

    @torch.no_grad()
    def outputs(self, index: int) -> Tensor:
        """The outputs of input ``index``, ``(batch, P)``; ask for 0, 1, …, and :meth:`put` each in between."""
        net, below = self._net, self._inputs
        h: Tensor | None = None
        if len(self._biases[0][index]):
            for number, units in enumerate(self._units):
                further = torch.addmm(self._biases[number][index], below, self._weights[number][index])
                if h is None:
                    h = further if self._said is None else further + self._said[index]
                else:
                    h = h + further if net.residual else further
                self._places[number][index].copy_(net.activation(h))
                below = units
        weights, biases = self._last
        return torch.addmm(biases[index], self._units[-1], weights[index])

    @torch.no_grad()
    def put(self, index: int, x: Tensor) -> None:
        """Say what input ``index`` is, with shape ``(batch, 1)``."""
        self._columns[index].copy_(self._net._bounded(x))


class _Masked(nn.Linear):
    """y = (W ⊙ M) x + b, with the variance of a dense layer of as many inputs as the mask lets through."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)
        with torch.no_grad():
            fan_in = self.mask.sum(1, keepdim=True).clamp_min(1)
            self.weight.mul_((mask.shape[1] / fan_in).sqrt()).mul_(self.mask)

    def forward(self, input: Tensor) -> Tensor:
        """y = (W ⊙ M) x + b."""
        return nn.functional.linear(input, self.masked, self.bias)

    @property
    def masked(self) -> Tensor:
        """W ⊙ M."""
        return self.weight * self.mask

    def part(self, rows: slice, columns: slice, x: Tensor) -> Tensor:
        """Rows of y from the first columns of x, which are all that these rows see."""
        weight = self.weight[rows, columns] * self.mask[rows, columns]
        return nn.functional.linear(x, weight, self.bias[rows])


def _append(chunks: list[Tensor], new: Tensor) -> Tensor:
    """Add to the units of a layer, and return them all, side by side."""
    whole = torch.cat([*chunks, new], 1) if chunks else new
    chunks[:] = [whole]
    return whole
