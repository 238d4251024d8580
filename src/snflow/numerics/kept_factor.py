"""Factorizations that are kept until their weight changes: in plain, transformed and compiled code."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from snflow.numerics.compilation import number_of_new, numbered, operation
from snflow.numerics.factorization import Accuracy, Factor, condition_number
from snflow.numerics.implicit import implicit_solution, known_value
from snflow.numerics.krylov import Linear
from snflow.numerics.operators.dense import Operator
from snflow.numerics.transforms import is_recorded, is_traced, outside_transforms

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """The last value computed from some tensors, recomputed if they have changed.

    Changes are detected by comparing values, since neither a fused optimizer step nor an assignment to ``.data``
    increments the version counter. Several threads may use one instance: what belongs together is replaced together.
    Copies and pickles do not contain the value.

    Example:
        >>> kept, weight = Kept(), torch.ones(2)
        >>> kept.get((), (weight,), lambda: float(weight.sum()))
        2.0
        >>> weight.data.mul_(2)
        tensor([2., 2.])
        >>> kept.get((), (weight,), lambda: float(weight.sum()))
        4.0
    """

    def __init__(self) -> None:
        self._entry: tuple[Hashable, tuple[Tensor, ...], Value] | None = None

    def get(self, key: Hashable, tensors: tuple[Tensor, ...], compute: Callable[[], Value]) -> Value:
        """Return the value for this key and these tensors, computed now if it is not the last one."""
        entry = self._entry  # read once: another thread may replace it
        if entry is not None and entry[0] == key and all(map(_equal, entry[1], tensors)):
            return entry[2]
        seen = tuple(tensor.detach().clone() for tensor in tensors)
        value = compute()
        self._entry = key, seen, value
        return value

    def __getstate__(self) -> dict[str, object]:
        """Exclude the value from copies and pickles: it is recomputed on demand."""
        return {"_entry": None}


def _equal(seen: Tensor, now: Tensor) -> bool:
    return seen.dtype == now.dtype and seen.device == now.device and torch.equal(seen, now)


class KeptAccuracy:
    """Warns if the inverse of a linear layer without a kept factorization is inaccurate, once per weight.

    Args:
        owner: the name of the layer.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._kept: Kept[Accuracy] = Kept()

    def check(
        self,
        weights: tuple[Tensor, ...],
        event_shape: tuple[int, ...],
        dtype: torch.dtype,
        condition: Callable[[], float],
    ) -> None:
        """Warn if the condition number is too large for a solve in the given dtype.

        Args:
            weights: the parameters of A. Nothing is done under a transform of one of them, or in compiled code.
            event_shape: the shape of one event.
            dtype: the dtype of the solve.
            condition: computes the condition number, called only if a weight or the event shape has changed.

        Warns:
            NumericalWarning: a solve has fewer than two correct digits.
        """
        if is_recorded() or any(map(is_traced, weights)):
            return
        with outside_transforms():
            self._kept.get(event_shape, weights, lambda: Accuracy(condition(), self._owner)).of_solve(dtype)


def linear_condition_number(product: Linear, solve: Linear, like: Tensor) -> float:
    """‖A‖₂ ‖A⁻¹‖₂ of a differentiable map, estimated from below; automatic differentiation gives the transposes.

    Args:
        product: x ↦ A x, for events ``(batch, *event)``.
        solve: y ↦ A⁻¹ y.
        like: events ``(batch, *event)``, which provide the shape of one event, the dtype and the device.

    Returns:
        The estimate of :func:`~snflow.numerics.factorization.condition_number`. A constant term has no effect.

    Example:
        >>> a = torch.tensor([1.0, 10.0, 1000.0])
        >>> round(linear_condition_number(lambda x: a * x, lambda y: y / a, a[None]))
        1000
    """
    zero = like.new_zeros(1, *like.shape[1:])

    def linear(function: Linear) -> Linear:
        constant = function(zero)
        return lambda x: function(x) - constant

    def transposed(function: Linear) -> Linear:
        return lambda v: torch.func.vjp(function, torch.zeros_like(v))[1](v)[0]

    return condition_number(linear(product), transposed(product), linear(solve), transposed(solve), like)


