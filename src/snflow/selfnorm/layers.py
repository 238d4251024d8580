"""Self-normalizing layers: dense, convolutional and strided."""

from __future__ import annotations

from functools import partial
from typing import Unpack, final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection, InverseMethod, Shape, ShapePattern
from snflow.bijections.linear import Initialization, LinearMap, initial_kernel, initial_matrix
from snflow.bijections.reshaping import Squeeze
from snflow.errors import ConfigError, check_choice, check_count, check_kernel
from snflow.numerics.implicit import implicit_solution
from snflow.numerics.krylov import refine
from snflow.numerics.operators.conv import ConvOperator, resized
from snflow.numerics.operators.dense import DenseOperator, TransposedDenseOperator
from snflow.numerics.probes import rademacher, sum_event
from snflow.numerics.transforms import is_traced, outside_transforms, under_transform
from snflow.selfnorm.gradient import GradientRule, Operators, self_normalized
from snflow.selfnorm.multiplier import update_multiplier
from snflow.selfnorm.options import LearnedInverse, LearnedInverseArguments
from snflow.selfnorm.tracking import Layer, Step, contracted, refit, repair, track

SAMPLE = 4096
"""Entries of the weight by which a tracked layer sees that it has changed: an optimizer's step moves nearly all."""

ERROR_ROWS = 8
"""Rows of a batch on which a layer without a penalty measures its reconstruction error."""


