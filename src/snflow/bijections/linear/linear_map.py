"""z = A(w) x + b for a free linear operator: what dense, convolutional and self-normalizing layers have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection, Shape, ShapePattern
from snflow.numerics.factorization import Factor
from snflow.numerics.implicit import implicit_solution, known_value
from snflow.numerics.operators import Operator
from snflow.numerics.transforms import is_traced, outside_transforms

LogDetRule = Literal["exact", "exact_by_rows", "self_normalized", "relative"]
"""How the gradient of a log-determinant is made: exactly, by a learned inverse, or relative to the weight."""


class LinearMap(Bijection):
    """z = A(w) x + b, log|det A(w)|: abstract parent of every layer whose map is a free square linear operator.

    In ``eval()`` the log-determinant and its gradient are exact: one float64 factorisation, kept until the weight
    changes. It is compared by value, since a fused optimizer step and an assignment to ``.data`` leave no other trace.

    In ``train()`` each concrete layer has its own rule. A rule that does not compute the determinant returns the
    last exact VALUE, a persistent buffer that each evaluation refreshes, with a gradient of its own.

    Where a transform of ``torch.func`` follows the weight itself, as for an ensemble, nothing is kept and nothing is
    looked at: the log-determinant is that of the whole matrix, and a singular one is −∞ without an error.

    Attributes:
        weight: w.
        bias: b, one number a feature or a channel, or ``None``.
        log_det_value: the last exact log|det A(w)| in nats, a scalar.
        log_det_shape: the event shape for which it holds; zeros before the first evaluation.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    log_det_value: Tensor
    log_det_shape: Tensor

    def __init__(self, operator: Operator, weight: Tensor, *, bias: bool, event_shape: ShapePattern) -> None:
        super().__init__()
        self.operator = operator
        self.event_shape = event_shape
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(weight.shape[0])) if bias else None
        self.register_buffer("log_det_value", torch.zeros(()))
        self.register_buffer("log_det_shape", torch.zeros(len(event_shape), dtype=torch.long))
        self._known_shape: Shape | None = None
        self._factors: dict[str, tuple[Shape, Tensor, Factor]] = {}
        self.register_load_state_dict_post_hook(_forget_known_shape)

    @abstractmethod
    def _training_forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map x to s = A(w) x and a log-determinant ``(batch,)`` that carries the gradient of the layer's rule."""

    def exact_log_det(self, event_shape: Shape) -> Tensor:
        """log|det A(w)| in nats for data events of ``event_shape``, a scalar, exact in value and gradient."""
        return self._exact_log_det("weight", event_shape)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.training:
            s, log_det = self._training_forward(x)
        else:
            s = self.operator.product(self.weight, x)
            log_det = self.exact_log_det(tuple(x.shape[1:])).expand(x.shape[0])
        return s if self.bias is None else s + self._bias_like(x), log_det

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._solve(self._unbiased(z)), -self.exact_log_det(tuple(z.shape[1:])).expand(z.shape[0])

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        return self._solve(self._unbiased(z))

    def _unbiased(self, z: Tensor) -> Tensor:
        return z if self.bias is None else z - self._bias_like(z)

    def _bias_like(self, x: Tensor) -> Tensor:
        """The bias with ones behind it, one for each pixel axis of the event."""
        if self.bias is None:
            return x.new_zeros(())
        return self.bias.reshape(-1, *[1] * (x.dim() - 2))

    def _solve(self, y: Tensor) -> Tensor:
        """A(w)⁻¹ y by the exact factorisation, differentiable in y and w."""
        event_shape = tuple(y.shape[1:])
        if is_traced(self.weight):
            block, rows = self.operator.block(self.weight.double(), event_shape), self.operator.to_rows(y).double()
            solved = torch.linalg.solve(block, rows.mT).mT.to(y.dtype)
            return self.operator.from_rows(solved, event_shape)
        factor = self._factor("weight", event_shape)
        solution = self.operator.from_rows(factor.solve(self.operator.to_rows(y.detach())), event_shape)
        if not torch.is_grad_enabled():
            return solution
        residual = y - self.operator.product(self.weight, solution)
        return implicit_solution(
            solution,
            residual,
            lambda v: self.operator.from_rows(factor.solve_transposed(self.operator.to_rows(v)), event_shape),
        )

    def _last_log_det(self, event_shape: Shape) -> Tensor:
        """The last exact value, computed anew only if there is none yet for this event shape."""
        if self._known_shape is None and not is_traced(self.log_det_shape):
            self._known_shape = tuple(self.log_det_shape.tolist())
        if self._known_shape != event_shape:
            if is_traced(self.weight):
                return self._exact_log_det("weight", event_shape).detach()
            self._factor("weight", event_shape)
        return self.log_det_value

    def _exact_log_det(self, name: str, event_shape: Shape) -> Tensor:
        weight: Tensor = getattr(self, name)
        if is_traced(weight):
            return self.operator.log_abs_det(weight.double(), event_shape).to(weight.dtype)
        copies = self.operator.copies(event_shape)
        value = (copies * self._factor(name, event_shape).log_abs_det).to(weight.dtype)
        return known_value(weight, value, lambda w: self.operator.log_abs_det(w, event_shape))

    def _factor(self, name: str, event_shape: Shape) -> Factor:
        """The factorisation of one block of A, made anew when the weight or the event shape has changed."""
        with outside_transforms():
            return self._kept_factor(name, event_shape)

    def _kept_factor(self, name: str, event_shape: Shape) -> Factor:
        weight: Tensor = getattr(self, name).detach()
        kept = self._factors.get(name)
        if kept is not None:
            shape, seen, factor = kept
            comparable = seen.dtype == weight.dtype and seen.device == weight.device
            if shape == event_shape and comparable and torch.equal(seen, weight):
                return factor
        factor = self.operator.factor(weight, event_shape, self.label)
        self._factors[name] = event_shape, weight.clone(), factor
        if name == "weight":
            self.log_det_value.copy_(self.operator.copies(event_shape) * factor.log_abs_det)
            self.log_det_shape.copy_(torch.tensor(event_shape))
            self._known_shape = event_shape
        return factor

    def __getstate__(self) -> dict[str, object]:
        """Leave the factorisations out of copies and pickles: they are made anew on demand."""
        return {**self.__dict__, "_factors": {}}


def _forget_known_shape(layer: nn.Module, _: object) -> None:
    if isinstance(layer, LinearMap):
        layer._known_shape = None
