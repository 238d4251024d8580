"""The self-normalized gradient: the learned inverse R stands in for W⁻¹, and no determinant is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snflow.numerics.events import sum_event
from snflow.numerics.operators import Operator
from snflow.selfnorm.tracking import InverseTracking


@dataclass(frozen=True)
class GradientRule:
    """What a self-normalizing layer puts into its backward pass.

    Attributes:
        tracking: the shares of the likelihood gradient.
        symmetric_penalty: add ‖W R s − s‖² to the penalty, s behind a gradient stop.
        penalty_only_inverse: keep the penalty from W.
    """

    tracking: InverseTracking
    symmetric_penalty: bool = False
    penalty_only_inverse: bool = False


def self_normalized(
    x: Tensor,
    weight: Tensor,
    inverse_weight: Tensor,
    penalty_weight: Tensor,
    log_det_value: Tensor,
    operator: Operator,
    rule: GradientRule,
) -> tuple[Tensor, Tensor, Tensor]:
    """s = A(w) x and a log-determinant whose gradient is self-normalized.

    With c_b = ∂L/∂log_det_b, δ = ∂L/∂s, δx = A(w)ᵀ δ, e = A(r) s − x and shares of one half::

        ∂L/∂w = ½ ∂⟨δ, A(w) x⟩/∂w  + ½ (Σ c_b) ∂tr(A(w) A(r))/∂w + ∂/∂w [−λ Σ c_b ‖A(r) A(w) x_b − x_b‖²]
        ∂L/∂r = −½ ∂⟨δx, A(r) s⟩/∂r − ½ (Σ c_b) ∂tr(A(w) A(r))/∂r + ∂/∂r [−λ Σ c_b ‖A(r) A(w) x_b − x_b‖²]
        ∂L/∂x = δx

    where x is constant inside of the penalty. For a dense layer ∂tr(WR)/∂W = Rᵀ, for a convolution flip(r) ⊙ m.
    Every term scales with the upstream gradient: the loss may be in nats, in bits/dim, or scaled for half precision.

    Args:
        x: data, with shape ``(batch, *event)``.
        weight: w.
        inverse_weight: r, with the shape of w.
        penalty_weight: λ, a scalar.
        log_det_value: the value to return, in nats, a scalar.
        operator: A.
        rule: the shares and options.

    Returns:
        s ``(batch, *event)``, log_det ``(batch,)`` in nats, and the squared reconstruction error
        ‖A(r) A(w) x − x‖² ``(batch,)``, without gradient.

    References:
        Keller et al. (2021), Self Normalizing Flows, eq. 8–11, eq. 15–16, A.1, A.2.

    Example:
        >>> from snflow.numerics.operators import DenseOperator
        >>> from snflow.selfnorm.tracking import TRACKINGS
        >>> eye, one = torch.eye(2), torch.tensor(1.0)
        >>> s, log_det, error = self_normalized(
        ...     torch.ones(3, 2), 2 * eye, eye / 2, one, one, DenseOperator(), GradientRule(TRACKINGS["penalty"]))
        >>> s[0], error
        (tensor([2., 2.]), tensor([0., 0., 0.]))
    """
    s, log_det, error = _SelfNormalized.apply(x, weight, inverse_weight, penalty_weight, log_det_value, operator, rule)
    return s, log_det, error


class _SelfNormalized(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        inverse_weight: Tensor,
        penalty_weight: Tensor,
        log_det_value: Tensor,
        operator: Operator,
        rule: GradientRule,
    ) -> tuple[Tensor, Tensor, Tensor]:
        s = operator.product(weight, x)
        error = operator.product(inverse_weight, s) - x
        squared = sum_event(error.square())
        ctx.save_for_backward(x, s, error, weight, inverse_weight, penalty_weight)
        ctx.operator, ctx.rule = operator, rule
        ctx.mark_non_differentiable(squared)
        return s, log_det_value.to(x.dtype).expand(x.shape[0]).clone(), squared

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, s, error, weight, inverse_weight, penalty_weight = ctx.saved_tensors
        operator: Operator = ctx.operator
        rule: GradientRule = ctx.rule
        grad_s, grad_log_det, _ = grads
        total = grad_log_det.sum()
        event_shape = tuple(x.shape[1:])
        tracking = rule.tracking

        grad_x = operator.transposed_product(weight, grad_s)
        # Both penalties are quadratic: their gradients start from −2λ c_b times an error.
        scale = (-2 * penalty_weight * grad_log_det).reshape(-1, *[1] * (x.dim() - 1))
        into_weight = tracking.weight_share * grad_s
        into_inverse = -tracking.inverse_share * grad_x
        cycle: Tensor | None = None
        if tracking.penalized:
            pull = scale * error
            into_inverse = into_inverse + pull
            if not rule.penalty_only_inverse:
                into_weight = into_weight + operator.transposed_product(inverse_weight, pull)
            if rule.symmetric_penalty:
                # W R s − s = W (R s − x), since s = W x
                cycle = scale * operator.product(weight, error)
                into_inverse = into_inverse + operator.transposed_product(weight, cycle)

        grad_weight = operator.weight_gradient(weight, x, into_weight)
        trace = operator.trace_gradient(inverse_weight, event_shape)
        grad_weight.addcmul_(trace, tracking.weight_share * total)
        if cycle is not None and not rule.penalty_only_inverse:
            grad_weight += operator.weight_gradient(weight, error + x, cycle)

        grad_inverse: Tensor | None = None
        if ctx.needs_input_grad[2]:
            grad_inverse = operator.weight_gradient(inverse_weight, s, into_inverse)
            trace = operator.trace_gradient(weight, event_shape)
            grad_inverse.addcmul_(trace, -tracking.inverse_share * total)
        return grad_x, grad_weight, grad_inverse, None, None, None, None
