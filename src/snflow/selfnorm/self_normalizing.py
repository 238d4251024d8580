"""A free linear operator beside a learned inverse: what every self-normalizing layer has in common."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from snflow.arguments import check_choice, check_weight
from snflow.bijections.base import Shape, ShapePattern
from snflow.bijections.linear.linear_map import LinearMap
from snflow.numerics.implicit import implicit_solution
from snflow.numerics.krylov import refine
from snflow.numerics.operators import Operator
from snflow.selfnorm.gradient import GradientRule, self_normalized
from snflow.selfnorm.inversion import InverseMethod
from snflow.selfnorm.tracking import TRACKINGS, TrackingName


class SelfNormalizingMap(LinearMap):
    """z = A(w) x + b beside g(z) = A(r)(z − b) ≈ x: abstract parent of the self-normalizing layers.

    In ``train()`` the log-determinant carries the gradient of :func:`~snflow.selfnorm.gradient.self_normalized` and
    the last exact value. In ``eval()`` value and gradient are exact. Going back, ``inverse_method`` chooses:
    ``"exact"`` (a factorisation, the default), ``"learned"`` (g, one pass, with log|det A(r)|), ``"refined"`` (an
    iterative solve that g preconditions, without a factorisation when only x is asked for, see ``decode``).

    Attributes:
        inverse_weight: r, with the shape of the weight.
        penalty_weight: λ ≥ 0, a buffer.
        inverse_method: the way back; :func:`~snflow.inverting` sets it for a whole flow.
        refine_tolerance: the relative residual at which ``"refined"`` stops; ``None`` is about what the dtype holds.
        reconstruction_error: mean of ‖g(f(x)) − x‖² over the last training batch, a scalar.
    """

    inverse_weight: nn.Parameter
    penalty_weight: Tensor
    reconstruction_error: Tensor

    def __init__(
        self,
        operator: Operator,
        weight: Tensor,
        *,
        bias: bool,
        event_shape: ShapePattern,
        penalty_weight: float,
        symmetric_penalty: bool,
        penalty_only_inverse: bool,
        inverse_tracking: TrackingName,
    ) -> None:
        super().__init__(operator, weight, bias=bias, event_shape=event_shape)
        check_weight(self.label, "penalty_weight", penalty_weight)
        check_choice(self.label, "inverse_tracking", inverse_tracking, TrackingName)
        self.inverse_weight = nn.Parameter(operator.transpose(weight).clone(memory_format=torch.contiguous_format))
        self.register_buffer("penalty_weight", torch.tensor(float(penalty_weight), dtype=weight.dtype))
        self.register_buffer("reconstruction_error", torch.zeros(()), persistent=False)
        self.rule = GradientRule(TRACKINGS[inverse_tracking], symmetric_penalty, penalty_only_inverse)
        self.inverse_method: InverseMethod = "exact"
        self.refine_tolerance: float | None = None

    def learned_log_det(self, event_shape: Shape) -> Tensor:
        """log|det A(r)| in nats for events of ``event_shape``, a scalar, exact in value and gradient."""
        return self._exact_log_det("inverse_weight", event_shape)

    def inverse_residual(self, event_shape: Shape, probes: int = 8) -> Tensor:
        """‖A(r) A(w) − I‖_F / √D, estimated from Rademacher probes v as √ mean ‖A(r) A(w) v − v‖² / D.

        Args:
            event_shape: the shape of one event, of D elements.
            probes: the number of probes.

        Returns:
            The estimate, a scalar without gradient.
        """
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(2, (probes, *event_shape), generator=generator)
        with torch.no_grad():
            v = (2 * signs - 1).to(self.weight)
            error = self.operator.product(self.inverse_weight, self.operator.product(self.weight, v)) - v
            return error.square().mean().sqrt()

    def _training_forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s, log_det, error = self_normalized(
            x,
            self.weight,
            self.inverse_weight,
            self.penalty_weight,
            self._last_log_det(tuple(x.shape[1:])),
            self.operator,
            self.rule,
        )
        self.reconstruction_error.copy_(error.detach().mean())
        return s, log_det

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        event_shape = tuple(z.shape[1:])
        learned = self.inverse_method == "learned"
        log_det = self.learned_log_det(event_shape) if learned else -self.exact_log_det(event_shape)
        return self._decode(z, context), log_det.expand(z.shape[0])

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        y = self._unbiased(z)
        if self.inverse_method == "learned":
            return self.operator.product(self.inverse_weight, y)
        return self._refine(y) if self.inverse_method == "refined" else self._solve(y)

    def _refine(self, y: Tensor) -> Tensor:
        a, w, r = self.operator, self.weight.detach(), self.inverse_weight.detach()
        solve = partial(refine, owner=self.label, tolerance=self.refine_tolerance)
        with torch.no_grad():
            solution = solve(lambda x: a.product(w, x), lambda v: a.product(r, v), y.detach())
        if not torch.is_grad_enabled():
            return solution
        return implicit_solution(
            solution,
            y - a.product(self.weight, solution),
            lambda v: solve(lambda x: a.transposed_product(w, x), lambda u: a.transposed_product(r, u), v),
        )

    def extra_repr(self) -> str:
        """What ``print(layer)`` shows."""
        options = f"bias={self.bias is not None}, penalty_weight={float(self.penalty_weight):g}"
        return f"{', '.join(map(str, self.weight.shape[1:]))}, {options}"
