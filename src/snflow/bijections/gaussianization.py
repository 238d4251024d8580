"""Gaussianization layers and generalized divisive normalization."""

from __future__ import annotations

import math
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snflow.bijections.base import Bijection
from snflow.bijections.elementwise import rational_quadratic_spline
from snflow.errors import ConfigError, check_choice, check_count
from snflow.numerics.compilation import FIRST_BATCH, ITERATION, Reasons
from snflow.numerics.fixed_point import implicit_fixed_point
from snflow.numerics.monotone import SOFTPLUS_ONE
from snflow.numerics.transforms import is_traced, refuse_transforms

RotationName = Literal["random", "pca"]

_BOX = 8.0
"""Half the side length of the spline's box, in standard deviations."""
_LEAST_SHARE = 1e-4
_LEAST_SLOPE = 1e-3
_LEAST_ROWS = 20


@final
class Gaussianization(Bijection):
    """z = R Ψ((x − m)/s), Ψᵢ = Φ⁻¹ ∘ Fᵢ: maps each feature to a standard normal variable, then rotates.

    Ψ is a monotone rational-quadratic spline through quantiles of the data, and the identity far outside. :meth:`fit`
    sets m, s, Ψ and, for ``"pca"``, R from data, without gradients; if it is not called, the first training batch is
    used. Initialization takes place only once: never in ``eval()``, and not after a ``load_state_dict`` of an
    initialized layer. Afterwards m, s and Ψ are ordinary parameters, and R is fixed.

    Args:
        features: D.
        bins: number of bins of each spline.
        rotation: ``"random"``, drawn at construction, or ``"pca"``, the principal axes of the outputs of Ψ.

    Shapes:
        x, z: ``(batch, D)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one feature or two bins, an unknown rotation, or a first batch under a transform of
            ``torch.func``.

    References:
        Laparra, Camps-Valls, Malo (2011), Iterative Gaussianization: from ICA to random rotations, eq. 3; Chen &
        Gopinath (2000), Gaussianization.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.Gaussianization(2)
        >>> z, _ = layer.fit(torch.rand(5000, 2).exp())(torch.rand(5000, 2).exp())
        >>> bool(z.std(0).sub(1).abs().max() < 0.1)
        True
    """

    initialized: Tensor
    turn: Tensor

    def __init__(self, features: int, *, bins: int = 32, rotation: RotationName = "random") -> None:
        super().__init__()
        check_count("Gaussianization", "features", features)
        check_choice("Gaussianization", "rotation", rotation, RotationName)
        if bins < 2:
            raise ConfigError("Gaussianization", expected="bins ≥ 2", got=str(bins), fix="use 32")
        self.event_shape = (features,)
        self.bins, self.rotation = bins, rotation
        self.mean = nn.Parameter(torch.zeros(features))
        self.log_std = nn.Parameter(torch.zeros(features))
        self.spline = rational_quadratic_spline(
            features,
            bins=bins,
            tail_bound=_BOX,
            min_bin_width=_LEAST_SHARE,
            min_bin_height=_LEAST_SHARE,
            min_derivative=_LEAST_SLOPE,
        )
        turn = torch.linalg.qr(torch.randn(features, features))[0] if rotation == "random" else torch.eye(features)
        self.register_buffer("turn", turn.contiguous())  # safetensors refuses the layout of qr
        self.register_buffer("initialized", torch.tensor(False))

    @property
    def uncompiled(self) -> Reasons:
        """The direction that initializes in ``train()``."""
        return FIRST_BATCH if self.training else Reasons()

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.training and not (is_traced(self.initialized) or bool(self.initialized)) and len(x) >= _LEAST_ROWS:
            refuse_transforms(
                "Gaussianization", "pass a first batch through in train() outside the transform, or call fit"
            )
            if bool(x.isfinite().all()):
                self.fit(x.detach())
        y, log_det = self.spline((x - self.mean) * (-self.log_std).exp())
        return y @ self._rotation().T, log_det - self.log_std.sum()

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        y, log_det = self.spline.inverse(z @ self._rotation())
        return y * self.log_std.exp() + self.mean, log_det + self.log_std.sum()

    def _rotation(self) -> Tensor:
        """R made orthogonal to the precision of its dtype: one converted from float32 to float64 is off by 1e-7."""
        turn = self.turn
        for _ in range(2):  # Newton–Schulz steps, each of which squares the error
            turn = 1.5 * turn - 0.5 * turn @ (turn.T @ turn)
        return turn

    @torch.no_grad()
    def fit(self, x: Tensor) -> Gaussianization:
        """Set every parameter from data, with shape ``(N, D)``, N ≥ 20, and return the layer.

        Raises:
            ConfigError: there are too few rows.
        """
        if len(x) < _LEAST_ROWS:
            raise ConfigError("Gaussianization.fit", expected=f"at least {_LEAST_ROWS} rows", got=str(len(x)))
        rows = x.double()
        std = rows.std(0).clamp_min(1e-6)
        self.mean.copy_(rows.mean(0))
        self.log_std.copy_(std.log())
        rows = (rows - rows.mean(0)) / std
        # knots at equidistant normal scores within the range of the data
        edge = min(3.5, math.sqrt(2) * float(torch.erfinv(torch.tensor(1 - 10 / len(rows), dtype=torch.float64))))
        scores = torch.linspace(-edge, edge, self.bins - 1, dtype=torch.float64, device=x.device)
        quantiles = torch.quantile(_thinned(rows), torch.special.ndtr(scores), dim=0)
        widths = _shares(quantiles.T)
        heights = _shares(scores.expand(x.shape[1], -1))
        secants = heights / widths
        before, after = secants[:, :-1], secants[:, 1:]
        # with the harmonic mean, each piece is monotone and smooth (Fritsch & Butland 1984)
        slopes = 2 * before * after / (before + after)
        offset = math.log(math.expm1(1 - _LEAST_SLOPE))
        raw_slopes = torch.log(torch.expm1((slopes - _LEAST_SLOPE).clamp_min(1e-6))) - offset
        self.spline.parameters_of_elements.copy_(torch.cat([widths.log(), heights.log(), raw_slopes], 1).T)
        if self.rotation == "pca":
            y = self.spline(rows.to(self.mean))[0].double()
            self.turn.copy_(torch.linalg.eigh(torch.cov(y.T).reshape(y.shape[1], y.shape[1]))[1].T)
        self.initialized.fill_(True)
        return self

    def extra_repr(self) -> str:
        """Show the size and the rotation."""
        return f"{len(self.mean)}, bins={self.bins}, rotation={self.rotation}"