class KeptFactor:
    """log|det A(w)| and A(w)⁻¹ y from one factorization, which is kept until w or the event shape changes.

    - In plain code both have the gradients of the exact results; those of the log-determinant can be differentiated
      again.
    - Under a transform of ``torch.func`` over w nothing is kept and no value is inspected: both are computed from the
      whole matrix, and the log-determinant of a singular matrix is −∞ without an error.
    - ``torch.compile`` cannot trace the comparison of w with its last value: both are single operations of the
      compiled graph, implemented by the plain code. They break no graph and raise the same errors; what they cost more
      is the call of an operation, some tens of microseconds.
    - ``torch.export`` gets the computation from the whole matrix, which needs nothing of this object.

    Args:
        operator: A.
        owner: the name of the layer, for error messages.
        when_new: called with log|det A(w)| of all blocks and the event shape after each new factorization.

    Example:
        >>> from snflow.numerics.operators.dense import DenseOperator
        >>> kept, w = KeptFactor(DenseOperator(), "an example"), 2 * torch.eye(2)
        >>> kept.log_abs_det(w, (2,)).exp().round(), kept.solve(w, torch.ones(1, 2))
        (tensor(4.), tensor([[0.5000, 0.5000]]))
    """

    def __init__(
        self, operator: Operator, owner: str, when_new: Callable[[Tensor, tuple[int, ...]], None] | None = None
    ) -> None:
        self.operator, self.owner, self._when_new = operator, owner, when_new
        self._register()

    def _register(self) -> None:
        self._kept: Kept[Factor] = Kept()
        self._number = number_of_new(self)

    def of(self, weight: Tensor, event_shape: tuple[int, ...]) -> Factor:
        """Return the factorization of one block of A(w)."""
        with outside_transforms():
            weight = weight.detach()
            return self._kept.get(event_shape, (weight,), lambda: self._factorized(weight, event_shape))

    def _factorized(self, weight: Tensor, event_shape: tuple[int, ...]) -> Factor:
        # what is kept may be used by a later call that records a graph
        with torch.inference_mode(False), torch.no_grad():
            factor = self.operator.factor(weight, event_shape, self.owner)
        if self._when_new is not None:
            self._when_new(self.operator.copies(event_shape) * factor.log_abs_det, event_shape)
        return factor

    def log_abs_det(self, weight: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """log|det A(w)| of all blocks in nats, a scalar in the dtype of w, exact in value and gradient."""
        if is_traced(weight) or torch.compiler.is_exporting():
            return self.operator.log_abs_det(weight.double(), event_shape).to(weight.dtype)
        if torch.compiler.is_compiling():
            compiled: Tensor = _log_abs_det(weight, self._number, event_shape)
            return compiled
        return known_value(weight, self.value(weight, event_shape), lambda w: self.operator.log_abs_det(w, event_shape))

    def value(self, weight: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """log|det A(w)| of all blocks without a gradient, in plain code."""
        log_abs_det = self.of(weight, event_shape).log_abs_det
        value: Tensor = self.operator.copies(event_shape) * log_abs_det
        return value.to(weight.dtype)

    def solve(self, weight: Tensor, y: Tensor) -> Tensor:
        """A(w)⁻¹ y for events y ``(batch, *event)``, differentiable in y and w."""
        operator, event_shape = self.operator, tuple(y.shape[1:])
        if is_traced(weight) or torch.compiler.is_exporting():
            block, rows = operator.block(weight.double(), event_shape), operator.to_rows(y).double()
            solved = torch.linalg.solve(block, rows.mT).mT.to(y.dtype)
            return operator.from_rows(solved, event_shape)
        if torch.compiler.is_compiling():
            compiled: Tensor = _solve(y, weight, self._number, False)
            return compiled
        solution = self.solution(weight, y.detach(), transposed=False)
        if not torch.is_grad_enabled():
            return solution
        residual = y - operator.product(weight, solution)
        return implicit_solution(solution, residual, lambda v: self.solution(weight, v, transposed=True))

    def solution(self, weight: Tensor, y: Tensor, *, transposed: bool) -> Tensor:
        """A(w)⁻¹ y or A(w)⁻ᵀ y without a gradient, in plain code."""
        factor = self.of(weight, tuple(y.shape[1:]))
        rows = self.operator.to_rows(y)
        solved = factor.solve_transposed(rows) if transposed else factor.solve(rows)
        return self.operator.from_rows(solved, tuple(y.shape[1:]))

    def __getstate__(self) -> dict[str, object]:
        """Exclude the factorization from copies and pickles, which are registered under a number of their own."""
        return {"operator": self.operator, "owner": self.owner, "_when_new": self._when_new}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Restore the operator and register the copy."""
        self.__dict__.update(state)
        self._register()


# Compiled code.


@operation()
def _log_abs_det(weight: Tensor, number: int, event_shape: list[int]) -> Tensor:
    found: Tensor = numbered[number].value(weight, tuple(event_shape)).clone()
    return found


@operation()
def _log_abs_det_gradient(weight: Tensor, number: int, event_shape: list[int]) -> Tensor:
    operator = numbered[number].operator
    # autograd does not record within an operation; the transform does
    gradient: Tensor = torch.func.grad(lambda w: operator.log_abs_det(w, tuple(event_shape)))(weight)
    return gradient.contiguous()


@operation()
def _solve(y: Tensor, weight: Tensor, number: int, transposed: bool) -> Tensor:
    found: Tensor = (
        numbered[number].solution(weight, y, transposed=transposed).clone(memory_format=torch.contiguous_format)
    )
    return found


@operation()
def _weight_gradient(weight: Tensor, x: Tensor, v: Tensor, number: int) -> Tensor:
    found: Tensor = numbered[number].operator.weight_gradient(weight, x, v).contiguous()
    return found


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    ctx.save_for_backward(*tensors, output)
    ctx.options = inputs[len(tensors) :]


def _log_abs_det_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return grad * _log_abs_det_gradient(ctx.saved_tensors[0], *ctx.options), None, None


def _solve_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    _, weight, x = ctx.saved_tensors
    number, transposed = ctx.options
    v = _solve(grad, weight, number, not transposed)
    pair = (v, x) if transposed else (x, v)
    return v, -_weight_gradient(weight, *pair, number), None, None


_log_abs_det.register_fake(lambda weight, number, event_shape: weight.new_empty(()))
_log_abs_det_gradient.register_fake(lambda weight, number, event_shape: weight.new_empty(weight.shape))
_solve.register_fake(lambda y, weight, number, transposed: y.new_empty(y.shape))
_weight_gradient.register_fake(lambda weight, x, v, number: weight.new_empty(weight.shape))
_log_abs_det.register_autograd(_log_abs_det_backward, setup_context=_save)
_solve.register_autograd(_solve_backward, setup_context=_save)
