"""The gradient rule of self-normalizing flows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from snflow.errors import GradientError
from snflow.numerics.operators.dense import Operator
from snflow.numerics.probes import sum_event
from snflow.numerics.transforms import add_scaled, under_transform
from snflow.numerics.undifferentiable import EXACT_IN_EVAL, undifferentiable

Symmetric = bool | Literal["through"]
"""Whether, and how, the penalty contains ‖f(g(z)) − z‖²."""


@dataclass(frozen=True)
class GradientRule:
    """Options of the gradient of a self-normalizing layer.

    The defaults correspond to the objective of the paper, ½ log p^f + ½ log p^g − λ‖g(f(h)) − h‖² (Keller et al. 2021,
    eq. 3).

    Attributes:
        weight_share: factor of the likelihood gradient with respect to w.
        inverse_share: factor of the likelihood gradient with respect to r; 0 if r is not a parameter.
        penalized_weight: whether the gradient of the penalty with respect to w is included.
        penalized_inverse: whether the gradient of the penalty with respect to r is included.
        symmetric: whether ‖A(w) A(r) s − s‖², with s detached, is added to the penalty; with ``"through"``, s is not
            detached, and both terms are halved.
        samples: number of rows of a batch on which the penalty is computed; ``None`` for all.
        neumann_terms: number of correction terms to A(r) ≈ A(w)⁻¹ in the gradient of the log-determinant.
        neumann_probes: number of random vectors used to estimate these terms.
    """

    weight_share: float = 0.5
    inverse_share: float = 0.5
    penalized_weight: bool = True
    penalized_inverse: bool = True
    symmetric: Symmetric = False
    samples: int | None = None
    neumann_terms: int = 0
    neumann_probes: int = 8

    @property
    def penalized(self) -> bool:
        """Whether the gradient of ‖g(f(x)) − x‖² is included for w or r."""
        return self.penalized_weight or self.penalized_inverse


@dataclass(frozen=True)
class Operators:
    """The linear operators of f and g; the kernels of the two may differ in size."""

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

    With c_b = ∂L/∂log_det_b, δ = ∂L/∂s, δx = A(w)ᵀ δ, e = A(r) s − x and the default factors of one half::

        ∂L/∂w = ½ ∂⟨δ, A(w) x⟩/∂w  + ½ (Σ c_b) ∂tr(A(w) A(r))/∂w + ∂/∂w [λ Σ |c_b| ‖A(r) A(w) x_b − x_b‖²]
        ∂L/∂r = −½ ∂⟨δx, A(r) s⟩/∂r − ½ (Σ c_b) ∂tr(A(w) A(r))/∂r + ∂/∂r [λ Σ |c_b| ‖A(r) A(w) x_b − x_b‖²]
        ∂L/∂x = δx

    where x is detached in the penalty. The likelihood's part has the sign of c_b; the penalty is always minimized,
    whether the loss is a negative log-likelihood (c_b < 0) or a reverse Kullback-Leibler divergence, in which log_prob
    has a plus. ∂tr(A(w) A(r))/∂w is Rᵀ for a dense layer, and flip(r) ⊙ m for a convolution.
    Every term scales with the upstream gradient: the loss may be in nats, in bits per dimension, or scaled for half
    precision.

    With probes ν, E ννᵀ = I, and K Neumann terms, A(w)⁻¹ ≈ Σₖ≤K (I − A(r) A(w))ᵏ A(r) replaces A(r) in the gradient
    with respect to w. The terms with k ≥ 1 are estimated by the mean over the probes of ∂⟨ν, A(w) uₖ⟩/∂w,
    uₖ = (I − A(r) A(w))ᵏ A(r) ν.

    Args:
        x: data, with shape ``(batch, *event)``.
        weight: w.
        inverse_weight: r.
        penalty_weight: λ, a scalar.
        log_det_value: the value to return, in nats, a scalar.
        operators: the operators A(w) and A(r).
        rule: options of the gradient.
        probes: ν, with shape ``(probes, *event)``; required only for Neumann terms.
        rows: indices ``(k,)`` of the rows on which the penalty is computed, weighted by batch/k: its gradient is
            unbiased if they are drawn at random. ``None`` for all rows.

    Returns:
        s ``(batch, *event)``, log_det ``(batch,)`` in nats, and the squared reconstruction error
        ‖A(r) A(w) x − x‖², without gradient, with shape ``(batch,)``, or ``(k,)`` for the given rows; zeros if the rule
        has no penalty.

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
    if torch.compiler.is_compiling():
        apply = _SelfNormalized.apply
    elif under_transform():
        apply = _InBothModes.apply
    else:
        # torch.autograd.Function extends the apply of its base class for transforms only: it binds the arguments by
        # inspect.signature, which takes as long as a product of small matrices.
        apply = super(torch.autograd.Function, _InBothModes).apply
    s, log_det, squared, _ = apply(
        x, weight, inverse_weight, penalty_weight, log_det_value, operators, rule, probes, rows
    )
    return s, log_det, squared


class _Saved(NamedTuple):
    """The tensors that the backward pass needs."""

    x: Tensor
    weight: Tensor
    inverse_weight: Tensor
    penalty_weight: Tensor
    probes: Tensor | None
    rows: Tensor | None
    s: Tensor
    error: Tensor


class _SelfNormalized(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        inverse_weight: Tensor,
        penalty_weight: Tensor,
        log_det_value: Tensor,
        operators: Operators,
        rule: GradientRule,
        probes: Tensor | None,
        rows: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return s, the log-determinant, ‖e‖² and e = A(r) s − x, which is empty if there is no penalty."""
        s = operators.forward.product(weight, x)
        log_det = log_det_value.to(x.dtype).expand(x.shape[0]).clone()
        if not rule.penalized:
            return s, log_det, x.new_zeros(x.shape[0]), x.new_zeros(0)
        error = operators.inverse.product(inverse_weight, _of(s, rows), _of(x, rows), -1.0)
        return s, log_det, sum_event(error.square()), error

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        x, weight, inverse_weight, penalty_weight, _, ctx.operators, ctx.rule, probes, rows = inputs
        s, _, squared, error = output
        ctx.save_for_backward(*_Saved(x, weight, inverse_weight, penalty_weight, probes, rows, s, error))
        ctx.mark_non_differentiable(squared, error)

    @staticmethod
    def backward(ctx: Any, grad_s: Tensor | None, grad_log_det: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        saved, rule = _Saved(*ctx.saved_tensors), ctx.rule
        grad_s = torch.zeros_like(saved.s) if grad_s is None else grad_s
        grad_log_det = saved.s.new_zeros(saved.s.shape[0]) if grad_log_det is None else grad_log_det
        grad_x = ctx.operators.forward.transposed_product(_exact(saved.weight, rule), grad_s)
        trains = ctx.needs_input_grad[1:3]
        with torch.no_grad():
            found = _weight_gradients(saved, ctx.operators, rule, grad_x, grad_s, grad_log_det, trains)
        on = (grad_s, grad_log_det, saved.x, saved.weight, saved.inverse_weight)
        by_weights = (None if gradient is None else undifferentiable(gradient, *on, **_REFUSAL) for gradient in found)
        return grad_x, *by_weights, None, None, None, None, None, None


class _InBothModes(_SelfNormalized):
    """The same with derivatives in forward mode, which ``torch.compile`` does not support."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        _SelfNormalized.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[1])
        ctx.set_materialize_grads(False)  # a weight without a tangent differs from one whose tangent is zero

    @staticmethod
    def jvp(
        ctx: Any, x: Tensor | None, weight: Tensor | None, inverse_weight: Tensor | None, *_: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        if x is None or weight is not None or inverse_weight is not None:
            raise GradientError(expected="derivatives by the weights in reverse mode", got="forward mode", **_REFUSAL)
        s = ctx.operators.forward.product(_exact(ctx.saved_tensors[0], ctx.rule), x)
        return s, s.new_zeros(s.shape[0]), None, None


_REFUSAL = {"where": "the self-normalized gradient", "fix": EXACT_IN_EVAL}


def learned_solution(
    y: Tensor, weight: Tensor, inverse_weight: Tensor, log_det_value: Tensor, operators: Operators
) -> tuple[Tensor, Tensor]:
    """x = A(r) y with the derivative dx = A(r)(dy − dA(w) x) of the solution of A(w) x = y, for an r that follows w.

    With A(r) = A(w)⁻¹ all first derivatives are those of the exact inverse. Second derivatives that involve w raise an
    error, since the derivative of r is not known.

    Args:
        y: with shape ``(batch, *event)``.
        weight: w.
        inverse_weight: r.
        log_det_value: log|det A(r)| in nats, a scalar.
        operators: the operators A(w) and A(r).

    Returns:
        x, and log|det A(r)| with the derivative −tr(A(r) dA(w)), with shape ``(batch,)``.

    Example:
        >>> from snflow.numerics.operators.dense import DenseOperator, TransposedDenseOperator
        >>> w, y = torch.full((1, 1), 2.0, requires_grad=True), torch.ones(1, 1)
        >>> dense = Operators(DenseOperator(), TransposedDenseOperator())
        >>> x, log_det = learned_solution(y, w, 1 / w.detach(), torch.tensor(0.5).log(), dense)
        >>> torch.autograd.grad([x, log_det], w, [torch.ones(1, 1), torch.ones(1)])[0]  # −y/w² − 1/w
        tensor([[-0.7500]])
    """
    function = _LearnedSolution if torch.compiler.is_compiling() else _LearnedSolutionInBothModes
    x, log_det = function.apply(y, weight, inverse_weight, log_det_value, operators)
    return x, log_det


class _LearnedSolution(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        y: Tensor, weight: Tensor, inverse_weight: Tensor, log_det_value: Tensor, operators: Operators
    ) -> tuple[Tensor, Tensor]:
        return operators.inverse.product(inverse_weight, y), log_det_value.to(y.dtype).expand(y.shape[0]).clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, weight, inverse_weight, _, ctx.operators = inputs
        ctx.save_for_backward(weight, inverse_weight, output[0])

    @staticmethod
    def backward(ctx: Any, grad_x: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        weight, inverse_weight, x = ctx.saved_tensors
        a, g = ctx.operators.forward, ctx.operators.inverse
        following = undifferentiable(inverse_weight, weight, **_LEARNED)
        grad_y = g.transposed_product(following, grad_x)
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = a.weight_gradient(weight, x, -grad_y)
            grad_weight = grad_weight - grad_log_det.sum() * a.trace_gradient(following, tuple(x.shape[1:]))
        return grad_y, grad_weight, None, None, None


class _LearnedSolutionInBothModes(_LearnedSolution):
    """The same with derivatives in forward mode, which ``torch.compile`` does not support."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _LearnedSolution.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[1:3], output[0])

    @staticmethod
    def jvp(ctx: Any, y: Tensor, weight: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        saved_weight, inverse_weight, x = ctx.saved_tensors
        a, g = ctx.operators.forward, ctx.operators.inverse
        following = undifferentiable(inverse_weight, saved_weight, **_LEARNED)
        log_det = -(a.trace_gradient(following, tuple(x.shape[1:])) * weight).sum()
        return g.product(following, y - a.product(weight, x)), log_det.expand(x.shape[0])


_LEARNED = {"where": "the learned inverse", "fix": "use inverse='exact', or differentiate the other direction twice"}


def _exact(weight: Tensor, rule: GradientRule) -> Tensor:
    """w in derivatives with respect to x, which are exact.

    If the gradient by w through s is only half of the exact one, so would have to be that through ∂L/∂x.
    """
    return weight if rule.weight_share == 1 else undifferentiable(weight, **_REFUSAL)


def _weight_gradients(
    saved: _Saved,
    operators: Operators,
    rule: GradientRule,
    grad_x: Tensor,
    grad_s: Tensor,
    grad_log_det: Tensor,
    trains: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """∂L/∂w and ∂L/∂r, as in :func:`self_normalized`; ``None`` for a weight that is not trained."""
    a, g = operators.forward, operators.inverse
    weight, inverse_weight, rows = saved.weight, saved.inverse_weight, saved.rows
    train_weight, train_inverse = trains
    event_shape = tuple(saved.x.shape[1:])
    total = grad_log_det.sum()

    # The factors of the outer products in the weight gradients: first of the likelihood, then of the penalty.
    into_weight = into_inverse = cycle = None
    through = rule.symmetric == "through"
    if rule.penalized:
        # Both penalties are quadratic: their gradients are proportional to 2λ|c_b| times an error.
        counted = (1 if through else 2) * saved.penalty_weight * (saved.x.shape[0] / saved.error.shape[0])
        scale = (counted * _of(grad_log_det, rows).abs()).reshape(-1, *[1] * (saved.x.dim() - 1))
        pull_inverse = pull_weight = scale * saved.error
        if rule.symmetric:
            # A(w) A(r) s − s = A(w) (A(r) s − x), since s = A(w) x
            cycle = scale * a.product(weight, saved.error)
            pull_inverse = pull_inverse + a.transposed_product(weight, cycle)
            pull_weight = pull_inverse if through else pull_weight
        if train_inverse and rule.penalized_inverse:
            into_inverse = _add(pull_inverse, rows, grad_x, -rule.inverse_share)
        if rule.penalized_weight and rows is None:
            into_weight = g.transposed_product(inverse_weight, pull_weight, grad_s, rule.weight_share)
        elif rule.penalized_weight:
            into_weight = _add(g.transposed_product(inverse_weight, pull_weight), rows, grad_s, rule.weight_share)
    if into_weight is None:
        into_weight = rule.weight_share * grad_s
    if into_inverse is None and train_inverse:
        into_inverse = -rule.inverse_share * grad_x

    grad_weight = grad_inverse = None
    if train_weight:
        grad_weight = a.weight_gradient(weight, saved.x, into_weight)
        a.add_trace_gradient(grad_weight, inverse_weight, rule.weight_share * total, event_shape)
        if saved.probes is not None:
            terms = _neumann(weight, inverse_weight, saved.probes, operators, rule)
            add_scaled(grad_weight, terms, rule.weight_share * total)
        if cycle is not None and rule.penalized_weight:
            held = saved.error if through else saved.error + _of(saved.x, rows)
            grad_weight += a.weight_gradient(weight, held, cycle)
    if into_inverse is not None:
        grad_inverse = g.weight_gradient(inverse_weight, saved.s, into_inverse)
        g.add_trace_gradient(grad_inverse, weight, -rule.inverse_share * total, event_shape)
    return grad_weight, grad_inverse


def _of(values: Tensor, rows: Tensor | None) -> Tensor:
    return values if rows is None else values.index_select(0, rows)


def _add(some: Tensor, rows: Tensor | None, to: Tensor, factor: float) -> Tensor:
    """``factor * to``, with ``some`` added to the given rows."""
    # A subtraction: Inductor (torch 2.11 and 2.13) loses the alpha of an add when it fuses mm and add into addmm.
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
