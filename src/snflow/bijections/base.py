"""The contract: ``z, log_det = bijection(x, context)`` and ``x, log_det = bijection.inverse(z, context)``."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, final

import torch
from torch import Tensor, nn

from snflow.errors import ContextError, DeviceError, DtypeError, NotInvertibleError, ShapeError

Shape = tuple[int, ...]
"""The shape of one event: everything behind the batch dimension."""

ShapePattern = tuple[int | None, ...]
"""An event shape in which ``None`` stands for any size."""

LogDetKind = Literal["exact", "estimate"]


class Bijection(nn.Module, ABC):
    """z = f(x) with log|det ∂z/∂x|: an invertible map from data x to latent z.

    ``forward`` always maps data to latent and ``inverse`` always maps back; :class:`~snflow.Inverse` swaps them.
    The first dimension is the batch, everything behind it is the event. ``log_det`` is in nats, one per sample.

    **To write a layer**, implement :meth:`_forward` and :meth:`_inverse` as plain mathematics and declare what you
    need below; the checks, the errors and the autocast policy are here, once. A class is abstract or final: methods
    are written once and never overridden, behaviour is added by wrapping.

    What a layer declares:
        event_shape: the data events that it takes, ``None`` for any, ``(3, None, None)`` for three channels.
        context_shape: the shape of one sample's context, ``None`` when it takes none.
        has_inverse: whether :meth:`inverse` exists.
        log_det_kind: ``"exact"``, or ``"estimate"`` for an unbiased one.

    What a layer may define:
        _latent_shape, _data_shape: for a layer that changes the event shape.
        _decode: the inverse without its log-determinant, where that is dear.

    The invertible mathematics never runs under autocast: a log-determinant summed in bfloat16 is off by nats.
    """

    event_shape: ShapePattern | None = None
    context_shape: Shape | None = None
    has_inverse: bool = True
    log_det_kind: LogDetKind = "exact"

    @abstractmethod
    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map data x ``(batch, *event)`` to latent z and log|det ∂z/∂x| ``(batch,)``."""

    @abstractmethod
    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map latent z ``(batch, *latent)`` to data x and log|det ∂x/∂z| ``(batch,)``."""

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        """Map latent z to data x alone."""
        return self._inverse(z, context)[0]

    def _latent_shape(self, event_shape: Shape) -> Shape:
        """Return the event shape of z for data of ``event_shape``."""
        return event_shape

    def _data_shape(self, latent_shape: Shape) -> Shape:
        """Return the event shape of x for latents of ``latent_shape``."""
        return latent_shape

    @final  # type: ignore[misc]  # torch declares forward as a writable attribute
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z = f(x), log|det ∂z/∂x|: from data to latent.

        Args:
            x: data, with shape ``(batch, *event)``.
            context: what the map is conditioned on, with shape ``(batch, *context_shape)``.

        Returns:
            z with shape ``(batch, *latent)`` and the log-determinant in nats with shape ``(batch,)``.

        Raises:
            ShapeError: the event or the batch of the context has another shape.
            DtypeError: the data have another dtype than the parameters.
            DeviceError: the data lie on another device than the parameters.
            ContextError: a context is missing, or is given where none is taken.
        """
        self._check(x, context)
        self.latent_shape(tuple(x.shape[1:]))
        with _without_autocast(x):
            return self._forward(x, context)

    @final
    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x = f⁻¹(z), log|det ∂x/∂z|: from latent to data.

        Args:
            z: latents, with shape ``(batch, *latent)``.
            context: what the map is conditioned on, with shape ``(batch, *context_shape)``.

        Returns:
            x with shape ``(batch, *event)`` and the log-determinant in nats with shape ``(batch,)``.

        Raises:
            NotInvertibleError: the layer has no inverse, or its weight is singular.
            ShapeError, DtypeError, DeviceError, ContextError: as in :meth:`forward`.
        """
        self._check_inverse(z, context)
        with _without_autocast(z):
            return self._inverse(z, context)

    @final
    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """x = f⁻¹(z), without the log-determinant: what sampling needs, and all that it pays for.

        Args:
            z: latents, with shape ``(batch, *latent)``.
            context: what the map is conditioned on, with shape ``(batch, *context_shape)``.

        Returns:
            x with shape ``(batch, *event)``.

        Raises:
            NotInvertibleError, ShapeError, DtypeError, DeviceError, ContextError: as in :meth:`inverse`.
        """
        self._check_inverse(z, context)
        with _without_autocast(z):
            return self._decode(z, context)

    @final
    def latent_shape(self, event_shape: Shape) -> Shape:
        """Return the event shape of z for data events of ``event_shape``, or raise :class:`ShapeError`."""
        self._check_event(event_shape)
        return self._latent_shape(event_shape)

    @final
    def data_shape(self, latent_shape: Shape) -> Shape:
        """Return the event shape of x for latents of ``latent_shape``, or raise :class:`ShapeError`."""
        event_shape = self._data_shape(latent_shape)
        self._check_event(event_shape)
        return event_shape

    @property
    def label(self) -> str:
        """The name by which errors speak of this layer."""
        return type(self).__name__

    def _check_inverse(self, z: Tensor, context: Tensor | None) -> None:
        if not self.has_inverse:
            raise NotInvertibleError(
                self.label,
                expected="a layer with an inverse",
                got="one that declares has_inverse = False",
                fix="use its forward direction, or another layer",
            )
        self._check(z, context)
        self.data_shape(tuple(z.shape[1:]))

    def _check_event(self, event_shape: Shape) -> None:
        pattern = self.event_shape
        if pattern is None:
            return
        if len(pattern) != len(event_shape) or any(
            p is not None and p != n for p, n in zip(pattern, event_shape, strict=True)
        ):
            wanted = ", ".join("any" if p is None else str(p) for p in pattern) + ("," if len(pattern) == 1 else "")
            raise ShapeError(
                self.label,
                expected=f"event shape ({wanted})",
                got=f"{event_shape}",
                fix="the first dimension is the batch, the event is everything behind it",
            )

    def _check(self, x: Tensor, context: Tensor | None) -> None:
        """Refuse, in one place, whatever a layer could trip over."""
        check_tensor(self.label, x)
        if x.dim() == 0:
            raise ShapeError(
                self.label, expected="shape (batch, *event)", got="a scalar", fix="add a batch dimension: x[None]"
            )
        own = next((t for t in itertools.chain(self.parameters(), self.buffers()) if t.is_floating_point()), None)
        if own is not None:
            dtype, device = own.dtype, own.device
            if x.device != device:
                raise DeviceError(
                    self.label,
                    expected=f"data on {device}",
                    got=f"data on {x.device}",
                    fix=f"call x.to({str(device)!r})",
                )
            if x.dtype != dtype:
                raise DtypeError(
                    self.label,
                    expected=f"{dtype}, the dtype of the layer",
                    got=f"{x.dtype}",
                    fix=f"call x.to({dtype}) or convert the flow with flow.to({x.dtype})",
                )
        elif not x.is_floating_point():
            raise DtypeError(
                self.label,
                expected="a floating dtype",
                got=f"{x.dtype}",
                fix="dequantize integer data, or call x.float()",
            )
        if context is not None or self.context_shape is not None:
            self._check_context(x, context)

    def _check_context(self, x: Tensor, context: Tensor | None) -> None:
        if self.context_shape is None:
            raise ContextError(
                self.label,
                expected="no context",
                got="one",
                fix="leave it out, or use a layer that is built with a context",
            )
        if context is None:
            raise ContextError(
                self.label,
                expected=f"a context with shape (batch, *{self.context_shape})",
                got="none",
                fix="pass context=…",
            )
        check_tensor(self.label, context)
        if tuple(context.shape) != (x.shape[0], *self.context_shape):
            raise ShapeError(
                self.label,
                expected=f"context shape {(x.shape[0], *self.context_shape)}",
                got=f"{tuple(context.shape)}",
                fix="give one row of context to each sample",
            )
        if context.dtype != x.dtype or context.device != x.device:
            raise DtypeError(
                self.label,
                expected=f"a context of {x.dtype} on {x.device}, like the data",
                got=f"{context.dtype} on {context.device}",
                fix="convert it with context.to(x)",
            )


def _without_autocast(x: Tensor) -> AbstractContextManager[object]:
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def check_tensor(where: str, value: object) -> None:
    """Refuse what is no dense tensor.

    Args:
        where: who asks.
        value: what was given.

    Raises:
        DtypeError: an array, a list, a sparse tensor, …

    Example:
        >>> check_tensor("Flow", torch.zeros(2))
    """
    if not isinstance(value, Tensor):
        raise DtypeError(where, expected="a torch.Tensor", got=type(value).__name__, fix="use torch.as_tensor")
    if value.layout != torch.strided:
        raise DtypeError(where, expected="a dense tensor", got=f"one of {value.layout}", fix="call x.to_dense()")
