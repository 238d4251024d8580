"""The gradient rule of self-normalizing flows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snflow.numerics.operators.dense import Operator
from snflow.numerics.probes import sum_event
from snflow.numerics.transforms import add_scaled, under_transform


@dataclass(frozen=True)
class GradientRule:
    """What a self-normalizing layer puts into its backward pass.

    The defaults are the paper's: ½ log p^f + ½ log p^g − λ‖g(f(h)) − h‖² (Keller et al. 2021, eq. 3).

    Attributes:
        weight_share: the share of the likelihood gradient that w gets.
        inverse_share: the share that r gets; 0 where r is no parameter of the optimizer.
        penalized_weight: whether the penalty has a gradient by w.
        penalized_inverse: whether it has one by r.
        symmetric_penalty: add ‖A(w) A(r) s − s‖² to the penalty, s behind a gradient stop.
        neumann_terms: the number of terms that improve on A(r) ≈ A(w)⁻¹ in the gradient of the log-determinant.
    """

    weight_share: float = 0.5
    inverse_share: float = 0.5
    penalized_weight: bool = True
    penalized_inverse: bool = True
    symmetric_penalty: bool = False
    neumann_terms: int = 0

    @property
    def penalized(self) -> bool:
        """Whether ‖g(f(x)) − x‖² has a gradient at all."""
        return self.penalized_weight or self.penalized_inverse


@dataclass(frozen=True)
class Operators:
    """The two linear operators of a layer: that of f, and that of g, whose kernel may have another size."""

    forward: Operator
    inverse: Operator


def self_normalized(
    x: Tensor,
    weight: Tensor,
    inverse_weight: Tensor,
    penalty_weight: Tensor,
    log_det_value: Tensor,
    operators: Operators,
    rule: GradientRule,
    probes: Tensor | None = None,
    rows: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """s = A(w) x and a log-determinant whose gradient is self-normalized.

    With c_b = ∂L/∂log_det_b, δ = ∂L/∂s, δx = A(w)ᵀ δ, e = A(r) s − x and the paper's shares of one half::

        ∂L/∂w = ½ ∂⟨δ, A(w) x⟩/∂w  + ½ (Σ c_b) ∂tr(A(w) A(r))/∂w + ∂/∂w [−λ Σ c_b ‖A(r) A(w) x_b − x_b‖²]
        ∂L/∂r = −½ ∂⟨δx, A(r) s⟩/∂r − ½ (Σ c_b) ∂tr(A(w) A(r))/∂r + ∂/∂r [−λ Σ c_b ‖A(r) A(w) x_b − x_b‖²]
        ∂L/∂x = δx

    where x is constant inside of the penalty. For a dense layer ∂tr(WR)/∂W = Rᵀ, for a convolution flip(r) ⊙ m.
    Every term scales with the upstream gradient: the loss may be in nats, in bits/dim, or scaled for half precision.

    With probes ν, E ννᵀ = I, and K Neumann terms, A(w)⁻¹ ≈ Σₖ≤K (I − A(r) A(w))ᵏ A(r) takes the place of A(r) in the
    gradient by w: the terms k ≥ 1 are the mean over the probes of ∂⟨ν, A(w) uₖ⟩/∂w, uₖ = (I − A(r) A(w))ᵏ A(r) ν.

    Args:
        x: data, with shape ``(batch, *event)``.
        weight: w.
        inverse_weight: r.
        penalty_weight: λ, a scalar.
        log_det_value: the value to return, in nats, a scalar.
        operators: A of w and A of r.
        rule: the shares and options.
        probes: ν, with shape ``(probes, *event)``; needed for Neumann terms only.
        rows: the numbers of k rows of the batch ``(k,)`` on which alone the penalty is taken, times batch/k: where
            they are drawn at random, its gradient is right on average. ``None`` for all rows.

    Returns:
        s ``(batch, *event)``, log_det ``(batch,)`` in nats, and the squared reconstruction error
        ‖A(r) A(w) x − x‖² ``(batch,)``, or ``(k,)`` of the given rows, without gradient; zeros where the rule has no
        penalty.

    References:
        Keller et al. (2021), Self Normalizing Flows, eq. 8–11, eq. 15–16, A.1, A.2, eq. 28–30.

    Example:
        >>> from snflow.numerics.operators.dense import DenseOperator, TransposedDenseOperator
        >>> eye, one = torch.eye(2), torch.tensor(1.0)
        >>> dense = Operators(DenseOperator(), TransposedDenseOperator())
        >>> s, log_det, error = self_normalized(torch.ones(3, 2), 2 * eye, eye / 2, one, one, dense, GradientRule())
        >>> s[0], error
        (tensor([2., 2.]), tensor([0., 0., 0.]))
    """
    function = _Transformed if under_transform() else _SelfNormalized
    s, log_det, squared, *_ = function.apply(
        x, weight, inverse_weight, penalty_weight, log_det_value, probes, rows, operators, rule
    )
    return s, log_det, squared


class _SelfNormalized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        s, log_det, squared, error = _values(*inputs)
        _save(ctx, inputs, s, error)
        ctx.mark_non_differentiable(squared)
        return s, log_det, squared

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, s, error, weight, inverse_weight, penalty_weight, probes, rows = ctx.saved_tensors
        a, g, rule = ctx.operators.forward, ctx.operators.inverse, ctx.rule
        grad_s, grad_log_det, _ = grads
        total = grad_log_det.sum()
        event_shape = tuple(x.shape[1:])

        grad_x = a.transposed_product(weight, grad_s)
        into_weight: Tensor | None = None
        into_inverse: Tensor | None = None
        cycle: Tensor | None = None
        if error is not None:
            # Both penalties are quadratic: their gradients start from −2λ c_b times an error.
            counted = -2 * penalty_weight * (x.shape[0] / error.shape[0])
            scale = (counted * _of(grad_log_det, rows)).reshape(-1, *[1] * (x.dim() - 1))
            pull = scale * error
            if ctx.needs_input_grad[2] and rule.penalized_inverse:
                into_inverse = _add(pull, rows, grad_x, -rule.inverse_share)
            if rule.penalized_weight and rows is None:
                into_weight = g.transposed_product(inverse_weight, pull, grad_s, rule.weight_share)
            elif rule.penalized_weight:
                into_weight = _add(g.transposed_product(inverse_weight, pull), rows, grad_s, rule.weight_share)
            if rule.symmetric_penalty:
                # A(w) A(r) s − s = A(w) (A(r) s − x), since s = A(w) x
                cycle = scale * a.product(weight, error)
                if into_inverse is not None and rule.penalized_inverse:
                    into_inverse = _add(a.transposed_product(weight, cycle), rows, into_inverse, 1.0)

        into_weight = rule.weight_share * grad_s if into_weight is None else into_weight
        if into_inverse is None and ctx.needs_input_grad[2]:
            into_inverse = -rule.inverse_share * grad_x

        grad_weight = a.weight_gradient(weight, x, into_weight)
        a.add_trace_gradient(grad_weight, inverse_weight, rule.weight_share * total, event_shape)
        if probes is not None:
            terms = _neumann(weight, inverse_weight, probes, ctx.operators, rule)
            add_scaled(grad_weight, terms, rule.weight_share * total)
        if cycle is not None and rule.penalized_weight:
            grad_weight += a.weight_gradient(weight, error + _of(x, rows), cycle)

        grad_inverse: Tensor | None = None
        if into_inverse is not None:
            grad_inverse = g.weight_gradient(inverse_weight, s, into_inverse)
            g.add_trace_gradient(grad_inverse, weight, -rule.inverse_share * total, event_shape)
        return grad_x, grad_weight, grad_inverse, None, None, None, None, None, None


class _Transformed(torch.autograd.Function):
    """The same in the form that the transforms of torch.func ask for, which costs a plain call some time."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return tuple(part for part in _values(*inputs) if part is not None)  # e too: what is saved must come out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        s, _, *rest = output
        _save(ctx, inputs, s, rest[1] if len(rest) > 1 else None)
        ctx.mark_non_differentiable(*rest)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        found: tuple[Tensor | None, ...] = _SelfNormalized.backward(ctx, *grads[:3])
        return found


