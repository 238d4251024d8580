"""Invertible residual layers."""

from __future__ import annotations

import math
from typing import Literal, final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection, Shape
from snflow.errors import (
    ConfigError,
    check_choice,
    check_context_shape,
    check_count,
    check_event_shape,
    check_shape_kept,
)
from snflow.numerics.compilation import in_both_directions
from snflow.numerics.fixed_point import implicit_fixed_point
from snflow.numerics.jacobian import Map, jacobian_log_det, jacobian_of, roulette_weights, series_log_det
from snflow.numerics.probes import draw_probes
from snflow.numerics.transforms import under_transform

SeriesName = Literal["auto", "unbiased", "truncated", "exact"]
"""How log|det(I + J_g)| is computed in training."""

_SMALL = 3
"""Number of elements up to which the full Jacobian costs no more than a series."""
_EVAL_TERMS = 20
"""Number of terms that are always included in ``eval()``, where variance matters more than speed."""

_KEPT = in_both_directions("its norms are kept until a weight changes, and its series ends at random")


@final
class InvertibleResidual(Bijection):
    """z = x + g(x), ‖J_g‖ < 1, log|det(I + J_g)| = Σₖ (−1)ᵏ⁺¹ tr(J_gᵏ)/k, for any contractive network g.

    In ``train()`` the traces are estimated with random vectors, and the series has either a random number of terms,
    weighted by their inverse probabilities (``"unbiased"``), or a fixed number (``"truncated"``, biased); with
    ``"exact"``, the log-determinant is computed from the full Jacobian instead. The gradient is a Neumann series, whose
    memory does not grow with the number of terms. In ``eval()`` value and gradient are exact up to
    ``exact_dimensions``, at the cost of D passes and O(D³) per row; above, the log-determinant is an unbiased estimate
    and ``log_det_kind`` is ``"estimate"``.

    The inverse is the fixed point of x = z − g(x), computed by Anderson acceleration until each row has converged;
    gradients are those of the exact solution.

    Args:
        net: g, from ``(batch, *event)`` to the same shape; with a context, g(x, context). Its Lipschitz constant must
            be below one: see :class:`~snflow.nets.LipschitzNet`.
        event_shape: the shape of one event; an int D for vectors ``(D,)``.
        context_shape: C of context vectors, or the shape of one sample's context; ``None`` for no context.
        log_det: the method in training, ``"unbiased"``, ``"truncated"`` or ``"exact"``; ``"auto"`` is ``"exact"`` for
            D ≤ 3 and ``"unbiased"`` above.
        terms: number of terms of the truncated series, or of the terms that the unbiased series always includes.
        probes: number of random vectors per row.
        exact_dimensions: the largest D for which ``eval()`` computes the full Jacobian.

    Shapes:
        x, z: ``(batch, *event)``; context: ``(batch, *context_shape)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a count below one, an unknown option, or a network whose Lipschitz bound is one or more.
        ShapeError: the network changes the shape.
        ConvergenceError: the inverse did not converge for some rows, where g is not contractive.

    References:
        Behrmann et al. (2019), Invertible residual networks; Chen et al. (2019), Residual flows, eq. 6 and 8.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.InvertibleResidual(snflow.nets.LipschitzNet((3,)), (3,)).eval()
        >>> x = torch.randn(4, 3)
        >>> torch.allclose(layer.decode(layer(x)[0]), x, atol=1e-4)
        True
    """

    uncompiled = _KEPT

    def __init__(
        self,
        net: nn.Module,
        event_shape: int | Shape,
        *,
        context_shape: int | Shape | None = None,
        log_det: SeriesName = "auto",
        terms: int = 2,
        probes: int = 1,
        exact_dimensions: int = 256,
    ) -> None:
        super().__init__()
        check_choice("InvertibleResidual", "log_det", log_det, SeriesName)
        for option, count in (("terms", terms), ("probes", probes), ("exact_dimensions", exact_dimensions)):
            check_count("InvertibleResidual", option, count)
        bound = getattr(net, "lipschitz", None)
        if bound is not None and not bound < 1:
            raise ConfigError(
                "InvertibleResidual", expected="a network with a bound below one", got=str(bound), fix="use 0.97"
            )
        self.net = net
        shape = check_event_shape("InvertibleResidual", event_shape)
        self.event_shape = shape
        self.context_shape = check_context_shape("InvertibleResidual", context_shape)
        size = math.prod(shape)
        self.series: SeriesName = ("exact" if size <= _SMALL else "unbiased") if log_det == "auto" else log_det
        self.terms, self.probes = terms, probes
        self.small = size <= exact_dimensions
        self.log_det_kind = "exact" if self.small else "estimate"

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        g = self._map(context)
        if self._takes_jacobian():
            return self._exact(g, x)
        change, log_det = self._estimated(g, x)
        return x + change, log_det

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, g = self._decode(z, context), self._map(context)
        return x, -(self._exact(g, x) if self._takes_jacobian() else self._estimated(g, x))[1]

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        g = self._map(context)
        return implicit_fixed_point(lambda x: z - g(x), z, where="InvertibleResidual", iterations=500)

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        return x + self._map(context)(x)

    def estimated_log_det(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log|det(I + J_g)| as estimated in training, with new random vectors at each call.

        Args:
            x: data, with shape ``(batch, *event)``.
            context: as in :meth:`forward`.

        Returns:
            Estimates in nats, with shape ``(batch,)``.
        """
        return self._estimated(self._map(context), x)[1]

    def _takes_jacobian(self) -> bool:
        return self.series == "exact" if self.training else self.small

    def _exact(self, g: Map, x: Tensor) -> tuple[Tensor, Tensor]:
        """z and its log-determinant, from the full Jacobian."""
        if not len(x):
            return x + g(x), x.new_zeros(0)
        if under_transform():  # a transform differentiates functions, not tensors
            return x + g(x), jacobian_log_det(lambda v: v + g(v), x)
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            at = x if x.requires_grad else x.detach().requires_grad_()
            z = at + g(at)
            with torch.set_grad_enabled(differentiable):
                log_det: Tensor = torch.linalg.slogdet(jacobian_of(z, at)).logabsdet
        return (z, log_det) if differentiable else (z.detach(), log_det)

    def _estimated(self, g: Map, x: Tensor) -> tuple[Tensor, Tensor]:
        if not len(x):
            return g(x), x.new_zeros(0)
        certain = self.terms if self.training or self.small else max(self.terms, _EVAL_TERMS)
        weights = [1.0] * certain if self.series == "truncated" else roulette_weights(certain)
        return series_log_det(g, x, draw_probes("rademacher", self.probes, x), weights)

    def _map(self, context: Tensor | None) -> Map:
        def run(v: Tensor) -> Tensor:
            out: Tensor = self.net(v) if context is None else self.net(v, context)
            check_shape_kept("InvertibleResidual", out.shape, v.shape)
            return out

        return run

    def extra_repr(self) -> str:
        """Show the shape and the series."""
        return f"{self.event_shape}, {self.series}, terms={self.terms}"


def log_det_spread(
    layer: InvertibleResidual, x: Tensor, context: Tensor | None = None, repeats: int = 64
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a layer's estimates of one log-determinant.

    Args:
        layer: the layer.
        x: data, with shape ``(batch, *event)``.
        context: as in the layer's ``forward``.
        repeats: number of estimates, two or more.

    Returns:
        Both in nats, with shape ``(batch,)``; the standard error of the mean is the standard deviation / √repeats.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.InvertibleResidual(snflow.nets.LipschitzNet((4,)), (4,)).eval()
        >>> mean, std = log_det_spread(layer, torch.randn(3, 4))
        >>> bool((std < 1).all())
        True
    """
    with torch.no_grad():
        drawn = torch.stack([layer.estimated_log_det(x, context) for _ in range(repeats)])
    return drawn.mean(0), drawn.std(0)
