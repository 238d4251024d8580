"""Self-normalizing layers: dense, convolutional and strided."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection, InverseMethod, Shape, ShapePattern
from snflow.bijections.linear import Initialization, LinearMap, initial_kernel, initial_matrix
from snflow.bijections.reshaping import Squeeze
from snflow.errors import ConfigError, ConvergenceError, check_choice, check_count, check_kernel
from snflow.numerics.compilation import REFINEMENT
from snflow.numerics.devices import structure_device
from snflow.numerics.factorization import condition_number
from snflow.numerics.implicit import implicit_solution
from snflow.numerics.kept_factor import KeptAccuracy, KeptFactor
from snflow.numerics.krylov import Linear, refine
from snflow.numerics.operators.conv import ConvOperator, resized
from snflow.numerics.operators.dense import DenseOperator, TransposedDenseOperator
from snflow.numerics.probes import rademacher, sum_event
from snflow.numerics.transforms import is_traced, outside_transforms, under_transform
from snflow.selfnorm.gradient import Operators, learned_solution, self_normalized
from snflow.selfnorm.penalty import Penalty
from snflow.selfnorm.tracking import Tracking, WeightPair

ERROR_ROWS = 8
"""Number of rows used to measure the reconstruction error of a layer without a penalty."""

ROUGHLY = 0.1
"""Relative residual of the solves from which the condition number of a refined inverse is estimated."""


class SelfNormalizingMap(LinearMap):
    """z = A(w) x + b with g(z) = A(r)(z − b) ≈ x: abstract base class of the self-normalizing layers.

    In ``train()`` the log-determinant has the last exact value and the gradient of
    :func:`~snflow.selfnorm.gradient.self_normalized`. In ``eval()`` value and gradient are exact. The inversion methods
    are ``"exact"`` (a factorization, the default), ``"learned"`` (one pass through g, with log|det A(r)|) and
    ``"refined"`` (an iterative solve preconditioned by g, which needs no factorization if only x is required, see
    ``decode``).

    The strategy ``tracking`` keeps r close to the inverse: it determines the gradient, and may replace r before a
    training step. The forward pass applies it in ``train()``, so that an ordinary training loop suffices; for compiled
    or recorded steps, use :class:`~snflow.selfnorm.followers.Followers`. Under a transform of ``torch.func`` over the
    weight, r and the state of the strategy are not updated.

    Attributes:
        inverse_weight: r, a parameter or a buffer, depending on the strategy.
        tracking: this layer's copy of the strategy, with its state.
        rule: options of the gradient, chosen by the strategy.
        tracks_in_forward: whether the forward pass applies the strategy in ``train()``; if not, updates of r are
            written to the same memory.
        refine_tolerance: relative residual at which ``"refined"`` stops; ``None`` is about the precision of the dtype.
        reconstruction_error: mean of ‖g(f(x)) − x‖² in the last training step, a scalar: over the rows on which the
            penalty was computed, or over the first eight rows if there is no penalty.
    """

    has_inversion_methods = True
    uncompiled = REFINEMENT
    inverse_weight: nn.Parameter | Tensor
    reconstruction_error: Tensor

    def __init__(
        self,
        operators: Operators,
        weight: Tensor,
        inverse_weight: Tensor,
        *,
        bias: bool,
        event_shape: ShapePattern,
        tracking: Tracking | None,
    ) -> None:
        super().__init__(operators.forward, weight, bias=bias, event_shape=event_shape)
        if not (tracking is None or isinstance(tracking, Tracking)):
            raise ConfigError(
                self.label,
                expected="tracking to be a strategy",
                got=repr(tracking),
                fix="use snflow.Penalty(), snflow.Newton() or snflow.Secant()",
            )
        self.operators = operators
        self.tracking = Penalty() if tracking is None else copy.deepcopy(tracking)
        self.tracking.to(weight)
        self.rule = self.tracking.gradient_rule(operators.inverse.closed)
        first = inverse_weight.clone(memory_format=torch.contiguous_format)
        if self.tracking.trains_inverse:
            self.inverse_weight = nn.Parameter(first)
        else:
            self.register_buffer("inverse_weight", first)
        error = torch.tensor(0.0, dtype=weight.dtype, device=structure_device())
        self.register_buffer("reconstruction_error", error, persistent=False)
        self.refine_tolerance: float | None = None
        self.tracks_in_forward = True
        self._inverse_factor = KeptFactor(operators.inverse, self.label)
        self._refined_accuracy = KeptAccuracy(self.label)

    def learned_log_det(self, event_shape: Shape) -> Tensor:
        """log|det A(r)| in nats for events of ``event_shape``, a scalar, exact in value and gradient."""
        return self._inverse_factor.log_abs_det(self.inverse_weight, event_shape)

    def weight_pair(self, event_shape: Shape) -> WeightPair:
        """Return w and r without gradients, in the form used by the strategies."""
        return WeightPair(self.weight.detach(), self.inverse_weight.detach(), self.operators, event_shape)

    @torch.no_grad()
    def inverse_residual(self, event_shape: Shape, probes: int = 8) -> Tensor:
        """‖I − A(r) A(w)‖_F/√D, estimated from Rademacher probes ν as √ mean ‖ν − A(r) A(w) ν‖²/D.

        Args:
            event_shape: the shape of one event with D elements.
            probes: the number of probes, which are the same in every call.

        Returns:
            The estimate, a scalar without gradient.
        """
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(2, (probes, *event_shape), generator=generator)
        v = (2 * signs - 1).to(self.weight)
        return self.weight_pair(event_shape).error(v).square().mean().sqrt()

    @torch.no_grad()
    def track(self, event_shape: Shape, steps: int = 1) -> None:
        """Apply the strategy: replace r if an update is due and needed.

        The forward pass calls this in ``train()``, unless it is compiled or :attr:`tracks_in_forward` is False.

        Args:
            event_shape: the shape of one event.
            steps: the number of training steps since the last call.
        """
        if self.tracking.is_due(self.weight.detach(), steps):
            self._replace_inverse(self.tracking.update(self.weight_pair(event_shape)), count=True)

    @torch.no_grad()
    def track_on_device(self) -> None:
        """Between calls of :meth:`track`, apply the strategy's step without device synchronization, if it has one."""
        matrices_only = self.weight_pair(())
        self._replace_inverse(self.tracking.update_on_device(matrices_only), count=True)

    @torch.no_grad()
    def refresh_inverse(self, event_shape: Shape) -> None:
        """Set r to the best inverse of the current w, for use after w has been replaced.

        Args:
            event_shape: the shape of one event.
        """
        self._replace_inverse(self.tracking.best(self.weight_pair(event_shape)), count=False)

    def _replace_inverse(self, found: Tensor | None, *, count: bool) -> None:
        if found is None:
            return
        found = found.to(self.inverse_weight).contiguous()
        if not self.tracks_in_forward:
            self.inverse_weight.copy_(found)  # a recorded step reads from this memory
        # Otherwise replaced, not overwritten: a pending backward pass may have saved the old one.
        elif isinstance(self.inverse_weight, nn.Parameter):
            self.inverse_weight.data = found
        else:
            self.inverse_weight = found
        if count:
            self.tracking.updates.add_(1)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if not self.training:
            return self._exact_forward(x)
        event_shape, rule, tracking = tuple(x.shape[1:]), self.rule, self.tracking
        if self.tracks_in_forward and not torch.compiler.is_compiling() and not is_traced(self.weight):
            with outside_transforms():
                self.track(event_shape)
        probes = rademacher(rule.neumann_probes, event_shape, x) if rule.neumann_terms else None
        few = rule.samples is not None and rule.samples < x.shape[0] and rule.penalized
        rows = torch.randperm(x.shape[0], device=x.device)[: rule.samples] if few else None
        s, log_det, error = self_normalized(
            x,
            self.weight,
            self.inverse_weight,
            tracking.penalty_weight.clone() if tracking.moves_penalty_weight else tracking.penalty_weight,
            self._last_log_det(event_shape),
            self.operators,
            rule,
            probes,
            rows,
        )
        if not under_transform():
            self._note_error(x.detach(), s.detach(), error)
        return (s if self.bias is None else s + self._bias_like(x)), log_det

    @torch.no_grad()
    def _note_error(self, x: Tensor, s: Tensor, error: Tensor) -> None:
        if not self.rule.penalized:
            x = x[:ERROR_ROWS]
            error = sum_event((self.operators.inverse.product(self.inverse_weight, s[:ERROR_ROWS]) - x).square())
        mean = error.mean()
        self.reconstruction_error.copy_(mean)
        if self.tracking.moves_penalty_weight:
            self.tracking.observe(mean, sum_event(x.square()).mean())

    def _inverse(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> tuple[Tensor, Tensor]:
        if inverse == "learned":
            return self._learned(z, self.learned_log_det(tuple(z.shape[1:])))
        return self._decode(z, context, inverse), -self.exact_log_det(tuple(z.shape[1:])).expand(z.shape[0])

    def _decode(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> Tensor:
        if inverse == "learned":
            return self._learned(z, z.new_zeros(()))[0]
        y = self._unbiased(z)
        return self._refine(y) if inverse == "refined" else self._factor.solve(self.weight, y)

    def _learned(self, z: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        """g(z), and a given log|det A(r)| with its gradient; if r is no parameter, it is a function of w."""
        y = self._unbiased(z)
        if self.tracking.trains_inverse:
            return self.operators.inverse.product(self.inverse_weight, y), log_det.expand(z.shape[0])
        return learned_solution(y, self.weight, self.inverse_weight, log_det, self.operators)

    def _refine(self, y: Tensor) -> Tensor:
        solve, solve_transposed = self._refined_solves(y.dtype, self.refine_tolerance)
        with torch.no_grad():
            solution = solve(y.detach())
        self._refined_accuracy.check(
            (self.weight, self.inverse_weight), tuple(y.shape[1:]), y.dtype, lambda: self._refined_condition(y[:1])
        )
        if not torch.is_grad_enabled():
            return solution
        return implicit_solution(solution, y - self.operator.product(self.weight, solution), solve_transposed)

    def _refined_solves(self, dtype: torch.dtype, tolerance: float | None) -> tuple[Linear, Linear]:
        """Return y ↦ A(w)⁻¹ y and v ↦ A(w)⁻ᵀ v, by iterations in the given precision."""
        a, g, w, r = self.operator, self.operators.inverse, self.weight.detach(), self.inverse_weight.detach()
        w, r = w.to(dtype), r.to(dtype)
        run = partial(refine, owner=self.label, tolerance=tolerance)
        return (
            partial(run, partial(a.product, w), partial(g.product, r)),
            partial(run, partial(a.transposed_product, w), partial(g.transposed_product, r)),
        )

    def _refined_condition(self, event: Tensor) -> float:
        """The condition number of A(w), by rough solves in float64; infinite if they do not converge."""
        w = self.weight.detach().double()
        maps = partial(self.operator.product, w), partial(self.operator.transposed_product, w)
        solves = self._refined_solves(torch.float64, ROUGHLY)
        try:
            return condition_number(*maps, *solves, event.detach().double())
        except ConvergenceError:
            return math.inf

    def extra_repr(self) -> str:
        """Show the sizes of the weight and whether there is a bias."""
        return f"{', '.join(map(str, self.weight.shape[1:]))}, bias={self.bias is not None}"


@final
class SelfNormalizingDense(SelfNormalizingMap):
    """z = W x + b, log|det W|, trained with a learned inverse R ≈ W⁻¹ in place of W⁻¹: O(batch · D²), no determinant.

    Backpropagation through ``log_det`` gives the gradient of ½ log p^f + ½ log p^g − λ‖RWx − x‖²: call
    ``(-flow.log_prob(x)).mean().backward()`` and use any optimizer.

    Args:
        features: D.
        bias: whether to add b.
        initialization: initial W: ``"identity"`` plus small noise, ``"exact_identity"`` or ``"orthogonal"``. The
            initial R is Wᵀ.
        tracking: how R is kept close to W⁻¹: :class:`~snflow.Penalty`, :class:`~snflow.Newton` or
            :class:`~snflow.Secant`; ``None`` is ``Penalty()``.

    Attributes:
        inverse_weight: r = Rᵀ ≈ W⁻ᵀ, with the shape of W, as it appears in the gradient of log|det W|.

    Shapes:
        x, z: ``(batch, features)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one feature, or an unknown initialization.

    References:
        Keller et al. (2021), Self Normalizing Flows, eq. 3, 8–11.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.SelfNormalizingDense(3)
        >>> x = torch.randn(5, 3)
        >>> z, log_det = layer(x)
        >>> (0.5 * z.square().sum(1) - log_det).mean().backward()
        >>> layer.inverse_weight.grad.shape
        torch.Size([3, 3])
    """

    def __init__(
        self,
        features: int,
        *,
        bias: bool = True,
        initialization: Initialization = "identity",
        tracking: Tracking | None = None,
    ) -> None:
        check_count("SelfNormalizingDense", "features", features)
        check_choice("SelfNormalizingDense", "initialization", initialization, Initialization)
        weight = initial_matrix(features, initialization)
        super().__init__(
            Operators(DenseOperator(), TransposedDenseOperator()),
            weight,
            weight,
            bias=bias,
            event_shape=(features,),
            tracking=tracking,
        )

    @property
    def inverse_matrix(self) -> Tensor:
        """R ≈ W⁻¹, with shape ``(features, features)``: the transposed view of the inverse weight."""
        return self.inverse_weight.mT


@final
class SelfNormalizingConv2d(SelfNormalizingMap):
    """z = w ⋆ x + b, log|det T(w)|, trained with a learned inverse kernel r in place of T(w)⁻¹: no determinant.

    The gradient of log|det T(w)| is flip(r) ⊙ m, where the multiplicity m of a tap is the number of output pixels for
    which it lies within the image; for a 1×1 kernel m = H·W. A training step costs six convolutions.

    Args:
        channels: C, the number of input and output channels.
        kernel_size: k, odd.
        bias: whether to add b, one number per channel.
        inverse_kernel_size: the size of r, odd, at least k; ``None`` is k. The inverse of a convolution has a larger
            support than the convolution, so that a larger r approximates it better. In the gradients of the
            log-determinant, flip(r) is cropped to its center for w, and flip(w) is padded with zeros for r.
        dilation: distance between two taps of w and of r, in pixels.
        groups: number of groups of channels; channels of different groups do not interact.
        tracking: how r is kept close to the inverse: :class:`~snflow.Penalty`, :class:`~snflow.Newton` or
            :class:`~snflow.Secant`; ``None`` is ``Penalty()``.

    Shapes:
        x, z: ``(batch, channels, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one channel, an even kernel, an inverse kernel smaller than the kernel, or groups
            that do not divide the channels.

    References:
        Keller et al. (2021), Self Normalizing Flows, eq. 12–16, 27–30, A.2, A.4.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.SelfNormalizingConv2d(2)
        >>> z, log_det = layer(torch.randn(5, 2, 4, 4))
        >>> (0.5 * z.square().flatten(1).sum(1) - log_det).mean().backward()
        >>> layer.inverse_weight.grad.shape
        torch.Size([2, 2, 3, 3])
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        *,
        bias: bool = True,
        inverse_kernel_size: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        tracking: Tracking | None = None,
    ) -> None:
        for option, count in (("channels", channels), ("dilation", dilation), ("groups", groups)):
            check_count("SelfNormalizingConv2d", option, count)
        inverse_size = kernel_size if inverse_kernel_size is None else inverse_kernel_size
        check_kernel("SelfNormalizingConv2d", kernel_size)
        check_kernel("SelfNormalizingConv2d", inverse_size)
        if channels % groups:
            raise ConfigError(
                "SelfNormalizingConv2d", expected=f"groups that divide {channels} channels", got=str(groups)
            )
        if inverse_size < kernel_size:
            raise ConfigError(
                "SelfNormalizingConv2d",
                expected=f"an inverse kernel of at least {kernel_size}, the size of the kernel",
                got=str(inverse_size),
                fix="omit inverse_kernel_size, or make it larger",
            )
        forward, inverse = (ConvOperator(size, dilation, groups) for size in (kernel_size, inverse_size))
        weight = initial_kernel(channels, kernel_size, groups)
        super().__init__(
            Operators(forward, inverse),
            weight,
            resized(forward.transpose(weight), inverse_size),
            bias=bias,
            event_shape=(channels, None, None),
            tracking=tracking,
        )


@final
class SelfNormalizingStridedConv2d(Bijection):
    """z = w ⋆ₛ x + b with stride s equal to the kernel size and C·s² output channels, which makes the map square.

    Since the patches do not overlap, the matrix of the map has one C·s² × C·s² block per patch, and the layer equals a
    squeeze followed by a 1×1 convolution. The multiplicity of every tap is the number of patches, (H/s)(W/s).

    Args:
        channels: C, the number of channels of the data; the latents have C·s².
        stride: s, also the size of the kernel.
        bias: whether to add b, one number per channel of the latents.
        tracking: how the inverse kernel is kept close to the inverse, as in :class:`~snflow.SelfNormalizingConv2d`.

    Shapes:
        x: ``(batch, C, H, W)``, both sides multiples of s; z: ``(batch, C·s², H/s, W/s)``; log_det: ``(batch,)``,
        nats.

    Raises:
        ConfigError: fewer than one channel, or a stride below one.
        ShapeError: a side of the image is not a multiple of the stride.

    References:
        Keller et al. (2021), Self Normalizing Flows, eq. 27, A.2.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.SelfNormalizingStridedConv2d(3, 2)
        >>> z, log_det = layer(torch.randn(5, 3, 4, 6))
        >>> z.shape, layer.kernel.shape
        (torch.Size([5, 12, 2, 3]), torch.Size([12, 3, 2, 2]))
    """

    has_inversion_methods = True

    def __init__(self, channels: int, stride: int = 2, *, bias: bool = True, tracking: Tracking | None = None) -> None:
        super().__init__()
        check_count("SelfNormalizingStridedConv2d", "channels", channels)
        check_count("SelfNormalizingStridedConv2d", "stride", stride)
        self.squeeze = Squeeze(stride)
        self.conv = SelfNormalizingConv2d(channels * stride**2, 1, bias=bias, tracking=tracking)
        self.event_shape = (channels, None, None)

    @property
    def kernel(self) -> Tensor:
        """w as the kernel of a strided convolution, with shape ``(C·s², C, s, s)``."""
        factor = self.squeeze.factor
        return self.conv.weight.reshape(len(self.conv.weight), -1, factor, factor)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z_and_log_det: tuple[Tensor, Tensor] = self.conv(self.squeeze(x)[0])
        return z_and_log_det

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.conv.encode(self.squeeze.encode(x))

    def _inverse(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> tuple[Tensor, Tensor]:
        x, log_det = self.conv.inverse(z, inverse=inverse)
        return self.squeeze.decode(x), log_det

    def _decode(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> Tensor:
        return self.squeeze.decode(self.conv.decode(z, inverse=inverse))

    def _latent_shape(self, event_shape: Shape) -> Shape:
        return self.squeeze.latent_shape(event_shape)

    def _data_shape(self, latent_shape: Shape) -> Shape:
        return self.squeeze.data_shape(latent_shape)
