"""A free square matrix with the exact or the relative gradient of its log-determinant."""

from __future__ import annotations

from typing import Any, Literal, final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snflow.arguments import check_choice, check_count
from snflow.bijections.linear.initialization import Initialization, initial_matrix
from snflow.bijections.linear.linear_map import LinearMap
from snflow.numerics.operators import DenseOperator, relative_gradient
from snflow.numerics.transforms import add_scaled

DenseRule = Literal["exact", "relative"]


@final
class Dense(LinearMap):
    """z = W x + b, log|det W|, for a free matrix W.

    The cost is O(batch · D²) for z; ``exact`` adds O(D³) a training step for log|det W| and W⁻ᵀ, ``relative`` replaces
    the gradient G = ∂L/∂W by G WᵀW = Σ_b δ_b s_bᵀ W + (Σ_b c_b) W, O(batch · D²), with s = W x, δ = ∂L/∂z and
    c_b = ∂L/∂log_det.
    The inverse is exact in both.

    Args:
        features: D.
        bias: whether b is there.
        log_det_rule: ``"exact"`` or ``"relative"``.
        initialization: ``"identity"`` plus small noise, or ``"orthogonal"``.

    Shapes:
        x, z: ``(batch, features)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one feature, or an unknown rule.

    References:
        Gresele et al. (2020), Relative gradient optimization of the Jacobian term, for ``relative``.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.Dense(3).eval()
        >>> x = torch.randn(4, 3)
        >>> z, log_det = layer(x)
        >>> torch.allclose(layer.inverse(z)[0], x)
        True
    """

    def __init__(
        self,
        features: int,
        bias: bool = True,
        log_det_rule: DenseRule = "exact",
        *,
        initialization: Initialization = "identity",
    ) -> None:
        check_count("Dense", "features", features)
        check_choice("Dense", "log_det_rule", log_det_rule, DenseRule)
        check_choice("Dense", "initialization", initialization, Initialization)
        super().__init__(DenseOperator(), initial_matrix(features, initialization), bias=bias, event_shape=(features,))
        self.log_det_rule: DenseRule = log_det_rule

    def _training_forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.log_det_rule == "exact":
            log_det = torch.linalg.slogdet(self.weight)[1]
            return self.operator.product(self.weight, x), log_det.expand(x.shape[0])
        value = self._last_log_det(tuple(x.shape[1:]))
        s, log_det = _RelativeGradient.apply(x, self.weight, value)
        return s, log_det

    def extra_repr(self) -> str:
        """What ``print(layer)`` shows."""
        return f"{self.weight.shape[0]}, bias={self.bias is not None}, log_det_rule={self.log_det_rule!r}"


class _RelativeGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return x @ weight.mT, value.expand(x.shape[0]).clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(output[0], inputs[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (s, weight), (grad_s, grad_log_det) = ctx.saved_tensors, grads
        grad_x = grad_s @ weight if ctx.needs_input_grad[0] else None
        grad_weight = relative_gradient(weight, s, grad_s)
        add_scaled(grad_weight, weight, grad_log_det.sum())
        return grad_x, grad_weight, None
