"""Generalized divisive normalization."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snflow.arguments import check_count
from snflow.bijections.base import Bijection
from snflow.errors import ConfigError
from snflow.numerics.fixed_point import implicit_fixed_point


@final
class GDN(Bijection):
    """zᵢ = xᵢ / (βᵢ + Σⱼ γᵢⱼ |xⱼ|^α)^ε, β > 0, γ ≥ 0: each channel divided by the activity of all.

    One-to-one for αε ≤ 1: J = S^−ε (I − αε P) with P similar to a matrix of row sums below one. It reaches all of space
    for αε < 1; for αε = 1, Ballé's choice of α = 2 and ε = ½, z is bounded, and the way back from outside raises an
    error: a density made of it has a mass below one. log|det| is that of the C×C Jacobian at every pixel.

    The way back solves rᵢ = ε log(βᵢ + Σⱼ γᵢⱼ |zⱼ|^α exp(α rⱼ)) for r = log|x/z|, a contraction by αε in the largest
    element, with the gradients of the exact solution.

    Args:
        channels: C of images ``(C, height, width)``; or the number of features of vectors.
        vectors: whether the events are vectors ``(C,)``.
        alpha: α ≥ 1.
        epsilon: ε in (0, 1/α].

    Shapes:
        x, z: ``(batch, C)`` or ``(batch, C, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a count below one, or exponents out of their range.
        ConvergenceError: in the inverse, a row is not reached by the map.

    References:
        Ballé, Laparra, Simoncelli (2016), Density modeling of images using a generalized normalization transformation,
        eq. 2.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.GDN(3)
        >>> x = torch.randn(4, 3, 5, 5)
        >>> torch.allclose(layer.decode(layer(x)[0]), x, atol=1e-4)
        True
    """

    def __init__(self, channels: int, *, vectors: bool = False, alpha: float = 2.0, epsilon: float = 0.45) -> None:
        super().__init__()
        check_count("GDN", "channels", channels)
        if not (alpha >= 1 and 0 < epsilon <= 1 / alpha):
            raise ConfigError(
                "GDN",
                expected="alpha ≥ 1 and 0 < epsilon ≤ 1/alpha",
                got=f"{alpha} and {epsilon}",
                fix="use alpha=2 and epsilon=0.45; 0.5 is the paper's",
            )
        self.event_shape = (channels,) if vectors else (channels, None, None)
        self.alpha, self.epsilon = alpha, epsilon
        self.raw_beta = nn.Parameter(torch.full((channels,), 0.5413))  # softplus of it is one
        self.raw_gamma = nn.Parameter(torch.full((channels, channels), -4.0) + 2 * torch.eye(channels))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        sites = _sites(x)
        beta, gamma = F.softplus(self.raw_beta), F.softplus(self.raw_gamma)
        size = beta + sites.abs().pow(self.alpha) @ gamma.T
        divided = sites * size.pow(-self.epsilon)
        # I − αε diag(x/s) γ diag(sign(x) |x|^(α−1)), the rest of the Jacobian is diagonal
        inner = (sites / size)[..., None] * gamma * (sites.sign() * sites.abs().pow(self.alpha - 1))[..., None, :]
        unit = torch.eye(len(beta), dtype=x.dtype, device=x.device)
        mixed: Tensor = torch.linalg.slogdet(unit - self.alpha * self.epsilon * inner).logabsdet
        return _back(divided, x), (mixed - self.epsilon * size.log().sum(-1)).sum(1)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self._decode(z, context)
        return x, -self._forward(x, context)[1]

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        sites = _sites(z)
        beta, gamma = F.softplus(self.raw_beta), F.softplus(self.raw_gamma)
        activity = sites.abs().pow(self.alpha)

        def step(r: Tensor) -> Tensor:
            return self.epsilon * (beta + (activity * (self.alpha * r).exp()) @ gamma.T).log()

        start = (self.epsilon * beta.log()).expand_as(sites)
        start = torch.where(sites.isfinite().flatten(1).all(1)[:, None, None], start, torch.nan)
        r = implicit_fixed_point(step, start, where="GDN", iterations=1000)
        return _back(sites * r.exp(), z)

    def extra_repr(self) -> str:
        """What ``print(layer)`` shows."""
        return f"{len(self.raw_beta)}, alpha={self.alpha:g}, epsilon={self.epsilon:g}"


def _sites(x: Tensor) -> Tensor:
    """``(batch, pixels, C)``."""
    return x[:, None] if x.dim() == 2 else x.flatten(2).transpose(1, 2)


def _back(sites: Tensor, like: Tensor) -> Tensor:
    return sites.transpose(1, 2).reshape(like.shape)
