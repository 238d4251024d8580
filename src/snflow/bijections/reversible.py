"""Chains that recompute activations from outputs, with memory independent of depth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.distributions.constraints import Constraint

from snflow.bijections.base import Bijection, InverseMethod, Shape
from snflow.bijections.chain import Chain
from snflow.bijections.normalization import BatchNorm
from snflow.errors import ConfigError, ConvergenceError, check_choice
from snflow.numerics.devices import structure_device
from snflow.numerics.transforms import under_transform
from snflow.numerics.undifferentiable import once_differentiable

Undo = Callable[[Tensor, Tensor | None], Tensor]
Apply = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]

_TOLERANCE = 1e-3


@dataclass(frozen=True)
class _Step:
    """One layer in the direction of the pass, its inverse, and its parameters."""

    apply: Apply
    undo: Undo
    takes_context: bool
    parameters: tuple[nn.Parameter, ...]

    @classmethod
    def of(cls, layer: Bijection, apply: Apply, undo: Undo) -> _Step:
        return cls(apply, undo, layer.context_shape is not None, tuple(layer.parameters()))

    def context(self, context: Tensor | None) -> Tensor | None:
        return context if self.takes_context else None


@final
class Reversible(Bijection):
    """z = f_L(… f₁(x)), gradients from z alone: the backward pass recomputes each layer's input as f⁻¹(output).

    No activations between x and z are stored, so peak memory is that of one layer, regardless of depth, at the cost of
    one inverse pass and an additional forward pass. Random numbers are reproduced. The additional forward pass also
    measures how accurately each input was recovered: ``reconstruction_error`` is the largest difference in the last
    backward pass, relative to max(1, |output|). If it exceeds the tolerance, an error is raised, because the gradients
    would be wrong. A :class:`~snflow.BatchNorm` is refused, since its two directions differ in ``train()``.

    With ``inverse="learned"`` the backward pass inverts self-normalizing layers by their learned inverses, without a
    factorization. Gradients are then evaluated at inexact points: the errors of the learned inverses accumulate over
    the layers, and the error of the gradients is proportional to them.

    Args:
        layers: a :class:`~snflow.Chain` or bijections, from data to latent, all with an inverse.
        inverse: how the backward pass inverts self-normalizing layers.
        tolerance: the largest accepted ``reconstruction_error``; ``None`` for 1e-3, or no limit with ``"learned"``.

    Shapes:
        x: ``(batch, *event)``; z: ``(batch, *latent)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: a layer without an inverse, a batch normalization, or an unknown inversion method.
        ConvergenceError: in the backward pass, an input was not recovered within the tolerance.

    References:
        Gomez, Ren, Urtasun, Grosse (2017), The reversible residual network: backpropagation without storing
        activations.

    Example:
        >>> import torch, snflow
        >>> layers = [snflow.LULinear(3), snflow.SmoothLeakyReLU(), snflow.LULinear(3)]
        >>> x = torch.randn(4, 3)
        >>> z, log_det = snflow.Reversible(layers)(x)
        >>> torch.equal(z, snflow.Chain(layers)(x)[0])
        True
    """

    reconstruction_error: Tensor

    def __init__(
        self, layers: Iterable[Bijection], *, inverse: InverseMethod = "exact", tolerance: float | None = None
    ) -> None:
        super().__init__()
        check_choice("Reversible", "inverse", inverse, InverseMethod)
        self.chain = layers if isinstance(layers, Chain) else Chain(layers)
        if not self.chain.has_inverse:
            lacking = next(layer.label for layer in self.chain if not layer.has_inverse)
            raise ConfigError(
                "Reversible", expected="layers with inverses", got=f"{lacking}, which has none", fix="use a Chain"
            )
        if any(isinstance(part, BatchNorm) for part in self.chain.modules()):
            raise ConfigError(
                "Reversible",
                expected="layers whose two directions are inverses of each other in train() too",
                got="a BatchNorm",
                fix="use ActNorm",
            )
        self.event_shape, self.context_shape = self.chain.event_shape, self.chain.context_shape
        self.log_det_kind = self.chain.log_det_kind
        self.has_inversion_methods = self.chain.has_inversion_methods
        self.undoing: InverseMethod = inverse
        self.tolerance = tolerance if tolerance is not None else (torch.inf if inverse == "learned" else _TOLERANCE)
        self.register_buffer("reconstruction_error", torch.tensor(0.0, device=structure_device()), persistent=False)

    @property
    def domain(self) -> Constraint:
        """The domain of the chain."""
        return self.chain.domain

    @property
    def codomain(self) -> Constraint:
        """The codomain of the chain."""
        return self.chain.codomain

    def _preimage(self, latents: Constraint) -> Constraint:
        return self.chain.preimage(latents)

    def _image(self, data: Constraint) -> Constraint:
        return self.chain.image(data)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        steps = [_Step.of(layer, layer, partial(layer.decode, inverse=self.undoing)) for layer in self.chain]
        return self._run(steps, x, context)

    def _inverse(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> tuple[Tensor, Tensor]:
        steps = [
            _Step.of(layer, partial(layer.inverse, inverse=inverse), layer.encode)
            for layer in reversed(list(self.chain))
        ]
        return self._run(steps, z, context)

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self._forward(x, context)[0] if torch.is_grad_enabled() else self.chain.encode(x, context)

    def _decode(self, z: Tensor, context: Tensor | None, inverse: InverseMethod = "exact") -> Tensor:
        if torch.is_grad_enabled():
            return self._inverse(z, context, inverse)[0]
        return self.chain.decode(z, context, inverse=inverse)

    def _run(self, steps: list[_Step], x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        # a transform manages its own storage, and recomputed inputs could not be compared with the original ones
        if not torch.is_grad_enabled() or not steps or under_transform():
            total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
            for step in steps:
                x, log_det = step.apply(x, step.context(context))
                total = total + log_det
            return x, total
        found: tuple[Tensor, Tensor] = _Recomputed.apply(self, steps, x, context, *self.parameters())
        return found

    def _latent_shape(self, event_shape: Shape) -> Shape:
        return self.chain.latent_shape(event_shape)

    def _data_shape(self, latent_shape: Shape) -> Shape:
        return self.chain.data_shape(latent_shape)

    def note(self, error: Tensor) -> None:
        """Record the error of a backward pass, and raise an error if it exceeds the tolerance."""
        self.reconstruction_error.copy_(error)
        if not float(error) <= self.tolerance:
            raise ConvergenceError(
                "Reversible",
                expected=f"inputs recovered within {self.tolerance:g} of max(1, |output|)",
                got=f"{float(error):.2g}",
                fix="use a Chain, float64, or layers whose two directions are inverses of each other in train() too",
            )


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, owner: Reversible, steps: list[_Step], x: Tensor, context: Tensor | None, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.owner, ctx.steps, ctx.states, ctx.parameters = owner, steps, [], parameters
        total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for step in steps:
            ctx.states.append(_random_state(x))
            x, log_det = step.apply(x, step.context(context))
            total = total + log_det
        x = x.clone() if x._is_view() else x
        ctx.save_for_backward(x, context)
        return x, total

    @staticmethod
    @once_differentiable("Reversible", fix="use a Chain, which keeps what second derivatives need")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z, context = ctx.saved_tensors
        of_z, of_log_det = grads
        # Allocated before the large tensors of the loop: small tensors that outlive them would fragment the heap.
        summed = (*ctx.parameters, *(() if context is None else (context,)))
        sums = {id(tensor): torch.zeros_like(tensor) for tensor in summed if tensor.requires_grad}
        error = torch.zeros((), dtype=z.dtype, device=z.device)
        now = _random_state(z)
        for step, state in zip(reversed(ctx.steps), reversed(ctx.states), strict=True):
            with torch.no_grad():
                x = step.undo(z, step.context(context))
            _set_random_state(state, z)
            own_context = step.context(context)
            with torch.enable_grad():
                at = x.detach().requires_grad_()
                given = None if own_context is None else own_context.detach().requires_grad_()
                again, log_det = step.apply(at, given)
            error = torch.maximum(error, _difference(again.detach(), z))
            own = [p for p in step.parameters if p.requires_grad]
            wanted = [at, *([] if given is None else [given]), *own]
            pairs = [(out, g) for out, g in ((again, of_z), (log_det, of_log_det)) if out.requires_grad]
            found = torch.autograd.grad(
                [out for out, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True, materialize_grads=True
            )
            of_z, z = found[0], x
            for tensor, grad in zip([*([] if given is None else [context]), *own], found[1:], strict=True):
                if id(tensor) in sums:
                    sums[id(tensor)].add_(grad)
        _set_random_state(now, z)
        ctx.owner.note(error)
        return None, None, of_z, *(sums.get(id(tensor)) for tensor in (context, *ctx.parameters))


def _difference(again: Tensor, z: Tensor) -> Tensor:
    """The largest element of |again − z| / max(1, |z|) over the finite rows of z."""
    if z.numel() == 0:
        return torch.zeros((), dtype=z.dtype, device=z.device)
    rows = ((again - z).abs() / z.abs().clamp_min(1)).flatten(1).amax(1)
    finite = z.flatten(1).isfinite().all(1)
    return torch.where(finite, rows.nan_to_num(nan=torch.inf), 0.0).amax()


def _random_state(x: Tensor) -> Tensor:
    return torch.cuda.get_rng_state(x.device) if x.is_cuda else torch.get_rng_state()


def _set_random_state(state: Tensor, x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.set_rng_state(state, x.device)
    else:
        torch.set_rng_state(state)
