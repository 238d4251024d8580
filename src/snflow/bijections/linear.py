"""Unconstrained linear maps with exact log-determinants, and permutations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self, final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection, Shape, ShapePattern
from snflow.errors import MAX_INT, ConfigError, GradientError, check_choice, check_count
from snflow.numerics.devices import structure_device
from snflow.numerics.factorization import check_invertible
from snflow.numerics.kept_factor import KeptFactor
from snflow.numerics.operators.dense import DenseOperator, Operator, relative_gradient
from snflow.numerics.transforms import add_scaled, is_recorded, is_traced
from snflow.numerics.undifferentiable import EXACT_IN_EVAL, undifferentiable

Initialization = Literal["identity", "exact_identity", "orthogonal"]


def initial_matrix(features: int, initialization: Initialization = "identity") -> Tensor:
    """W = I + ε, with ε from a Xavier normal distribution of gain 0.01, or W = I, or a random orthogonal W.

    The paper describes I + ε for a dense layer, the default here; in the authors' code the first W is exactly I.

    Args:
        features: the number of rows and columns.
        initialization: ``"identity"``, ``"exact_identity"`` or ``"orthogonal"``.

    Returns:
        The matrix, with shape ``(features, features)``.

    References:
        Keller et al. (2021), Self Normalizing Flows, appendix A.3.

    Example:
        >>> initial_matrix(3).shape
        torch.Size([3, 3])
    """
    weight = torch.empty(features, features)
    if initialization == "orthogonal":
        return nn.init.orthogonal_(weight)
    if initialization == "exact_identity":
        return torch.eye(features)
    return torch.eye(features) + nn.init.xavier_normal_(weight, gain=0.01)


def initial_kernel(channels: int, kernel_size: int, groups: int = 1) -> Tensor:
    """w = δ + ε, with δ the Dirac kernel and ε from a Xavier normal distribution of gain 0.01; 1×1: random orthogonal.

    Args:
        channels: the number of input and output channels.
        kernel_size: k, odd.
        groups: number of groups of channels; channels of different groups do not interact.

    Returns:
        The kernel, with shape ``(channels, channels / groups, k, k)``.

    References:
        Keller et al. (2021), Self Normalizing Flows, appendix A.3; Kingma & Dhariwal (2018), Glow, for 1×1.

    Example:
        >>> initial_kernel(2, 3).shape
        torch.Size([2, 2, 3, 3])
    """
    weight = torch.empty(channels, channels // groups, kernel_size, kernel_size)
    if kernel_size == 1:
        for block in weight.chunk(groups):
            nn.init.orthogonal_(block.flatten(1))
        return weight
    return nn.init.dirac_(torch.empty_like(weight), groups) + nn.init.xavier_normal_(weight, gain=0.01)


LogDetRule = Literal["exact", "exact_by_rows", "self_normalized", "relative"]
"""The gradient of a log-determinant: exact, from a learned inverse, or the relative gradient."""


class LinearMap(Bijection):
    """z = A(w) x + b, log|det A(w)|: abstract base class of the layers with an unconstrained square linear operator.

    In ``eval()`` the log-determinant and its gradient are exact, from a float64 factorization that is kept until the
    weight changes: see :class:`~snflow.numerics.kept_factor.KeptFactor`, also for what differs under the transforms of
    ``torch.func``, ``torch.compile`` and ``torch.export``.

    In ``train()`` the gradient depends on the layer's rule. A rule that does not compute the determinant returns the
    last exact value, stored in a persistent buffer that is updated by each evaluation, with the gradient defined by the
    rule.

    A singular or non-finite weight raises a NotInvertibleError in both modes; ``encode`` needs no inverse. An
    ill-conditioned weight gives a NumericalWarning, once for each value of the weight.

    Attributes:
        weight: w.
        bias: b, one number per feature or per channel, or ``None``.
        log_det_value: the last exact log|det A(w)| in nats, a scalar.
        log_det_shape: the event shape for which this value was computed; zeros before the first evaluation.
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
        # the event shape, the value, and the buffer that they were stored in, which a functional call may replace
        self._known: tuple[Shape, Tensor, Tensor] | None = None
        self._factor = KeptFactor(operator, self.label, self._remember)
        self.register_load_state_dict_post_hook(_forget)

    def exact_log_det(self, event_shape: Shape) -> Tensor:
        """log|det A(w)| in nats for data events of ``event_shape``, a scalar, exact in value and gradient."""
        return self._factor.log_abs_det(self.weight, event_shape)

    def _exact_forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and the exact log-determinant, from the kept factorization."""
        return self._encode(x, None), self.exact_log_det(tuple(x.shape[1:])).expand(x.shape[0])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._decode(z, context), -self.exact_log_det(tuple(z.shape[1:])).expand(z.shape[0])

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self._biased(self.operator.product(self.weight, x))

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        return self._factor.solve(self.weight, self._unbiased(z))

    def _biased(self, s: Tensor) -> Tensor:
        return s if self.bias is None else s + self._bias_like(s)

    def _unbiased(self, z: Tensor) -> Tensor:
        return z if self.bias is None else z - self._bias_like(z)

    def _bias_like(self, x: Tensor) -> Tensor:
        """The bias, with a trailing axis of size one for each spatial dimension of the event."""
        if self.bias is None:
            return x.new_zeros(())
        return self.bias.reshape(-1, *[1] * (x.dim() - 2))

    def _last_log_det(self, event_shape: Shape) -> Tensor:
        """The last exact value; computed now if there is none for this event shape."""
        known, buffer = self._known, self.log_det_value  # read once: another thread may replace them
        unread = known is None or (known[2] is not buffer and not is_traced(buffer))
        if unread and not (is_traced(self.log_det_shape) or torch.compiler.is_compiling()):
            known = self._known = tuple(self.log_det_shape.tolist()), buffer.clone(), buffer
        if known is None or known[0] != event_shape:
            return self.exact_log_det(event_shape).detach()
        # recorded code reads the buffer, whose memory stays; in an ensemble it has one value for each member
        return buffer if is_recorded() or is_traced(buffer) else known[1]

    def _remember(self, log_abs_det: Tensor, event_shape: Shape) -> None:
        """Store a new exact value, with its event shape."""
        self.log_det_value.copy_(log_abs_det)
        self.log_det_shape.copy_(torch.tensor(event_shape))
        self._known = event_shape, log_abs_det.to(self.log_det_value), self.log_det_value


def _forget(layer: nn.Module, _: object) -> None:
    if isinstance(layer, LinearMap):
        layer._known = None


DenseRule = Literal["exact", "relative"]


@final
class Dense(LinearMap):
    """z = W x + b, log|det W|, for an unconstrained matrix W.

    Computing z costs O(batch · D²). ``exact`` adds O(D³) per training step for log|det W| and W⁻ᵀ. ``relative``
    replaces the gradient G = ∂L/∂W by G WᵀW = Σ_b δ_b s_bᵀ W + (Σ_b c_b) W, with s = W x, δ = ∂L/∂z and
    c_b = ∂L/∂log_det, which costs O(batch · D²). The inverse is exact with either rule.

    Args:
        features: D.
        bias: whether to add b.
        log_det_rule: the gradient in ``train()``, ``"exact"`` or ``"relative"``.
        initialization: initial W: ``"identity"`` plus small noise, ``"exact_identity"`` or ``"orthogonal"``.

    Shapes:
        x, z: ``(batch, features)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one feature, or an unknown rule.
        NotInvertibleError: W is singular or not finite, except in ``encode``.

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
        *,
        bias: bool = True,
        log_det_rule: DenseRule = "exact",
        initialization: Initialization = "identity",
    ) -> None:
        check_count("Dense", "features", features)
        check_choice("Dense", "log_det_rule", log_det_rule, DenseRule)
        check_choice("Dense", "initialization", initialization, Initialization)
        super().__init__(DenseOperator(), initial_matrix(features, initialization), bias=bias, event_shape=(features,))
        self.log_det_rule: DenseRule = log_det_rule

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if not self.training:
            return self._exact_forward(x)
        if self.log_det_rule == "relative":
            gradient = _RelativeGradient if torch.compiler.is_compiling() else _RelativeGradientInBothModes
            s, log_det = gradient.apply(x, self.weight, self._last_log_det(tuple(x.shape[1:])))
            return self._biased(s), log_det
        log_abs_det = torch.linalg.slogdet(self.weight)[1]
        check_invertible(log_abs_det, self.label, self.weight)
        return self._encode(x, context), log_abs_det.expand(x.shape[0])

    def extra_repr(self) -> str:
        """Return the text shown by ``print(layer)``."""
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
    def backward(ctx: Any, grad_s: Tensor | None, grad_log_det: Tensor | None) -> tuple[Tensor | None, ...]:
        s, weight = ctx.saved_tensors
        grad_s = torch.zeros_like(s) if grad_s is None else grad_s
        # ∂L/∂x is exact, and can be differentiated again by all but the weight, whose gradient is the relative one
        grad_x = grad_s @ undifferentiable(weight, **_REFUSAL) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return grad_x, None, None
        with torch.no_grad():
            grad_weight = relative_gradient(weight, s, grad_s)
            if grad_log_det is not None:
                add_scaled(grad_weight, weight, grad_log_det.sum())
        return grad_x, undifferentiable(grad_weight, s, weight, grad_s, grad_log_det, **_REFUSAL), None


