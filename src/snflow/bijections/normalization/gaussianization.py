"""One step of iterative Gaussianization."""

from __future__ import annotations

import math
from typing import Literal, final

import torch
from torch import Tensor, nn

from snflow.arguments import check_choice, check_count
from snflow.bijections.base import Bijection
from snflow.bijections.elementwise.spline import RationalQuadraticSpline
from snflow.errors import ConfigError
from snflow.numerics.transforms import is_traced, refuse_transforms

RotationName = Literal["random", "pca"]

_BOX = 8.0
"""Half the side of the spline's box, in deviations."""
_LEAST_SHARE = 1e-4
_LEAST_SLOPE = 1e-3
_LEAST_ROWS = 20


@final
class Gaussianization(Bijection):
    """z = R Ψ((x − m)/s), Ψᵢ = Φ⁻¹ ∘ Fᵢ: every feature is made normal by its distribution function, then all rotated.

    Ψ is a monotone rational-quadratic spline through quantiles of the data, the identity far outside. :meth:`fit` sets
    m, s, Ψ and, for ``"pca"``, R from data, with no gradient; the first training batch does where nobody has. It
    happens once: never in ``eval()`` and never again after a ``load_state_dict`` of a layer that had it behind it.
    Afterwards m, s and Ψ are parameters like any other, and R stands fixed.

    Args:
        features: D.
        bins: pieces of each spline.
        rotation: ``"random"``, one rotation drawn with the layer, or ``"pca"``, the principal axes of Ψ's outputs.

    Shapes:
        x, z: ``(batch, D)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a count below one (bins: two), an unknown rotation, or a first batch under a transform of
            ``torch.func``.

    References:
        Laparra, Camps-Valls, Malo (2011), Iterative Gaussianization: from ICA to random rotations, eq. 3; Chen &
        Gopinath (2000), Gaussianization.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.bijections.Gaussianization(2)
        >>> z, _ = layer.fit(torch.rand(5000, 2).exp())(torch.rand(5000, 2).exp())
        >>> bool(z.std(0).sub(1).abs().max() < 0.1)
        True
    """

    initialized: Tensor
    turn: Tensor

    def __init__(self, features: int, bins: int = 32, rotation: RotationName = "random") -> None:
        super().__init__()
        check_count("Gaussianization", "features", features)
        check_choice("Gaussianization", "rotation", rotation, RotationName)
        if bins < 2:
            raise ConfigError("Gaussianization", expected="bins ≥ 2", got=str(bins), fix="use 32")
        self.event_shape = (features,)
        self.bins, self.rotation = bins, rotation
        self.mean = nn.Parameter(torch.zeros(features))
        self.log_deviation = nn.Parameter(torch.zeros(features))
        self.spline = RationalQuadraticSpline((features,), bins, _BOX, _LEAST_SHARE, _LEAST_SHARE, _LEAST_SLOPE)
        turn = torch.linalg.qr(torch.randn(features, features))[0] if rotation == "random" else torch.eye(features)
        self.register_buffer("turn", turn)
        self.register_buffer("initialized", torch.tensor(False))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.training and not (is_traced(self.initialized) or bool(self.initialized)) and len(x) >= _LEAST_ROWS:
            refuse_transforms("Gaussianization", "let a first batch through in train() outside of it, or call fit")
            if bool(x.isfinite().all()):
                self.fit(x.detach())
        y, log_det = self.spline((x - self.mean) * (-self.log_deviation).exp())
        return y @ self.turn.T, log_det - self.log_deviation.sum()

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        y, log_det = self.spline.inverse(z @ self.turn)
        return y * self.log_deviation.exp() + self.mean, log_det + self.log_deviation.sum()

    @torch.no_grad()
    def fit(self, x: Tensor) -> Gaussianization:
        """Set every parameter from data, with shape ``(N, D)``, N ≥ 20, and return the layer.

        Raises:
            ConfigError: there are too few rows.
        """
        if len(x) < _LEAST_ROWS:
            raise ConfigError("Gaussianization.fit", expected=f"{_LEAST_ROWS} rows or more", got=str(len(x)))
        rows = x.double()
        deviation = rows.std(0).clamp_min(1e-6)
        self.mean.copy_(rows.mean(0))
        self.log_deviation.copy_(deviation.log())
        rows = (rows - rows.mean(0)) / deviation
        # knots at even normal scores, as far out as there are data
        edge = min(3.5, math.sqrt(2) * float(torch.erfinv(torch.tensor(1 - 10 / len(rows), dtype=torch.float64))))
        scores = torch.linspace(-edge, edge, self.bins - 1, dtype=torch.float64, device=x.device)
        quantiles = torch.quantile(_thinned(rows), torch.special.ndtr(scores), dim=0)
        widths = _shares(quantiles.T)
        heights = _shares(scores.expand(x.shape[1], -1))
        self.spline.widths.copy_(widths.log())
        self.spline.heights.copy_(heights.log())
        secants = heights / widths
        before, after = secants[:, :-1], secants[:, 1:]
        # the harmonic mean keeps each piece monotone and smooth (Fritsch & Butland 1984)
        slopes = 2 * before * after / (before + after)
        offset = math.log(math.expm1(1 - _LEAST_SLOPE))
        self.spline.slopes.copy_(torch.log(torch.expm1((slopes - _LEAST_SLOPE).clamp_min(1e-6))) - offset)
        if self.rotation == "pca":
            y = self.spline(rows.to(self.mean))[0].double()
            self.turn.copy_(torch.linalg.eigh(torch.cov(y.T).reshape(y.shape[1], y.shape[1]))[1].T)
        self.initialized.fill_(True)
        return self

    def extra_repr(self) -> str:
        """What ``print(layer)`` shows."""
        return f"{len(self.mean)}, bins={self.bins}, rotation={self.rotation}"


def _shares(inner: Tensor) -> Tensor:
    """From inner knots ``(D, bins − 1)`` in a box to the share that each of the bins takes of it, ``(D, bins)``."""
    end = torch.full_like(inner[:, :1], _BOX)
    knots = torch.cat([-end, inner.clamp(-_BOX, _BOX), end], 1)
    shares = knots.diff(dim=1) / (2 * _BOX)
    shares = shares.clamp_min(2 * _LEAST_SHARE)
    return shares / shares.sum(1, keepdim=True)


def _thinned(rows: Tensor) -> Tensor:
    """At most 100,000 rows, evenly taken: more do not move a quantile, and sorting them is what costs."""
    return rows[:: max(1, len(rows) // 100_000)]
