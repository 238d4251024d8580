"""Autoregressive layers: each element is transformed conditioned on the elements before it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.transformers.transformer import TransformedElements, Transformer
from snflow.errors import check_choice, check_context_shape, check_context_vector, check_count
from snflow.nets.masked import MaskedMLP
from snflow.nets.mlp import Activation, clamped
from snflow.numerics.compilation import ITERATION, ROOT_SEARCH, Reasons
from snflow.numerics.devices import structure_device
from snflow.numerics.root_finding import implicit_inverse
from snflow.numerics.transforms import under_transform

InverseSolver = Literal["auto", "steps", "jacobi"]
"""Sequentially, one element after another; in parallel, until no element changes; or whichever is likely faster."""

_LEAST_PASSES, _PATIENCE = 16, 3
"""``"auto"`` allows the Jacobi iteration max(16, D/3) passes. D passes always suffice; about a dozen are typical."""

_PASSES_FROM, _PRODUCTS_FOR_A_STEP = 32, 300_000
"""``"auto"`` uses parallel passes from 32 elements on, and on a CPU only if a pass costs fewer than 300,000
multiplications per element. The cost of a step is dominated by the overhead of its small operations, at least 45 µs;
that of a pass by its multiplications."""


@final
class Autoregressive(TransformedElements):
    """zᵢ = τ(xᵢ; hᵢ), (h₁, …, h_D) = net(x), hᵢ a function of x₁ … xᵢ₋₁; log|det| = Σ log dzᵢ/dxᵢ.

    ``forward`` is one pass through the network. ``inverse`` has two solvers. ``"steps"`` computes one element after
    another; each step evaluates only those units of the network whose inputs have just become available, so that the D
    steps together cost as much arithmetic as one pass. ``"jacobi"`` iterates x ← τ⁻¹(z; net(x)) for all elements in
    parallel until none changes: after k passes the first k elements are exact, and weakly dependent elements converge
    much sooner. ``"auto"`` uses the Jacobi iteration if D is large and the network small, and falls back to the steps
    if it has not converged after max(16, D/3) passes; when gradients are needed, it always uses the steps. To make the
    inverse the fast direction, as in an inverse autoregressive flow, wrap the layer in :class:`~snflow.Inverse`.

    Args:
        features: D.
        transformer: τ.
        width: units of each hidden layer of the network.
        depth: number of hidden layers.
        context_shape: C, the size of the context vector on which every hᵢ depends; ``None`` for no context.
        residual: whether the hidden layers after the first are residual.
        activation: ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.
        input_bound: bound to which the input of the network is clamped, on both sides; ``None`` for no bound.
        zero_start: whether the outputs of the network are initially zero.
        solver: how the inverse is computed: ``"steps"``, ``"jacobi"`` or ``"auto"``.

    Shapes:
        x, z: ``(batch, D)``; context: ``(batch, C)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a count below one, or an unknown ``solver``.

    References:
        Germain et al. (2015), MADE; Papamakarios et al. (2017), Masked autoregressive flow, eq. 3-6; Kingma et al.
        (2016), Inverse autoregressive flow; Song et al. (2021), Accelerating feedforward computation, for ``"jacobi"``.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.Autoregressive(3, snflow.AffineTransformer())
        >>> x = torch.randn(4, 3)
        >>> torch.allclose(layer.decode(layer(x)[0]), x)
        True
    """

    def __init__(
        self,
        features: int,
        transformer: Transformer,
        *,
        width: int = 64,
        depth: int = 2,
        context_shape: int | Shape | None = None,
        residual: bool = False,
        activation: Activation = "relu",
        input_bound: float | None = None,
        zero_start: bool = False,
        solver: InverseSolver = "auto",
    ) -> None:
        super().__init__()
        check_choice("Autoregressive", "solver", solver, InverseSolver)
        self.event_shape = (features,)
        self.context_shape = check_context_shape("Autoregressive", context_shape)
        self.features, self.solver = features, solver
        self.transformer = transformer
        self.net = MaskedMLP(
            features,
            transformer.parameters_per_element,
            width=width,
            depth=depth,
            context_shape=context_shape,
            residual=residual,
            activation=activation,
            input_bound=input_bound,
            zero_start=zero_start,
        )

    @property
    def uncompiled(self) -> Reasons:
        """What the transformer declares, or an inverse that may take the Jacobi iteration."""
        may_iterate = self.solver == "jacobi" or (self.solver == "auto" and self.features >= _PASSES_FROM)
        return ITERATION if may_iterate else self.transformer.uncompiled

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_slope = self.transformer(x, self._conditioned(x, context))
        return z, log_slope.sum(1)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if not (torch.is_grad_enabled() or under_transform()):
            x = self._found(z, context)
            return x, self.transformer.inverse(z, self._conditioned(x, context))[1].sum(1)
        if self.solver == "jacobi":
            # like a value, a gradient propagates by one element per pass, so it takes D more passes
            return self._passes(z, self._settled(z, context, self.features)[0], context)
        known, slopes = z.new_zeros(z.shape[0], 0), []
        steps = self.net.steps(context)
        for index in range(self.features):
            h = steps.outputs(index, known).t().unsqueeze(2)
            x, log_slope = self.transformer.inverse(z[:, index : index + 1], h)
            known = torch.cat([known, x], 1)
            slopes.append(log_slope)
        return known, torch.cat(slopes, 1).sum(1)

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        if torch.is_grad_enabled() or under_transform():
            return self._inverse(z, context)[0]
        return self._found(z, context)

    def _found(self, z: Tensor, context: Tensor | None) -> Tensor:
        """Return x without gradients."""
        if self.solver == "jacobi":
            return self._settled(z, context, self.features)[0]
        if self.solver == "auto" and self._passes_are_cheap(z):
            x, settled = self._settled(z, context, max(_LEAST_PASSES, self.features // _PATIENCE))
            if settled:
                return x
        walk, found = self.net.walk(z, context), []
        for index, column in enumerate(z.split(1, 1)):
            x = self.transformer.decode(column, walk.outputs(index).t().unsqueeze(2))
            walk.put(index, x)
            found.append(x)
        return torch.cat(found, 1)

    def _passes_are_cheap(self, z: Tensor) -> bool:
        if self.features < _PASSES_FROM:
            return False
        products = z.shape[0] * self.net.multiplications
        return z.device.type != "cpu" or products < _PRODUCTS_FOR_A_STEP * self.features

    @torch.no_grad()
    def _settled(self, z: Tensor, context: Tensor | None, most: int) -> tuple[Tensor, bool]:
        """At most ``most`` passes of the Jacobi iteration: x, and whether it has converged."""
        net, x = self.net.frozen(context), z
        few = 4 * torch.finfo(z.dtype).eps
        for _ in range(most):
            before, x = x, self.transformer.decode(z, net(x).transpose(0, 1))
            # rounding may make the last digits alternate; NaN counts as converged
            if not bool(((x - before).abs() > few * x.abs()).any()):
                return x, True
        return x, False

    def _passes(self, z: Tensor, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_slope = torch.zeros_like(z)
        for _ in range(self.features):
            x, log_slope = self.transformer.inverse(z, self._conditioned(x, context))
        return x, log_slope.sum(1)

    def _conditioned(self, x: Tensor, context: Tensor | None) -> Tensor:
        """h with shape ``(P, batch, D)``."""
        outputs: Tensor = self.net(x, context)
        return outputs.transpose(0, 1)

    def extra_repr(self) -> str:
        """Show the size and how the inverse is computed."""
        return f"{self.features}, solver={self.solver}"


_SPREAD = 2.0
"""The initial slopes of hidden units range from exp(−2) to exp(2)."""
_REACH = 4.0
"""Their initial biases range from −4 to 4, so that the tanh units cover standardized data."""


@final
class BlockAutoregressive(Bijection):
    """z = α ⊙ net(x) + (1 − α) ⊙ x, log|det| = Σ log ∂zᵢ/∂xᵢ: a network of triangular blocks.

    Each feature has B hidden units in each layer. Weights between units of the same feature are exponentials, weights
    from earlier features are unconstrained, and all others are zero. Hence ∂z/∂x is triangular with a positive
    diagonal, which is accumulated in log space along with the values. The gate α, one per feature, keeps z unbounded.

    ``forward`` costs one pass. ``inverse`` performs D scalar root searches, one feature after another, with implicit
    gradients.

    Args:
        features: D.
        block: B.
        depth: number of hidden layers.
        context_shape: C, the size of the context vector passed to the first layer; ``None`` for no context.

    Shapes:
        x, z: ``(batch, D)``; context: ``(batch, C)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a count below one.
        ConvergenceError: in the inverse, no root was found for some elements.

    References:
        De Cao et al. (2019), Block neural autoregressive flow, eq. 8-13.

    Example:
        >>> import torch, snflow
        >>> layer, x = snflow.BlockAutoregressive(3), torch.randn(4, 3)
        >>> torch.allclose(layer.decode(layer(x)[0]), x, atol=1e-4)
        True
    """

    uncompiled = ROOT_SEARCH

    def __init__(
        self, features: int, *, block: int = 8, depth: int = 1, context_shape: int | Shape | None = None
    ) -> None:
        super().__init__()
        for option, count in (("features", features), ("block", block), ("depth", depth)):
            check_count("BlockAutoregressive", option, count)
        self.event_shape = (features,)
        context_size = check_context_vector("BlockAutoregressive", context_shape)
        self.context_shape = (context_size,) if context_size else None
        self.features = features
        sizes = [1, *[block] * depth, 1]
        last = len(sizes) - 2
        self.layers = nn.ModuleList(
            _Blocks(features, i, o, hidden=number < last) for number, (i, o) in enumerate(pairwise(sizes))
        )
        self.context = nn.Linear(context_size, features * block, bias=False) if context_size else None
        self.gate = nn.Parameter(torch.zeros(features))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_slope = self._value_and_log_slope(x, context)
        return z, log_slope.sum(1)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        known, slopes = z.new_zeros(z.shape[0], 0), []
        for index in range(self.features):
            rest = z.new_zeros(z.shape[0], self.features - index - 1)
            before = known

            def own(x: Tensor, at: int = index, left: Tensor = before, right: Tensor = rest) -> tuple[Tensor, Tensor]:
                value, log_slope = self._value_and_log_slope(torch.cat([left, x, right], 1), context)
                return value[:, at : at + 1], log_slope[:, at : at + 1]

            target = z[:, index : index + 1]
            x, log_slope = implicit_inverse(own, target, target - 1, target + 1, where="BlockAutoregressive inverse")
            known = torch.cat([known, x], 1)
            slopes.append(log_slope)
        return known, torch.cat(slopes, 1).sum(1)

    def _value_and_log_slope(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        # far beyond the bound every unit is saturated, while a sum of products of x would overflow
        h, log_slope = clamped(x, None), torch.zeros_like(x).unsqueeze(2)
        for number, layer in enumerate(self.layers):
            h, log_slope = layer(h, log_slope)
            if number == 0 and self.context is not None:
                h = h + self.context(context)
            if number < len(self.layers) - 1:
                # log tanh' without cancellation: 2 (log 2 − u − softplus(−2u))
                log_slope = log_slope + 2 * (math.log(2) - h - F.softplus(-2 * h)).unflatten(1, (self.features, -1))
                h = torch.tanh(h)
        z = torch.lerp(x, h, torch.sigmoid(self.gate))
        log_share, log_rest = F.logsigmoid(self.gate), F.logsigmoid(-self.gate)
        return z, torch.logaddexp(log_share + log_slope.squeeze(2), log_rest.expand_as(x))

    def extra_repr(self) -> str:
        """Show the number of features."""
        return str(self.features)


class _Blocks(nn.Module):
    """y = W x + b: W is block lower triangular with D × D blocks, exponentials on the diagonal and row norms exp(s)."""

    diagonal: Tensor
    lower: Tensor

    def __init__(self, features: int, inputs: int, outputs: int, *, hidden: bool) -> None:
        super().__init__()
        self.features, self.inputs, self.outputs = features, inputs, outputs
        with structure_device():
            block = torch.ones(outputs, inputs)
            diagonal, lower = torch.eye(features), torch.ones(features, features).tril(-1)
        self.register_buffer("diagonal", torch.kron(diagonal, block), persistent=False)
        self.register_buffer("lower", torch.kron(lower, block), persistent=False)
        bound = 1 / math.sqrt(inputs)
        weight = torch.empty(features * outputs, features * inputs).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        # units of a feature with the same initial slope and bias would remain identical
        spread, reach = (_SPREAD, _REACH) if hidden else (0.0, bound)
        self.log_norm = nn.Parameter(torch.empty(features * outputs, 1).uniform_(-spread, spread))
        self.bias = nn.Parameter(torch.empty(features * outputs).uniform_(-reach, reach))

    def forward(self, x: Tensor, log_slope: Tensor) -> tuple[Tensor, Tensor]:
        """Map values ``(batch, D·inputs)``, and the log-slopes ``(batch, D, inputs)`` with respect to each feature."""
        raw = self.weight.exp() * self.diagonal + self.weight * self.lower
        log_scale = self.log_norm - torch.linalg.vector_norm(raw, dim=1, keepdim=True).log()
        y = F.linear(x, raw * log_scale.exp(), self.bias)
        d, o, i = self.features, self.outputs, self.inputs
        own = (self.weight + log_scale).reshape(d, o, d, i).diagonal(dim1=0, dim2=2).movedim(2, 0)
        return y, torch.logsumexp(own + log_slope.unsqueeze(2), 3)
