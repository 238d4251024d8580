"""Generalized Sylvester flows."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.bijections.autoregressive import Autoregressive
from snflow.bijections.base import Bijection
from snflow.bijections.transformers.tanh import TanhTransformer
from snflow.nets.options import Activation
from snflow.numerics.reflections import reflect


@final
class GeneralizedSylvester(Bijection):
    """z = x + Wᵀ f(W x), log|det| = Σ log(1 + ∂fᵢ/∂yᵢ), W orthogonal, f autoregressive: a Sylvester flow with networks.

    fᵢ(y) = Σₖ uₖ tanh(wₖ yᵢ + bₖ) + t, its numbers told by a masked network of y₁ … yᵢ₋₁, its slope above −1, so that
    the map is one-to-one. The way back solves for W x from the first element to the last, the root of one number each.

    Args:
        features: D.
        units: bends of each fᵢ.
        width: features inside of the masked network.
        depth: hidden layers of it.
        context_features: size of a context that the network sees; 0 for none.
        activation: what stands between its layers.

    Shapes:
        x, z: ``(batch, D)``; context: ``(batch, context_features)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a count below one.
        ConvergenceError: a root was not found, in the inverse.

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

    def __init__(
        self,
        features: int,
        units: int = 4,
        width: int = 64,
        depth: int = 2,
        context_features: int = 0,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.triangular = Autoregressive(
            features, TanhTransformer(units), width, depth, context_features, activation=activation
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
        """W with shape ``(D, D)``: one reflection a row of the parameter."""
        return reflect(torch.eye(x.shape[1], dtype=x.dtype, device=x.device), self.directions)
