"""Planar and radial flows."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.residual.sylvester import ConditionedParameters
from snflow.errors import MAX_INT, check_count
from snflow.numerics.compilation import ROOT_SEARCH
from snflow.numerics.monotone import SOFTPLUS_ONE
from snflow.numerics.root_finding import implicit_inverse

_START = 0.01
"""Standard deviation of the initial movement of a point: each layer begins near the identity."""


@final
class Planar(Bijection):
    """z = x + û tanh(wᵀx + b), log|det| = log(1 + û·w (1 − tanh²)): moves x along û by its distance from a plane.

    û = u + (softplus(u·w) − 1 − u·w) w/‖w‖² satisfies û·w > −1, so that the map is invertible. The inverse needs one
    scalar root search per row, for a with a + û·w tanh(a) = wᵀz + b; then x = z − û tanh(a). Both directions cost O(D).

    Args:
        features: D.
        context_shape: C, the size of a context vector, a linear map of which is added to u, w and b; ``None`` for no
            context.

    Shapes:
        x, z: ``(batch, D)``; context: ``(batch, C)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a count below one.
        ConvergenceError: in the inverse, a root was not found.

    References:
        Rezende & Mohamed (2015), Variational inference with normalizing flows, eq. 10-12 and appendix A.1.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.Planar(3)
        >>> x = torch.randn(4, 3)
        >>> torch.allclose(layer.decode(layer(x)[0]), x, atol=1e-5)
        True
    """

    uncompiled = ROOT_SEARCH

    def __init__(self, features: int, *, context_shape: int | Shape | None = None) -> None:
        super().__init__()
        check_count("Planar", "features", features, most=MAX_INT)
        self.event_shape = (features,)
        self.features = features
        # û is near zero where u·w is log(e − 1): the layer begins near the identity, in a random direction
        w = torch.randn(features) * (2 / features) ** 0.5
        u = SOFTPLUS_ONE * w / w.square().sum() + _START * torch.randn(features)
        self.conditioned = ConditionedParameters("Planar", torch.cat([u, w, torch.randn(1)]), context_shape)
        self.context_shape = self.conditioned.context_shape

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        u, w, b, along = self._parameters_for(context)
        height = torch.tanh((x * w).sum(1) + b)
        return x + u * height[:, None], torch.log1p(along * (1 - height.square()))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        u, w, b, along = self._parameters_for(context)
        target = (z * w).sum(1) + b
        along = along.expand_as(target)

        def scalar_map(a: Tensor) -> tuple[Tensor, Tensor]:
            height = torch.tanh(a)
            return a + along * height, torch.log1p(along * (1 - height.square()))

        a, log_slope = implicit_inverse(scalar_map, target, target - along.abs(), target + along.abs(), where="Planar")
        return z - u * torch.tanh(a)[:, None], log_slope

    def _parameters_for(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """û and w ``(batch or 1, D)``, b and û·w ``(batch or 1,)``."""
        u, w, b = self.conditioned(context).split([self.features, self.features, 1], 1)
        product = (u * w).sum(1, keepdim=True)
        along = F.softplus(product) - 1
        u = u + (along - product) * w / w.square().sum(1, keepdim=True)
        return u, w, b[:, 0], along[:, 0]


@final
class Radial(Bijection):
    """z = x + β h (x − x₀), h = 1/(α + ‖x − x₀‖): moves x toward a point or away from it.

    log|det| = (D − 1) log(1 + β h) + log(1 + α β h²). With α = softplus(α̂) and β = softplus(β̂) − α the map is
    invertible. The inverse solves a quadratic equation for ‖x − x₀‖ in closed form. Both directions cost O(D).

    Args:
        features: D.
        context_shape: C, the size of a context vector, a linear map of which is added to x₀, α̂ and β̂; ``None`` for no
            context.

    Shapes:
        x, z: ``(batch, D)``; context: ``(batch, C)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a count below one.

    References:
        Rezende & Mohamed (2015), Variational inference with normalizing flows, eq. 13-14 and appendix A.2.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.Radial(3)
        >>> x = torch.randn(4, 3)
        >>> torch.allclose(layer.decode(layer(x)[0]), x, atol=1e-5)
        True
    """

    def __init__(self, features: int, *, context_shape: int | Shape | None = None) -> None:
        super().__init__()
        check_count("Radial", "features", features, most=MAX_INT)
        self.event_shape = (features,)
        self.features = features
        # α + β near α: the layer begins near the identity, with a random center
        alpha = torch.randn(1)
        start = torch.cat([torch.randn(features), alpha, alpha + _START * torch.randn(1)])
        self.conditioned = ConditionedParameters("Radial", start, context_shape)
        self.context_shape = self.conditioned.context_shape

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        center, alpha, beta = self._parameters_for(context)
        away = x - center
        radius = _norm(away)
        return center + away * (1 + beta / (alpha + radius))[:, None], self._log_det(radius, alpha, beta)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        center, alpha, beta = self._parameters_for(context)
        away = z - center
        image = _norm(away)
        # r² + (α + β − R) r − α R = 0, with a formula for the root that avoids cancellation
        half = (alpha + beta - image) / 2
        root = (half.square() + alpha * image).sqrt()
        radius = torch.where(half > 0, alpha * image / (half.abs() + root), half.abs() + root)
        x = center + away / (1 + beta / (alpha + radius))[:, None]
        return x, -self._log_det(radius, alpha, beta)

    def _log_det(self, radius: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        near = 1 / (alpha + radius)
        return (self.features - 1) * torch.log1p(beta * near) + torch.log1p(alpha * beta * near.square())

    def _parameters_for(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """x₀ ``(batch or 1, D)``, α and β ``(batch or 1,)``."""
        center, raw = self.conditioned(context).split([self.features, 2], 1)
        alpha, sum_of_both = F.softplus(raw).unbind(1)
        return center, alpha, sum_of_both - alpha


def _norm(vectors: Tensor) -> Tensor:
    # the square root is not differentiable at zero: the gradient for a point at the center would be NaN
    return vectors.square().sum(1).clamp_min(torch.finfo(vectors.dtype).tiny).sqrt()