class SelfNormalizingMap(LinearMap):
    """z = A(w) x + b beside g(z) = A(r)(z − b) ≈ x: abstract parent of the self-normalizing layers.

    In ``train()`` the log-determinant carries the gradient of :func:`~snflow.selfnorm.gradient.self_normalized` and
    the last exact value. In ``eval()`` value and gradient are exact. ``inverse=`` chooses the inversion method:
    ``"exact"`` (a factorisation, the default), ``"learned"`` (g, one pass, with log|det A(r)|), ``"refined"`` (an
    iterative solve that g preconditions, without a factorisation when only x is asked for, see ``decode``).

    How r stays near the inverse is said by :class:`~snflow.selfnorm.LearnedInverse`. With ``inverse_tracking`` set to
    ``"newton"`` or ``"secant"`` r is a buffer, and a training forward whose weight has changed moves it first. With
    ``"penalty"`` it is a parameter of the optimizer, and a guard repairs it where it is lost. Both happen inside of
    ``forward``, so that a plain training loop needs nothing more; around a compiled or a recorded one,
    :class:`~snflow.selfnorm.Followers` does it. Where a transform of ``torch.func`` follows the weight, r is not moved
    and the multiplier neither: there is nothing that could be kept.

    Attributes:
        inverse_weight: r, a parameter or a buffer.
        penalty_weight: λ ≥ 0, a buffer, moved by the multiplier.
        learned: the options.
        follows_itself: whether a training forward moves r, as it does unless somebody else has taken that over; r is
            then changed in place.
        refine_tolerance: the relative residual at which ``"refined"`` stops; ``None`` is about what the dtype holds.
        reconstruction_error: mean of ‖g(f(x)) − x‖² over the last training batch, a scalar; over the rows that are
            penalised where some are, over its first eight where none is.
        repairs: how often the guard had to step in, a scalar.
        tracking_steps: how often r was moved by a step of its own, the guard's left out, a scalar.
    """

    has_inversion_methods = True
    inverse_weight: nn.Parameter | Tensor
    penalty_weight: Tensor
    reconstruction_error: Tensor
    repairs: Tensor
    tracking_steps: Tensor
    _constraint: Tensor
    _floor: Tensor
    _forwards: Tensor

    def __init__(
        self,
        operators: Operators,
        weight: Tensor,
        inverse_weight: Tensor,
        *,
        bias: bool,
        event_shape: ShapePattern,
        learned: LearnedInverse,
    ) -> None:
        super().__init__(operators.forward, weight, bias=bias, event_shape=event_shape)
        self.operators, self.learned = operators, learned
        first = inverse_weight.clone(memory_format=torch.contiguous_format)
        followed = learned.inverse_tracking == "penalty"
        terms = learned.neumann_terms
        if followed:
            self.inverse_weight = nn.Parameter(first)
        else:
            self.register_buffer("inverse_weight", first)
        scalar = partial(torch.tensor, dtype=weight.dtype)
        self.register_buffer("penalty_weight", scalar(learned.penalty_weight if followed else learned.tracking_pull))
        self.register_buffer("reconstruction_error", scalar(0.0), persistent=False)
        self.register_buffer("repairs", torch.tensor(0))
        self.register_buffer("tracking_steps", torch.tensor(0))
        self.register_buffer("_constraint", scalar(0.0))
        self.register_buffer("_floor", scalar(0.0))
        self.register_buffer("_forwards", torch.tensor(0))
        self._counted: int | None = 0
        self._seen: Tensor | None = None
        self.register_load_state_dict_post_hook(_forget_progress)
        self.rule = GradientRule(
            weight_share=0.5 if followed else 1.0,
            inverse_share=0.5 if followed else 0.0,
            penalized_weight=not learned.penalty_only_inverse if followed else learned.tracking_pull > 0,
            penalized_inverse=followed,
            symmetric_penalty=learned.symmetric_penalty,
            neumann_terms=int(not (followed or operators.inverse.closed)) if terms is None else terms,
        )
        self.refine_tolerance: float | None = None
        self.follows_itself = True

    def learned_log_det(self, event_shape: Shape) -> Tensor:
        """log|det A(r)| in nats for events of ``event_shape``, a scalar, exact in value and gradient."""
        return self._exact_log_det("inverse_weight", event_shape)

    @torch.no_grad()
    def inverse_residual(self, event_shape: Shape, probes: int = 8) -> Tensor:
        """‖A(r) A(w) − I‖_F / √D, estimated from Rademacher probes v as √ mean ‖A(r) A(w) v − v‖² / D.

        Args:
            event_shape: the shape of one event, of D elements.
            probes: the number of probes, the same at each call.

        Returns:
            The estimate, a scalar without gradient.
        """
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(2, (probes, *event_shape), generator=generator)
        v = (2 * signs - 1).to(self.weight)
        error = self.operators.inverse.product(self.inverse_weight, self.operator.product(self.weight, v)) - v
        return error.square().mean().sqrt()

    @torch.no_grad()
    def follow(self, event_shape: Shape, steps: int = 1) -> None:
        """Move r after w: the tracking step of ``newton`` and ``secant``, or the look of the guard when it is due.

        A training forward does this by itself, unless it is compiled, or :attr:`follows_itself` is False.

        Args:
            event_shape: the shape of one event.
            steps: the training steps since the last call.
        """
        if self.learned.inverse_tracking != "penalty":
            if self._has_changed():
                self._take(track(self._layer(event_shape), self.learned, float(self._floor)), self.tracking_steps)
        elif self.learned.guard:
            if self._counted is None:
                self._counted = int(self._forwards)
            looks_before = self._counted // self.learned.guard_every
            self._counted += steps
            self._forwards.add_(steps)
            if self._counted // self.learned.guard_every > looks_before:
                self._take(repair(self._layer(event_shape), self.learned, float(self._floor)), self.repairs)

    @torch.no_grad()
    def polish(self) -> bool:
        """R ← R + R(I − WR) in place, where ‖I − WR‖_F/√D < 0.7: a Newton step that reads no number and never waits.

        Between two calls of :meth:`follow`, which looks whether the step converges at all.

        Returns:
            Whether this layer is one that such a step follows: ``newton``, with an inverse that is a matrix.
        """
        if self.learned.inverse_tracking != "newton" or not self.operators.inverse.closed:
            return False
        inverses = self.operators.inverse.matrices(self.inverse_weight)
        moved = contracted(self.operators.forward.matrices(self.weight), inverses)
        self.inverse_weight.copy_(self.operators.inverse.from_matrices(moved))
        self.tracking_steps.add_(1)
        return True

    @torch.no_grad()
    def refresh_inverse(self, event_shape: Shape) -> None:
        """Set r to the best inverse of the present w, for weights that were put there from outside.

        Args:
            event_shape: the shape of one event.
        """
        self._take(refit(self._layer(event_shape), self.learned), None)

    def _layer(self, event_shape: Shape) -> Layer:
        return Layer(self.weight.detach(), self.inverse_weight.detach(), self.operators, event_shape)

    def _take(self, step: Step | None, counter: Tensor | None) -> None:
        if step is not None:
            new = step.inverse_weight.to(self.inverse_weight).contiguous()
            if not self.follows_itself:
                self.inverse_weight.copy_(new)  # a recorded step reads this very memory
            # Put in place of the old one, which a backward pass that is still to come may have saved.
            elif isinstance(self.inverse_weight, nn.Parameter):
                self.inverse_weight.data = new
            else:
                self.inverse_weight = new
            self._floor.fill_(step.floor)
            if counter is not None:
                counter.add_(1)

    def _has_changed(self) -> bool:
        """Whether some of the weight's entries differ from those at the last call."""
        flat = self.weight.detach().flatten()
        sample = flat[:: max(1, len(flat) // SAMPLE)]
        seen = self._seen
        comparable = seen is not None and seen.dtype == sample.dtype and seen.device == sample.device
        if comparable and torch.equal(seen, sample):  # type: ignore[arg-type]
            return False
        self._seen = sample.clone()
        return True

    def _training_forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        event_shape = tuple(x.shape[1:])
        if self.follows_itself and not torch.compiler.is_compiling() and not is_traced(self.weight):
            with outside_transforms():
                self.follow(event_shape)
        learned = self.learned
        probes = rademacher(learned.neumann_probes, event_shape, x) if self.rule.neumann_terms else None
        s, log_det, error = self_normalized(
            x,
            self.weight,
            self.inverse_weight,
            self.penalty_weight.clone() if learned.multiplier != "constant" else self.penalty_weight,
            self._last_log_det(event_shape),
            self.operators,
            self.rule,
            probes,
            self._penalized_rows(x),
        )
        if not under_transform():
            self._note_error(x.detach(), s.detach(), error)
        return s, log_det

    def _penalized_rows(self, x: Tensor) -> Tensor | None:
        count = self.learned.penalty_samples
        if count is None or count >= x.shape[0] or not self.rule.penalized:
            return None
        return torch.randperm(x.shape[0], device=x.device)[:count]

    @torch.no_grad()
    def _note_error(self, x: Tensor, s: Tensor, error: Tensor) -> None:
        if not self.rule.penalized:
            x = x[:ERROR_ROWS]
            error = sum_event((self.operators.inverse.product(self.inverse_weight, s[:ERROR_ROWS]) - x).square())
        mean = error.mean()
        self.reconstruction_error.copy_(mean)
        if self.learned.multiplier != "constant":
            energy = sum_event(x.square()).mean()
            update_multiplier(self.penalty_weight, self._constraint, mean, energy, self.learned)

    def _inverse(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> tuple[Tensor, Tensor]:
        event_shape = tuple(z.shape[1:])
        learned = inverse == "learned"
        log_det = self.learned_log_det(event_shape) if learned else -self.exact_log_det(event_shape)
        return self._decode(z, context, inverse), log_det.expand(z.shape[0])

    def _decode(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> Tensor:
        y = self._unbiased(z)
        if inverse == "learned":
            return self.operators.inverse.product(self.inverse_weight, y)
        return self._refine(y) if inverse == "refined" else self._solve(y)

    def _refine(self, y: Tensor) -> Tensor:
        a, g, w, r = self.operator, self.operators.inverse, self.weight.detach(), self.inverse_weight.detach()
        solve = partial(refine, owner=self.label, tolerance=self.refine_tolerance)
        with torch.no_grad():
            solution = solve(lambda x: a.product(w, x), lambda v: g.product(r, v), y.detach())
        if not torch.is_grad_enabled():
            return solution
        return implicit_solution(
            solution,
            y - a.product(self.weight, solution),
            lambda v: solve(lambda x: a.transposed_product(w, x), lambda u: g.transposed_product(r, u), v),
        )

    def __getstate__(self) -> dict[str, object]:
        """Leave out what is made anew on demand."""
        return {**super().__getstate__(), "_seen": None}

    def extra_repr(self) -> str:
        """What ``print(layer)`` shows."""
        tracking = self.learned.inverse_tracking
        how = f"penalty_weight={float(self.penalty_weight):g}" if tracking == "penalty" else f"{tracking=!s}"
        return f"{', '.join(map(str, self.weight.shape[1:]))}, bias={self.bias is not None}, {how}"


def _forget_progress(layer: nn.Module, _: object) -> None:
    if isinstance(layer, SelfNormalizingMap):
        layer._counted = None
        layer._seen = None


@final
class SelfNormalizingDense(SelfNormalizingMap):
    """z = W x + b, log|det W|, trained with a learned inverse R ≈ W⁻¹ in place of W⁻¹: O(batch · D²), no determinant.

    The gradient of ½ log p^f + ½ log p^g − λ‖RWx − x‖² reaches the parameters through ``log_det``: call
    ``(-flow.log_prob(x)).mean().backward()`` and step any optimizer.

    Args:
        features: D.
        bias: whether b is there.
        initialization: W is ``"identity"`` plus small noise, or ``"orthogonal"``; R = Wᵀ at first.
        learned: how R is kept near W⁻¹, the fields of :class:`~snflow.LearnedInverse`: ``penalty_weight=1.0``,
            ``inverse_tracking="penalty"`` and others.

    Attributes:
        inverse_weight: r = Rᵀ ≈ W⁻ᵀ, with the shape of W: that is how it enters the gradient of log|det W|.

    Shapes:
        x, z: ``(batch, features)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one feature, or an option of the learned inverse out of its range.

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
        bias: bool = True,
        *,
        initialization: Initialization = "identity",
        **learned: Unpack[LearnedInverseArguments],
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
            learned=LearnedInverse(**learned),
        )

    @property
    def inverse_matrix(self) -> Tensor:
        """R ≈ W⁻¹, with shape ``(features, features)``: a view of the inverse weight, which is its transpose."""
        return self.inverse_weight.mT


@final
class SelfNormalizingConv2d(SelfNormalizingMap):
    """z = w ⋆ x + b, log|det T(w)|, trained with a learned inverse kernel r in place of T(w)⁻¹: no determinant.

    The gradient of log|det T(w)| is flip(r) ⊙ m, where the multiplicity m counts the pixels at which each tap of the
    zero-padded kernel meets the image; for a 1×1 kernel m = H·W. A training step costs six convolutions.

    Args:
        channels: C, in and out.
        kernel_size: k, odd.
        bias: whether b, one number a channel, is there.
        inverse_kernel_size: the size of r, odd, k or larger; k when ``None``. The inverse of a convolution reaches
            further than the convolution, so that a larger r comes nearer to it. The gradients by w and r see the part
            that their kernels share: flip(r) is cut to the centre for w, flip(w) padded with zeros for r.
        dilation: distance between two taps of w and of r, in pixels.
        groups: number of groups of channels that do not see each other.
        learned: how r is kept near the inverse, the fields of :class:`~snflow.LearnedInverse`:
            ``penalty_weight=1.0``, ``inverse_tracking="penalty"`` and others.

    Shapes:
        x, z: ``(batch, channels, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one channel, an even kernel, an inverse kernel smaller than the kernel, groups that
            do not divide the channels, or an option of the learned inverse out of its range.

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
        bias: bool = True,
        *,
        inverse_kernel_size: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        **learned: Unpack[LearnedInverseArguments],
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
                fix="leave inverse_kernel_size out, or make it larger",
            )
        forward, inverse = (ConvOperator(size, dilation, groups) for size in (kernel_size, inverse_size))
        weight = initial_kernel(channels, kernel_size, groups)
        super().__init__(
            Operators(forward, inverse),
            weight,
            resized(forward.transpose(weight), inverse_size),
            bias=bias,
            event_shape=(channels, None, None),
            learned=LearnedInverse(**learned),
        )


@final
class SelfNormalizingStridedConv2d(Bijection):
    """z = w ⋆ₛ x + b with stride s = kernel size and C·s² channels out: square, since each patch has C·s² pixels.

    The patches do not overlap, so that the matrix of the map has one C·s² × C·s² block a patch: a squeeze and a 1×1
    convolution. The multiplicity of every tap is the number of patches, (H/s)(W/s).

    Args:
        channels: C, of the data; the latents have C·s².
        stride: s, also the size of the kernel.
        bias: whether b, one number a channel of the latents, is there.
        learned: how the inverse kernel is kept near the inverse, the fields of :class:`~snflow.LearnedInverse`.

    Shapes:
        x: ``(batch, C, H, W)``, both sides multiples of s; z: ``(batch, C·s², H/s, W/s)``; log_det: ``(batch,)``,
        nats.

    Raises:
        ConfigError: fewer than one channel, a stride below 2, or an option of the learned inverse out of its range.
        ShapeError: a side of the image is no multiple of the stride.

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

    def __init__(
        self, channels: int, stride: int = 2, bias: bool = True, **learned: Unpack[LearnedInverseArguments]
    ) -> None:
        super().__init__()
        self.squeeze = Squeeze(stride)
        self.conv = SelfNormalizingConv2d(channels * stride**2, 1, bias, **learned)
        self.event_shape = (channels, None, None)

    @property
    def kernel(self) -> Tensor:
        """w as a strided convolution takes it, with shape ``(C·s², C, s, s)``."""
        factor = self.squeeze.factor
        return self.conv.weight.reshape(len(self.conv.weight), -1, factor, factor)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z_and_log_det: tuple[Tensor, Tensor] = self.conv(self.squeeze(x)[0])
        return z_and_log_det

    def _inverse(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> tuple[Tensor, Tensor]:
        x, log_det = self.conv.inverse(z, inverse=inverse)
        return self.squeeze.decode(x), log_det

    def _decode(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> Tensor:
        return self.squeeze.decode(self.conv.decode(z, inverse=inverse))

    def _latent_shape(self, event_shape: Shape) -> Shape:
        return self.squeeze.latent_shape(event_shape)

    def _data_shape(self, latent_shape: Shape) -> Shape:
        return self.squeeze.data_shape(latent_shape)