def _shares(inner: Tensor) -> Tensor:
    """Convert inner knots ``(D, bins − 1)`` to bin sizes as fractions of the box, ``(D, bins)``."""
    end = torch.full_like(inner[:, :1], _BOX)
    knots = torch.cat([-end, inner.clamp(-_BOX, _BOX), end], 1)
    shares = knots.diff(dim=1) / (2 * _BOX)
    shares = shares.clamp_min(2 * _LEAST_SHARE)
    return shares / shares.sum(1, keepdim=True)


def _thinned(rows: Tensor) -> Tensor:
    """Select at most about 100,000 evenly spaced rows: more hardly change a quantile, and sorting is expensive."""
    return rows[:: max(1, len(rows) // 100_000)]


@final
class GDN(Bijection):
    """zᵢ = xᵢ / (βᵢ + Σⱼ γᵢⱼ |xⱼ|^α)^ε, β > 0, γ ≥ 0: divides each channel by the pooled activity of all channels.

    The map is injective for αε ≤ 1: J = S^−ε (I − αε P), where P is similar to a matrix with row sums below one. It is
    surjective for αε < 1. For αε = 1, as in Ballé et al. (α = 2 and ε = ½), the range of z is bounded: inverting a
    point outside raises an error, and a density built on the layer integrates to less than one. The log-determinant is
    the sum over pixels of that of the C×C Jacobian.

    The inverse solves rᵢ = ε log(βᵢ + Σⱼ γᵢⱼ |zⱼ|^α exp(α rⱼ)) for r = log|x/z|. This fixed-point iteration is a
    contraction with factor αε in the maximum norm; gradients are those of the exact solution.

    Args:
        channels: C of images ``(C, height, width)``; or the number of features of vectors.
        vectors: whether the events are vectors ``(C,)``.
        alpha: α ≥ 1.
        epsilon: ε in (0, 1/α].

    Shapes:
        x, z: ``(batch, C)`` or ``(batch, C, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a count below one, or exponents out of range.
        ConvergenceError: in the inverse, a row is outside the range of the map.

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

    uncompiled = ITERATION

    def __init__(self, channels: int, *, vectors: bool = False, alpha: float = 2.0, epsilon: float = 0.45) -> None:
        super().__init__()
        check_count("GDN", "channels", channels)
        if not (alpha >= 1 and 0 < epsilon <= 1 / alpha):
            raise ConfigError(
                "GDN",
                expected="alpha ≥ 1 and 0 < epsilon ≤ 1/alpha",
                got=f"{alpha} and {epsilon}",
                fix="use alpha=2 and epsilon=0.45 (0.5 in the paper)",
            )
        self.event_shape = (channels,) if vectors else (channels, None, None)
        self.alpha, self.epsilon = alpha, epsilon
        self.raw_beta = nn.Parameter(torch.full((channels,), SOFTPLUS_ONE))
        self.raw_gamma = nn.Parameter(torch.full((channels, channels), -4.0) + 2 * torch.eye(channels))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        sites = _sites(x)
        beta, gamma = F.softplus(self.raw_beta), F.softplus(self.raw_gamma)
        size = beta + sites.abs().pow(self.alpha) @ gamma.T
        divided = sites * size.pow(-self.epsilon)
        # I − αε diag(x/s) γ diag(sign(x) |x|^(α−1)); the remaining factor of the Jacobian is diagonal
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
        """Show the size and the exponents."""
        return f"{len(self.raw_beta)}, alpha={self.alpha:g}, epsilon={self.epsilon:g}"


def _sites(x: Tensor) -> Tensor:
    """``(batch, pixels, C)``."""
    return x[:, None] if x.dim() == 2 else x.flatten(2).transpose(1, 2)


def _back(sites: Tensor, like: Tensor) -> Tensor:
    return sites.transpose(1, 2).reshape(like.shape)
