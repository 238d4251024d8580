"""Pairs of networks: an arbitrary network f, and a network g that learns to invert it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection, InverseMethod, Shape
from snflow.errors import (
    ConvergenceError,
    check_choice,
    check_context_shape,
    check_count,
    check_event_shape,
    check_shape_kept,
    check_weight,
)
from snflow.numerics.compilation import in_both_directions
from snflow.numerics.devices import structure_device
from snflow.numerics.implicit import implicit_solution
from snflow.numerics.jacobian import Map, along, jacobian, jacobian_log_det, lanczos_log_det, newton_solve, pulled
from snflow.numerics.krylov import gmres
from snflow.numerics.probes import ProbeName, draw_probes, sum_event
from snflow.numerics.transforms import under_transform
from snflow.numerics.undifferentiable import EXACT_IN_EVAL, once_only


@dataclass(frozen=True)
class Surrogate:
    """The terms of a training pass through a pair of networks, each with shape ``(batch,)`` except for z.

    Attributes:
        z: f(x), with shape ``(batch, *event)``.
        log_det: a surrogate whose gradient estimates that of log|det J_f(x)|; its value is meaningless.
        back: g(f(x)), with shape ``(batch, *event)`` and x detached.
        reconstruction: ‖g(f(x)) − x‖², with x detached.
        jacobian: the mean over probes of ‖J_g J_f ν − ν‖², with x detached; zeros if not requested.
    """

    z: Tensor
    log_det: Tensor
    back: Tensor
    reconstruction: Tensor
    jacobian: Tensor


def surrogate(
    forward: Map, inverse: Map, x: Tensor, probes: Tensor, *, with_jacobian: bool, noise: Tensor | None = None
) -> Surrogate:
    """The mean over ν of νᵀ J_g(z) · J_f(x) ν, with the first factor detached.

    The expectation of its gradient with respect to x and the parameters of f is E νᵀ J_g ∂J_f ν = tr(J_g ∂J_f), which
    equals that of log|det J_f| if g is the inverse of f. Each probe costs one vector-Jacobian product of g and one
    Jacobian-vector product of f.

    Args:
        forward: f, applied to each row independently.
        inverse: g, applied to each row independently.
        x: data, with shape ``(batch, *event)``.
        probes: ν, with shape ``(probes, batch, *event)`` and E ννᵀ = I.
        with_jacobian: whether to compute ‖J_g J_f ν − ν‖².
        noise: perturbations of the data; the reconstruction error is then averaged over x and x + noise.

    Returns:
        z and the terms of the objective.

    References:
        Keller et al. (2021), Self Normalizing Flows, section 3.2, eq. 4 and 31; Draxler et al. (2024), Free-form flows.

    Example:
        >>> w = torch.tensor(2.0, requires_grad=True)
        >>> x = torch.ones(1, 1)
        >>> s = surrogate(lambda x: w * x, lambda z: z / w, x, torch.ones(1, 1, 1), with_jacobian=False)
        >>> torch.autograd.grad(s.log_det.sum(), w)[0]  # d log w / dw
        tensor(0.5000)
    """
    stopped = x.detach()
    z, pushed = along(forward, x, probes[0])
    # If x requires a gradient, the penalty needs a separate f(x) through which no gradient flows to x.
    again = forward(stopped) if x.requires_grad else z
    traced = under_transform()
    if not (again.requires_grad or traced):
        again = again.detach().requires_grad_()
    back = inverse(again)
    log_det = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    cycle = torch.zeros_like(log_det)
    for position, probe in enumerate(probes):
        if position:
            pushed = along(forward, x, probe)[1]
        if traced:
            pulled = torch.func.vjp(inverse, again)[1](probe)[0].detach()
        else:
            (pulled,) = torch.autograd.grad(back, again, probe, retain_graph=True)
        log_det = log_det + sum_event(pulled * pushed) / len(probes)
        if with_jacobian:
            there_and_back = along(lambda v: inverse(forward(v)), stopped, probe)[1]
            cycle = cycle + sum_event((there_and_back - probe).square()) / len(probes)
    reconstruction = sum_event((back - stopped).square())
    if noise is not None:
        beside = stopped + noise
        reconstruction = (reconstruction + sum_event((inverse(forward(beside)) - beside).square())) / 2
    return Surrogate(z, log_det, back, reconstruction, cycle)


class _Objective(torch.autograd.Function):
    """0 with the gradient c ∂(surrogate) + |c| ∂(penalty): the penalty is minimized whatever the sign of c."""

    generate_vmap_rule = True

    @staticmethod
    def forward(surrogate: Tensor, penalty: Tensor) -> Tensor:
        return torch.zeros_like(surrogate)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep nothing: the gradient depends on the upstream gradient alone."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return grads[0], grads[0].abs()


_DIFFERENTIATED = in_both_directions("derivatives of its networks cannot be traced for a batch of any size")

NewtonStep = Callable[[Tensor, Tensor], Tensor]

ESTIMATE_PROBES = 8
"""Number of probes for the log-determinant if the Jacobian is too large to form."""


@final
class SelfNormalizing(Bijection):
    """z = f(x) with g(z) ≈ x, for any two networks: ∇log|det J_f| ≈ E_ν νᵀ J_g · ∇J_f ν, no determinant in training.

    In ``train()`` the log-determinant has the gradient c ∂(surrogate) + |c| ∂(λ‖g(f(x)) − x‖² + μ E‖J_g J_f ν − ν‖²),
    c = ∂L/∂log_det, with x detached in both penalties, which are minimized whatever the sign of c; its value is the
    last exact mean. f receives the gradient of the likelihood and of the penalties, g that of the penalties only. This
    gradient cannot be differentiated again. In ``eval()`` value and gradient are exact up to ``exact_dimensions``, from
    the full Jacobian, with D passes and O(D³) per row. Above, the log-determinant is estimated by stochastic Lanczos
    quadrature, without a gradient, and ``log_det_kind`` is ``"estimate"``.

    f is not guaranteed to be injective. If it is not, an inverse may raise an error or find a different x, and the
    density does not integrate to one; ``penalty_spread`` promotes injectivity in a neighborhood of the data.

    The inversion methods ``inverse=`` are ``"exact"`` (Newton's method from g(z), with the full Jacobian up to
    ``exact_dimensions``), ``"learned"`` (g, with log|det J_g|) and ``"refined"`` (x ← x + g(z) − g(f(x)), followed by
    Newton's method with matrix-free GMRES steps, preconditioned by J_g).

    Args:
        forward_net: f, from ``(batch, *event)`` to the same shape, applied to each row independently; with a context,
            f(x, context).
        inverse_net: g, likewise.
        event_shape: the shape of one event, an int for vectors.
        context_shape: the shape of one sample's context, an int for vectors; ``None`` for no context.
        penalty_weight: λ ≥ 0.
        jacobian_penalty: μ ≥ 0.
        penalty_spread: standard deviation of the noise added to half of the points at which the penalty is computed.
            If it is computed only on the data, f may fold where there are no data; a density that counts a fold twice
            integrates to more than one.
        probe: the distribution of ν: ``"rademacher"``, ``"gaussian"`` or ``"orthogonal"``.
        probes: the number of ν per row.
        exact_dimensions: the largest D for which the full Jacobian is formed.

    Shapes:
        x, z: ``(batch, *event)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a weight or a count is out of range, or the probe is unknown.
        ShapeError: a network changes the shape.
        ConvergenceError: in the inverse, f(x) = z was not solved to the required accuracy.

    References:
        Keller et al. (2021), Self Normalizing Flows, section 3.2, eq. 4 and 31; Draxler, Sorrenson, Zimmermann,
        Rousselot, Köthe (2024), Free-form flows: make any architecture a normalizing flow.

    Example:
        >>> import torch, snflow
        >>> from snflow.nets import ResidualMLP
        >>> layer = snflow.SelfNormalizing(ResidualMLP(2, width=16), ResidualMLP(2, width=16), (2,))
        >>> z, log_det = layer(torch.randn(5, 2))
        >>> (0.5 * z.square().sum(1) - log_det).mean().backward()
        >>> z, log_det = layer.eval()(torch.randn(5, 2))  # exact
    """

    has_inversion_methods = True
    uncompiled = _DIFFERENTIATED
    penalty_weight: Tensor
    log_det_value: Tensor
    reconstruction_error: Tensor

    def __init__(
        self,
        forward_net: nn.Module,
        inverse_net: nn.Module,
        event_shape: int | Shape,
        *,
        context_shape: int | Shape | None = None,
        penalty_weight: float = 1.0,
        jacobian_penalty: float = 0.0,
        penalty_spread: float = 0.0,
        probe: ProbeName = "rademacher",
        probes: int = 1,
        exact_dimensions: int = 512,
    ) -> None:
        super().__init__()
        check_weight("SelfNormalizing", "penalty_weight", penalty_weight)
        check_weight("SelfNormalizing", "jacobian_penalty", jacobian_penalty, fix="use 0 for no such penalty")
        check_weight("SelfNormalizing", "penalty_spread", penalty_spread, fix="use 0 for no noise")
        check_choice("SelfNormalizing", "probe", probe, ProbeName)
        check_count("SelfNormalizing", "probes", probes)
        check_count("SelfNormalizing", "exact_dimensions", exact_dimensions)
        self.forward_net, self.inverse_net = forward_net, inverse_net
        self.event_shape = shape = check_event_shape("SelfNormalizing", event_shape)
        self.context_shape = check_context_shape("SelfNormalizing", context_shape)
        self.jacobian_penalty, self.penalty_spread = jacobian_penalty, penalty_spread
        self.probe, self.probes = probe, probes
        self.small = math.prod(shape) <= exact_dimensions
        self.log_det_kind = "exact" if self.small else "estimate"
        self.register_buffer("penalty_weight", torch.tensor(float(penalty_weight)))
        self.register_buffer("log_det_value", torch.tensor(0.0))
        self.register_buffer("reconstruction_error", torch.tensor(0.0, device=structure_device()), persistent=False)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        f, g = self._map(self.forward_net, context), self._map(self.inverse_net, context)
        if not self.training:
            log_det = self._log_det(f, x)
            if len(x) and not under_transform():
                self.log_det_value.copy_(log_det.detach().mean())
            return f(x), log_det
        if not len(x):
            return f(x), x.new_zeros(0)
        probes = draw_probes(self.probe, self.probes, x)
        noise = self.penalty_spread * torch.randn_like(x) if self.penalty_spread > 0 else None
        with torch.enable_grad():
            s = surrogate(f, g, x, probes, with_jacobian=self.jacobian_penalty > 0, noise=noise)
        if not under_transform():
            self.reconstruction_error.copy_(s.reconstruction.detach().mean())
        penalty = self.penalty_weight * s.reconstruction + self.jacobian_penalty * s.jacobian
        zero = once_only(s.z, s.back, where="SelfNormalizing", fix=EXACT_IN_EVAL)
        z, log_det = s.z, self.log_det_value.to(x) + zero + _Objective.apply(s.log_det, penalty)
        return (z, log_det) if torch.is_grad_enabled() else (z.detach(), log_det.detach())

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self._map(self.forward_net, context)(x)

    def _inverse(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> tuple[Tensor, Tensor]:
        x = self._decode(z, context, inverse)
        if inverse == "learned":
            return x, self._log_det(self._map(self.inverse_net, context), z)
        return x, -self._log_det(self._map(self.forward_net, context), x)

    def _decode(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> Tensor:
        f, g = self._map(self.forward_net, context), self._map(self.inverse_net, context)
        if inverse == "learned" or not len(z):
            return g(z)
        with torch.no_grad():
            start = g(z.detach())
            if inverse == "refined" or not self.small:
                start = _fixed_point(f, g, z.detach(), start)
            solution, residual = newton_solve(f, z.detach(), start, self._newton_step(f, g, inverse))
        failed = ~(residual <= 1e3 * torch.finfo(z.dtype).eps ** 0.9)
        if bool(failed.any()):
            raise ConvergenceError(
                "SelfNormalizing",
                expected="an x with f(x) = z",
                got=f"none for {int(failed.sum())} of {len(z)} rows, largest residual {float(residual.amax()):.1e}",
                fix="f may not be invertible: train longer, raise penalty_weight, or use inverse='learned'",
            )
        if not torch.is_grad_enabled():
            return solution
        return implicit_solution(solution, z - f(solution), self._transposed_solve(f, g, solution))

    def _map(self, net: nn.Module, context: Tensor | None) -> Map:
        def run(v: Tensor) -> Tensor:
            out: Tensor = net(v) if context is None else net(v, context)
            check_shape_kept("SelfNormalizing", out.shape, v.shape)
            return out

        return run

    def _log_det(self, function: Map, x: Tensor) -> Tensor:
        if self.small or not len(x):
            return jacobian_log_det(function, x)
        return lanczos_log_det(function, x.detach(), draw_probes("rademacher", ESTIMATE_PROBES, x))

    def _newton_step(self, f: Map, g: Map, inverse: InverseMethod) -> NewtonStep:
        def full(x: Tensor, residual: Tensor) -> Tensor:
            step: Tensor = torch.linalg.solve_ex(jacobian(f, x), residual.flatten(1)[:, :, None]).result
            return step.view_as(residual)

        def krylov(x: Tensor, residual: Tensor) -> Tensor:
            z, least = f(x), 1e-6 * residual.flatten(1).norm(dim=1)
            return gmres(lambda v: along(f, x, v)[1], lambda u: along(g, z, u)[1], residual, least, 30)

        return full if self.small and inverse == "exact" else krylov

    def _transposed_solve(self, f: Map, g: Map, x: Tensor) -> Map:
        def full(v: Tensor) -> Tensor:
            matrix = jacobian(f, x).detach()
            solved: Tensor = torch.linalg.solve(matrix.mT, v.flatten(1)[:, :, None])
            return solved.view_as(v)

        def krylov(v: Tensor) -> Tensor:
            with torch.no_grad():
                z, pull_f = pulled(f, x)
                _, pull_g = pulled(g, z)
                least = 1e-9 * v.flatten(1).norm(dim=1)
                return gmres(pull_f, pull_g, v, least, 60)

        return full if self.small else krylov

    def extra_repr(self) -> str:
        """Return the text shown by ``print(layer)``."""
        return f"{self.event_shape}, penalty_weight={float(self.penalty_weight):g}, probe={self.probe}, {self.probes}"


def _fixed_point(f: Map, g: Map, z: Tensor, x: Tensor, max_iterations: int = 100) -> Tensor:
    """x ← x + g(z) − g(f(x)) as long as each step at least halves the largest change."""
    known = g(z)
    before = math.inf
    for _ in range(max_iterations):
        change = known - g(f(x))
        size = float(change.abs().amax())
        if not size < 0.5 * before:
            break
        x, before = x + change, size
    return x
