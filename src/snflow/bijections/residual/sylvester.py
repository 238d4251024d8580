"""Sylvester flows, and generalized Sylvester flows."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor, nn

from snflow.bijections.autoregressive import Autoregressive
from snflow.bijections.base import Bijection, Shape
from snflow.bijections.transformers.affine import TanhTransformer
from snflow.errors import ConfigError, check_choice, check_context_vector, check_count
from snflow.nets.mlp import Activation
from snflow.numerics.compilation import ROOT_SEARCH
from snflow.numerics.factorization import check_invertible, reflect
from snflow.numerics.root_finding import implicit_inverse


@final
class ConditionedParameters(nn.Module):
    """p = p₀ + A c: one parameter vector for all rows, or one per row by a linear map of its context.

    Args:
        where: the name of the layer, for error messages.
        start: the initial p₀, with shape ``(P,)``.
        context_shape: C, the size of the context vector c; ``None`` for no context.

    Shapes:
        context: ``(batch, C)``; p: ``(1, P)`` without a context, ``(batch, P)`` with one.

    Raises:
        ConfigError: a context that is not a vector.

    Example:
        >>> import torch
        >>> ConditionedParameters("layer", torch.zeros(3))(None).shape
        torch.Size([1, 3])
    """

    def __init__(self, where: str, start: Tensor, context_shape: int | Shape | None = None) -> None:
        super().__init__()
        count = len(start)
        size = check_context_vector(where, context_shape)
        self.context_shape = (size,) if size else None
        self.offset = nn.Parameter(start)
        self.linear = nn.Linear(size, count, bias=False) if size else None

    def forward(self, context: Tensor | None) -> Tensor:
        """p."""
        offset = self.offset[None]
        return offset if self.linear is None else offset + self.linear(context)


Basis = Literal["householder", "orthogonal", "triangular"]
"""Columns of a product of reflections, the Q factor of an unconstrained matrix, or columns of the identity."""


@final
class Sylvester(Bijection):
    """z = x + Q R tanh(R̃ Qᵀx + b), log|det| = Σ log(1 + rᵢᵢ r̃ᵢᵢ (1 − tanh²)): a planar flow with M units.

    Q has M orthonormal columns; R and R̃ are upper triangular with diagonals in (−1, 1), so that the map is invertible
    and its determinant costs O(M). The inverse solves for Qᵀx from its last element to its first, with one scalar root
    search per element.

    Args:
        features: D.
        units: M, at most D; ``None`` for D.
        basis: Q: ``"householder"`` for a product of M reflections, ``"orthogonal"`` for the Q factor of an
            unconstrained matrix, ``"triangular"`` for the first M unit vectors; place a permutation between two layers
            of the last kind.
        context_shape: C, the size of a context vector, a linear map of which is added to R, R̃ and b; ``None`` for no
            context. Q does not depend on the context.

    Shapes:
        x, z: ``(batch, D)``; context: ``(batch, C)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a count below one, more units than features, or an unknown basis.
        ConvergenceError: in the inverse, a root was not found.

    References:
        van den Berg et al. (2018), Sylvester normalizing flows for variational inference, eq. 13-16 and theorem 2.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.Sylvester(4, units=2)
        >>> x = torch.randn(3, 4)
        >>> torch.allclose(layer.decode(layer(x)[0]), x, atol=1e-5)
        True
    """

    uncompiled = ROOT_SEARCH

    def __init__(
        self,
        features: int,
        *,
        units: int | None = None,
        basis: Basis = "householder",
        context_shape: int | Shape | None = None,
    ) -> None:
        super().__init__()
        units = features if units is None else units
        check_choice("Sylvester", "basis", basis, Basis)
        for option, count in (("features", features), ("units", units)):
            check_count("Sylvester", option, count)
        if units > features:
            raise ConfigError(
                "Sylvester", expected=f"at most {features} units", got=str(units), fix="use units=None for the maximum"
            )
        self.event_shape = (features,)
        self.features, self.units, self.basis = features, units, basis
        shape = {"householder": (units, features), "orthogonal": (features, units), "triangular": (0,)}[basis]
        self.directions = nn.Parameter(torch.randn(shape)) if basis != "triangular" else None
        count = 2 * units * units + units
        self.conditioned = ConditionedParameters("Sylvester", torch.randn(count) / count**0.5, context_shape)
        self.context_shape = self.conditioned.context_shape

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        outer, inner, bias = self._parameters_for(context)
        columns = self._columns(x)
        y = x @ columns
        height = torch.tanh((inner @ y[:, :, None])[:, :, 0] + bias)
        moved = (outer @ height[:, :, None])[:, :, 0]
        slopes = _diagonal(outer) * _diagonal(inner) * (1 - height.square())
        return x + moved @ columns.T, torch.log1p(slopes).sum(1)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        outer, inner, bias = self._parameters_for(context)
        columns = self._columns(z)
        image = z @ columns
        found: list[Tensor] = []
        heights: list[Tensor] = []
        log_slopes = torch.zeros_like(z[:, 0])
        for unit in reversed(range(self.units)):
            # the contributions of the later units, which are known already, inside and outside the tanh
            shift, offset = bias[:, unit].expand(z.shape[0]), torch.zeros_like(z[:, 0])
            for later, (y, height) in enumerate(zip(reversed(found), reversed(heights), strict=True), unit + 1):
                shift = shift + inner[:, unit, later] * y
                offset = offset + outer[:, unit, later] * height
            scale, weight = inner[:, unit, unit].expand_as(shift), outer[:, unit, unit].expand_as(shift)

            def scalar_map(
                y: Tensor, shift: Tensor = shift, scale: Tensor = scale, weight: Tensor = weight
            ) -> tuple[Tensor, Tensor]:
                height = torch.tanh(scale * y + shift)
                return y + weight * height, torch.log1p(weight * scale * (1 - height.square()))

            target = image[:, unit] - offset
            reach = weight.abs()
            y, log_slope = implicit_inverse(scalar_map, target, target - reach, target + reach, where="Sylvester")
            found.append(y)
            heights.append(torch.tanh(scale * y + shift))
            log_slopes = log_slopes + log_slope
        y = torch.stack(found[::-1], 1)
        return z + (y - image) @ columns.T, log_slopes

    def _columns(self, x: Tensor) -> Tensor:
        """Q with shape ``(D, M)``."""
        unit = torch.eye(self.features, self.units, dtype=x.dtype, device=x.device)
        if self.directions is None:
            return unit
        if self.basis == "householder":
            return reflect(unit.T, self.directions).T
        columns, triangle = torch.linalg.qr(self.directions)
        # without full rank Q has no derivative
        check_invertible(triangle.diagonal().abs().log().sum(), self.label, self.directions)
        q: Tensor = columns
        return q

    def _parameters_for(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """R and R̃ ``(batch or 1, M, M)``, b ``(batch or 1, M)``."""
        square = self.units * self.units
        parameters: Tensor = self.conditioned(context)
        outer, inner, bias = parameters.split([square, square, self.units], 1)
        return self._triangle(outer), self._triangle(inner), bias

    def _triangle(self, flat: Tensor) -> Tensor:
        free: Tensor = flat.unflatten(1, (self.units, self.units))
        return free.triu(1) + torch.diag_embed(torch.tanh(_diagonal(free)))


def _diagonal(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2)


@final
class GeneralizedSylvester(Bijection):
    """z = x + Wᵀ f(W x), log|det| = Σ log(1 + ∂fᵢ/∂yᵢ), W orthogonal, f autoregressive: a Sylvester flow with networks.

    fᵢ(y) = Σₖ uₖ tanh(wₖ yᵢ + bₖ) + t, with parameters predicted from y₁ … yᵢ₋₁ by a masked network. Its slope exceeds
    −1, so that the map is invertible. The inverse solves for W x from the first element to the last, with one scalar
    root search per element.

    Args:
        features: D.
        units: number of tanh units of each fᵢ.
        width: units of each hidden layer of the masked network.
        depth: number of hidden layers of the network.
        context_shape: C, the size of the context vector passed to the network; ``None`` for no context.
        activation: the activation function, ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.

    Shapes:
        x, z: ``(batch, D)``; context: ``(batch, C)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a count below one.
        ConvergenceError: in the inverse, a root was not found.

    References:
        Hoogeboom, Garcia Satorras, Tomczak, Welling (2020), The convolution exponential and generalized Sylvester
        flows, section 3.2, theorem 2.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.GeneralizedSylvester(3)
        >>> x = torch.randn(4, 3)
        >>> torch.allclose(layer.decode(layer(x)[0]), x, atol=1e-5)
        True
    """

    uncompiled = ROOT_SEARCH

    def __init__(
        self,
        features: int,
        *,
        units: int = 4,
        width: int = 64,
        depth: int = 2,
        context_shape: int | Shape | None = None,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.triangular = Autoregressive(
            features,
            TanhTransformer(units),
            width=width,
            depth=depth,
            context_shape=context_shape,
            activation=activation,
        )
        self.event_shape, self.context_shape = (features,), self.triangular.context_shape
        self.directions = nn.Parameter(torch.randn(features, features))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        turn = self._turn(x)
        moved, log_det = self.triangular(x @ turn.T, context)
        return moved @ turn, log_det

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        turn = self._turn(z)
        found, log_det = self.triangular.inverse(z @ turn.T, context)
        return found @ turn, log_det

    def _turn(self, x: Tensor) -> Tensor:
        """W with shape ``(D, D)``: a product of D reflections."""
        return reflect(torch.eye(x.shape[1], dtype=x.dtype, device=x.device), self.directions)