class _RelativeGradientInBothModes(_RelativeGradient):
    """The same with derivatives in forward mode, which ``torch.compile`` does not support."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        _RelativeGradient.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[1])
        ctx.set_materialize_grads(False)  # a weight without a tangent differs from one whose tangent is zero

    @staticmethod
    def jvp(ctx: Any, x: Tensor | None, weight: Tensor | None, *_: Tensor | None) -> tuple[Tensor, Tensor]:
        if x is None or weight is not None:
            raise GradientError(expected="derivatives by the weight in reverse mode", got="forward mode", **_REFUSAL)
        s = x @ undifferentiable(ctx.saved_tensors[0], **_REFUSAL).mT
        return s, s.new_zeros(s.shape[0])


_REFUSAL = {"where": "the relative gradient", "fix": EXACT_IN_EVAL}


@final
class Permutation(Bijection):
    """zᵢ = x_{order[i]}, log|det| = 0: permutes features, or the channels of an image.

    Args:
        order: a permutation of the indices from 0 to D − 1.
        image: whether to permute the channels of images, instead of the features of vectors.

    Shapes:
        x, z: ``(batch, D)`` or ``(batch, D, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: the order is not a permutation.

    Example:
        >>> import torch, snflow
        >>> snflow.Permutation([2, 0, 1])(torch.tensor([[10.0, 11.0, 12.0]]))[0]
        tensor([[12., 10., 11.]])
    """

    rearranges = True
    order: Tensor
    back: Tensor

    def __init__(self, order: Sequence[int] | Tensor, *, image: bool = False) -> None:
        super().__init__()
        index = torch.as_tensor(order, device=None if isinstance(order, Tensor) else structure_device()).long()
        if index.dim() != 1 or not torch.equal(index.sort().values, torch.arange(len(index), device=index.device)):
            raise ConfigError(
                "Permutation",
                expected="each index from 0 to D − 1 exactly once",
                got=str(index.tolist()),
                fix="use torch.randperm(D) or Permutation.random(D)",
            )
        self.event_shape = (len(index), None, None) if image else (len(index),)
        self.register_buffer("order", index)
        self.register_buffer("back", index.argsort(), persistent=False)
        self.register_load_state_dict_post_hook(_refresh)

    @classmethod
    def reversed(cls, features: int, *, image: bool = False) -> Self:
        """zᵢ = x_{D − 1 − i}.

        Example:
            >>> Permutation.reversed(3).order.tolist()
            [2, 1, 0]
        """
        check_count("Permutation", "features", features, most=MAX_INT)
        return cls(list(range(features))[::-1], image=image)

    @classmethod
    def random(cls, features: int, *, image: bool = False) -> Self:
        """A random permutation, drawn from the global generator of torch and saved in the state."""
        check_count("Permutation", "features", features, most=MAX_INT)
        return cls(torch.randperm(features), image=image)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x.index_select(1, self.order), x.new_zeros(x.shape[0])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z.index_select(1, self.back), z.new_zeros(z.shape[0])

    def extra_repr(self) -> str:
        """Show the number of features."""
        return str(len(self.order))


def _refresh(layer: Permutation, _: object) -> None:
    layer.back = layer.order.argsort()