def _values(
    x: Tensor,
    weight: Tensor,
    inverse_weight: Tensor,
    _penalty_weight: Tensor,
    log_det_value: Tensor,
    _probes: Tensor | None,
    rows: Tensor | None,
    operators: Operators,
    rule: GradientRule,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """s, the log-determinant, ‖e‖², and e = A(r) s − x where there is a penalty: of all inputs of the function."""
    s = operators.forward.product(weight, x)
    error = operators.inverse.product(inverse_weight, _of(s, rows), _of(x, rows), -1.0) if rule.penalized else None
    squared = x.new_zeros(x.shape[0]) if error is None else sum_event(error.square())
    return s, log_det_value.to(x.dtype).expand(x.shape[0]).clone(), squared, error


def _save(ctx: Any, inputs: tuple[Any, ...], s: Tensor, error: Tensor | None) -> None:
    x, weight, inverse_weight, penalty_weight, _, probes, rows, ctx.operators, ctx.rule = inputs
    ctx.save_for_backward(x, s, error, weight, inverse_weight, penalty_weight, probes, rows)


def _of(values: Tensor, rows: Tensor | None) -> Tensor:
    return values if rows is None else values.index_select(0, rows)


def _add(some: Tensor, rows: Tensor | None, to: Tensor, factor: float) -> Tensor:
    """``factor * to``, with ``some`` added in its rows."""
    # A subtraction: Inductor (torch 2.11 and 2.13) fuses mm and add into addmm and loses the add's alpha on the way.
    return torch.sub(some, to, alpha=-factor) if rows is None else (factor * to).index_add_(0, rows, some)


def _neumann(
    weight: Tensor, inverse_weight: Tensor, probes: Tensor, operators: Operators, rule: GradientRule
) -> Tensor:
    """The mean over probes ν of ∂⟨ν, A(w) Σₖ≥₁ (I − A(r) A(w))ᵏ A(r) ν⟩/∂w, with the shape of w."""
    a, g = operators.forward, operators.inverse
    term = g.product(inverse_weight, probes)
    total = torch.zeros_like(term)
    for _ in range(rule.neumann_terms):
        term = term - g.product(inverse_weight, a.product(weight, term))
        total += term
    return a.weight_gradient(weight, total, probes / len(probes))
