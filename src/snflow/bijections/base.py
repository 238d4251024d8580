"""The contract: ``z, log_det = bijection(x, context)`` and ``x, log_det = bijection.inverse(z, context)``."""

from __future__ import annotations

import itertools
import math
import warnings
from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from snflow.bijections.domain import Preimage, contains, has_equal_bounds
from snflow.errors import (
    CheckedConstructor,
    ContextError,
    DeviceError,
    DtypeError,
    NotInvertibleError,
    NumericalWarning,
    ShapeError,
    check_choice,
)
from snflow.numerics.compilation import Reasons, number_of_new, run_uncompiled
from snflow.numerics.transforms import under_transform

Shape = tuple[int, ...]
"""The shape of one event: all dimensions after the batch."""

ShapePattern = tuple[int | None, ...]
"""An event shape in which ``None`` stands for any size."""

LogDetKind = Literal["exact", "estimate"]

InverseMethod = Literal["learned", "exact", "refined"]
"""``learned``: one pass through g. ``exact``: by factorization. ``refined``: an iterative solve preconditioned by g."""


class Bijection(nn.Module, metaclass=CheckedConstructor):
    """z = f(x) with log|det ∂z/∂x|: an invertible map from data x to latent z.

    ``forward`` always maps data to latent and ``inverse`` always maps back; :class:`~snflow.Inverse` swaps them.
    The first dimension is the batch, the others are the event. ``log_det`` is in nats, one per sample.

    **To write a layer**, implement :meth:`_forward` and :meth:`_inverse` as plain mathematics and set the attributes
    below where they differ from the defaults. This class handles the checks of arguments and results, the error
    messages and the autocast policy. A class is either abstract or final: concrete methods are never overridden, and
    behavior is added by wrapping.

    Attributes of a layer:
        event_shape: the event shape that it accepts; ``None`` for any, ``(3, None, None)`` for three channels.
        context_shape: the shape of one sample's context; ``None`` if the layer is unconditional.
        has_inverse: whether :meth:`inverse` is available.
        has_inversion_methods: whether the layer distinguishes ``"learned"``, ``"exact"`` and ``"refined"`` inverses.
            Only then is the method passed to ``_inverse(z, context, inverse)`` and ``_decode(z, context, inverse)``.
            A wrapper takes the value from the bijection that it wraps, and passes the method on.
        log_det_kind: ``"exact"``, or ``"estimate"`` for an unbiased estimate.
        rearranges: whether the layer only moves elements to other places.
        uncompiled: why ``torch.compile`` cannot trace a direction or an inversion method; for example, the number of
            steps depends on the data. It is then one operation of the compiled graph, which runs the plain code. A
            class attribute or a property.
        domain, codomain: the sets in which data and latents lie, usually intervals of every element, as constraints of
            ``torch.distributions``; all real numbers by default. A class attribute or a property. A wrapper derives
            them from the bijections that it wraps. Layers don't check them; distributions with validation do.

    Optional methods:
        _latent_shape, _data_shape: for a layer that changes the event shape.
        _encode, _decode: the map and its inverse without the log-determinant, if computing the latter is expensive or
            can fail.
        _preimage, _image: the set of data whose latents lie in a given set, and conversely, where it is known to be an
            interval of every element.

    Layers never run under autocast: a log-determinant summed in bfloat16 has an error of several nats.
    """

    event_shape: ShapePattern | None = None
    context_shape: Shape | None = None
    has_inverse: bool = True
    has_inversion_methods: bool = False
    log_det_kind: LogDetKind = "exact"
    rearranges: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.number = number_of_new(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy, which has a number of its own."""
        super().__setstate__(state)
        self.number = number_of_new(self)

    @property
    def uncompiled(self) -> Reasons:
        """What a compiler cannot trace."""
        return Reasons()

    @property
    def domain(self) -> Constraint:
        """The set in which data lie."""
        return constraints.real

    @property
    def codomain(self) -> Constraint:
        """The set in which latents lie."""
        return constraints.real

    @abstractmethod
    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map data x ``(batch, *event)`` to latent z and log|det ∂z/∂x| ``(batch,)``."""

    @abstractmethod
    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map latent z ``(batch, *latent)`` to data x and log|det ∂x/∂z| ``(batch,)``."""

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Map data x to latent z, without the log-determinant."""
        return self._forward(x, context)[0]

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        """Map latent z to data x, without the log-determinant."""
        return self._inverse(z, context)[0]

    def _latent_shape(self, event_shape: Shape) -> Shape:
        """Return the event shape of z for data of ``event_shape``."""
        return event_shape

    def _data_shape(self, latent_shape: Shape) -> Shape:
        """Return the event shape of x for latents of ``latent_shape``."""
        return latent_shape

    def _preimage(self, latents: Constraint) -> Constraint:
        """{x ∈ domain : f(x) ∈ latents}."""
        return latents if self.rearranges and has_equal_bounds(latents) else Preimage(self, latents)

    def _image(self, data: Constraint) -> Constraint:
        """{f(x) : x ∈ domain ∩ data}; the codomain, which is larger, of a layer without an inverse."""
        if self.rearranges and has_equal_bounds(data):
            return data
        return Preimage(self, data, backwards=True) if self.has_inverse else self.codomain

    @final  # type: ignore[misc]  # torch declares forward as a writable attribute
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z = f(x), log|det ∂z/∂x|: from data to latent.

        Args:
            x: data, with shape ``(batch, *event)``.
            context: the context on which the map is conditioned, with shape ``(batch, *context_shape)``.

        Returns:
            z with shape ``(batch, *latent)`` and the log-determinant in nats with shape ``(batch,)``.

        Raises:
            ShapeError: the event or the context has the wrong shape.
            DtypeError: the dtype of the data differs from that of the parameters, or is neither float32 nor float64.
            DeviceError: the data and the parameters are on different devices.
            ContextError: a context is missing, or was given to an unconditional layer.
        """
        self._check(x, context)
        latent_shape = self.latent_shape(tuple(x.shape[1:]))
        with _without_autocast(x):
            result: tuple[Tensor, Tensor] = self._result_of("_forward", x, context, shape=latent_shape)
        if not torch.compiler.is_compiling():
            self._check_pair(result, x, latent_shape, "_forward")
        return result

    @final
    def inverse(
        self, z: Tensor, context: Tensor | None = None, *, inverse: InverseMethod | None = None
    ) -> tuple[Tensor, Tensor]:
        """x = f⁻¹(z), log|det ∂x/∂z|: from latent to data.

        Args:
            z: latents, with shape ``(batch, *latent)``.
            context: the context on which the map is conditioned, with shape ``(batch, *context_shape)``.
            inverse: how self-normalizing layers are inverted: ``"exact"`` (the default), ``"learned"`` or
                ``"refined"``. It has no effect on other layers.

        Returns:
            x with shape ``(batch, *event)`` and the log-determinant in nats with shape ``(batch,)``.

        Raises:
            NotInvertibleError: the layer has no inverse, or its weight is singular.
            ConfigError: an unknown inversion method.
            ShapeError, DtypeError, DeviceError, ContextError: as in :meth:`forward`.

        Warns:
            NumericalWarning: on a CPU, if finite latents have an inverse with infinities or NaN.
        """
        data_shape = self._check_inverse(z, context, inverse)
        method = (inverse or "exact",) if self.has_inversion_methods else ()
        with _without_autocast(z):
            result: tuple[Tensor, Tensor] = self._result_of("_inverse", z, context, *method, shape=data_shape)
        if not torch.compiler.is_compiling():
            self._check_pair(result, z, data_shape, "_inverse")
            self._warn_if_lost(z, result[0])
        return result

    @final
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """z = f(x), without the log-determinant: defined even where the map is singular.

        Args:
            x: data, with shape ``(batch, *event)``.
            context: the context on which the map is conditioned, with shape ``(batch, *context_shape)``.

        Returns:
            z with shape ``(batch, *latent)``.

        Raises:
            ShapeError, DtypeError, DeviceError, ContextError: as in :meth:`forward`.
        """
        self._check(x, context)
        latent_shape = self.latent_shape(tuple(x.shape[1:]))
        with _without_autocast(x):
            z: Tensor = self._result_of("_encode", x, context, shape=latent_shape)
        if not torch.compiler.is_compiling():
            self._check_event_of_result(z, x, latent_shape, "_encode")
        return z

    @final
    def decode(self, z: Tensor, context: Tensor | None = None, *, inverse: InverseMethod | None = None) -> Tensor:
        """x = f⁻¹(z), without the log-determinant, which sampling does not need.

        Args:
            z: latents, with shape ``(batch, *latent)``.
            context: the context on which the map is conditioned, with shape ``(batch, *context_shape)``.
            inverse: how self-normalizing layers are inverted, as in :meth:`inverse`.

        Returns:
            x with shape ``(batch, *event)``.

        Raises:
            NotInvertibleError, ConfigError, ShapeError, DtypeError, DeviceError, ContextError: as in :meth:`inverse`.

        Warns:
            NumericalWarning: as in :meth:`inverse`.
        """
        data_shape = self._check_inverse(z, context, inverse)
        method = (inverse or "exact",) if self.has_inversion_methods else ()
        with _without_autocast(z):
            x: Tensor = self._result_of("_decode", z, context, *method, shape=data_shape)
        if not torch.compiler.is_compiling():
            self._check_event_of_result(x, z, data_shape, "_decode")
            self._warn_if_lost(z, x)
        return x

    @final
    @torch.no_grad()
    def roundtrip_error(
        self, x: Tensor, context: Tensor | None = None, *, inverse: InverseMethod | None = None
    ) -> Tensor:
        """maxᵢ |f⁻¹(f(x)) − x|ᵢ / max(1, |xᵢ|): how far the inverse is off at x, without gradients.

        Args:
            x: data, with shape ``(batch, *event)``.
            context: the context on which the map is conditioned, with shape ``(batch, *context_shape)``.
            inverse: how self-normalizing layers are inverted, as in :meth:`inverse`.

        Returns:
            One error per sample, with shape ``(batch,)``; infinite where a value is not finite. Layers that use
            statistics of the batch in ``train()`` are off by more there than in ``eval()``.

        Raises:
            NotInvertibleError, ConfigError, ShapeError, DtypeError, DeviceError, ContextError: as in :meth:`inverse`.

        Example:
            >>> import torch, snflow
            >>> layer = snflow.Dense(3).eval()
            >>> bool((layer.roundtrip_error(torch.randn(5, 3)) < 1e-5).all())
            True
        """
        return relative_error(self.decode(self.encode(x, context), context, inverse=inverse), x)

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

    @final
    def preimage(self, latents: Constraint) -> Constraint:
        """{x ∈ domain : f(x) ∈ latents}: the support of a flow, for the support of its base density.

        Args:
            latents: a set of elements or events of z.

        Returns:
            A set of elements where it is an interval, otherwise one of events, checked by evaluating f.
        """
        return self.domain if contains(latents, self.codomain) else self._preimage(latents)

    @final
    def image(self, data: Constraint) -> Constraint:
        """{f(x) : x ∈ domain ∩ data}, as :meth:`preimage`."""
        return self.codomain if contains(data, self.domain) else self._image(data)

    @property
    def label(self) -> str:
        """The name of this layer in error messages."""
        return type(self).__name__

    def _result_of(self, method: str, x: Tensor, context: Tensor | None, *how: str, shape: Shape) -> Any:
        """Call the method; in compiled code as one operation, if a compiler cannot trace it."""
        if torch.compiler.is_compiling():
            reasons = self.uncompiled
            why = reasons.forward if method in ("_forward", "_encode") else reasons.inverse
            why = why or (reasons.refined if how == ("refined",) else "")
            if why:
                result = run_uncompiled(self, method, x, context, *how, shape=shape, why=why)
                return result if method in ("_forward", "_inverse") else result[0]
        return getattr(self, method)(x, context, *how)

    def _check_inverse(self, z: Tensor, context: Tensor | None, inverse: InverseMethod | None) -> Shape:
        """Check the arguments of the inverse and return the event shape of the result."""
        if not self.has_inverse:
            raise NotInvertibleError(
                self.label,
                expected="a layer with an inverse",
                got="one that declares has_inverse = False",
                fix="use its forward direction, or another layer",
            )
        if inverse is not None:
            check_choice(self.label, "inverse", inverse, InverseMethod)
        self._check(z, context)
        return self.data_shape(tuple(z.shape[1:]))

    def _check_pair(self, result: object, given: Tensor, event_shape: Shape, method: str) -> None:
        """Check that ``method`` returned events and one log-determinant per sample."""
        if not isinstance(result, tuple) or len(result) != 2:
            raise DtypeError(
                self.label,
                expected=f"{method} to return two tensors, the event and the log-determinant",
                got=f"a {type(result).__name__}" + (f" of {len(result)}" if isinstance(result, tuple) else ""),
                fix="return z, log_det",
            )
        event, log_det = result
        self._check_event_of_result(event, given, event_shape, method)
        if not (isinstance(log_det, Tensor) and log_det.is_floating_point()):
            raise DtypeError(
                self.label,
                expected=f"{method} to return a log-determinant of a floating dtype",
                got=str(log_det.dtype if isinstance(log_det, Tensor) else type(log_det).__name__),
                fix="return x.new_zeros(len(x)) for a map that preserves volume",
            )
        if log_det.shape != (given.shape[0],):
            raise ShapeError(
                self.label,
                expected=f"{method} to return a log-determinant of shape {(given.shape[0],)}, one per sample",
                got=f"{tuple(log_det.shape)}",
                fix="sum over the event, or call .expand(len(x))",
            )

    def _check_event_of_result(self, event: object, given: Tensor, event_shape: Shape, method: str) -> None:
        if not isinstance(event, Tensor):
            raise DtypeError(self.label, expected=f"{method} to return a tensor of events", got=type(event).__name__)
        if event.shape != (given.shape[0], *event_shape):
            raise ShapeError(
                self.label,
                expected=f"{method} to return events of shape {(given.shape[0], *event_shape)}",
                got=f"{tuple(event.shape)}",
                fix="keep the shape, or define _latent_shape and _data_shape",
            )

    def _warn_if_lost(self, z: Tensor, x: Tensor) -> None:
        """Warn if finite latents have no finite inverse; on a CPU only, since elsewhere reading values takes longer."""
        if x.device.type != "cpu" or under_transform() or math.isfinite(x.detach().sum().item()):
            return
        if not bool((_is_finite(z) & ~_is_finite(x)).any()):
            return
        if any(isinstance(part, Bijection) for part in itertools.islice(self.modules(), 1, None)):
            return  # a chain or a wrapper, of which the part has warned
        message = f"{self.label}: some finite latents have no finite inverse in {x.dtype}: it overflows"
        fix = "use smaller latents" + (", or flow.double()" if x.dtype == torch.float32 else "")
        warnings.warn(f"{message}; {fix}", NumericalWarning, stacklevel=3)

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
                fix="pass data of shape (batch, *event)",
            )

    def _check(self, x: Tensor, context: Tensor | None) -> None:
        """Raise an error if x or the context does not fit the layer."""
        check_tensor(self.label, x)
        if x.dim() == 0:
            raise ShapeError(
                self.label, expected="shape (batch, *event)", got="a scalar", fix="add a batch dimension: x[None]"
            )
        own: Tensor | None = next(
            (p for p in self._parameters.values() if p is not None and p.is_floating_point()), None
        )
        if own is None:  # not by default: iterating over all submodules takes longer than a small layer itself
            own = next((t for t in itertools.chain(self.parameters(), self.buffers()) if t.is_floating_point()), None)
        if own is not None:
            dtype, device = own.dtype, own.device
            check_precision(self.label, dtype)
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
                    fix=f"call x.to({dtype})"
                    + (f" or convert the flow with flow.to({x.dtype})" if x.is_floating_point() else ""),
                )
        elif not x.is_floating_point():
            raise DtypeError(
                self.label,
                expected="a floating dtype",
                got=f"{x.dtype}",
                fix="dequantize integer data, or call x.float()",
            )
        else:
            check_precision(self.label, x.dtype)
        if context is not None or self.context_shape is not None:
            self._check_context(x, context)

    def _check_context(self, x: Tensor, context: Tensor | None) -> None:
        if self.context_shape is None:
            raise ContextError(
                self.label,
                expected="no context",
                got="one",
                fix="omit it, or build the layer with a context_shape",
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
                fix="pass one row of context per sample",
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


def _is_finite(rows: Tensor) -> Tensor:
    return rows.isfinite().reshape(len(rows), -1).all(1)


def relative_error(value: Tensor, wanted: Tensor) -> Tensor:
    """maxᵢ |valueᵢ − wantedᵢ| / max(1, |wantedᵢ|) of each row, infinite where it is not a number.

    Args:
        value: with shape ``(batch, *event)``.
        wanted: with the same shape.

    Returns:
        One error per row, with shape ``(batch,)``.

    Example:
        >>> relative_error(torch.tensor([[1.0, 11.0], [0.5, torch.nan]]), torch.tensor([[1.0, 10.0], [0.0, 0.0]]))
        tensor([0.1000,    inf])
    """
    errors = ((value - wanted).abs() / wanted.abs().clamp_min(1)).nan_to_num(nan=torch.inf, posinf=torch.inf)
    return errors.reshape(len(errors), math.prod(errors.shape[1:])).amax(1)


def check_precision(where: str, dtype: torch.dtype) -> None:
    """Raise an error for a dtype in which a log-density would be off by nats.

    Raises:
        DtypeError: the dtype is neither float32 nor float64.

    Example:
        >>> check_precision("Flow", torch.float32)
    """
    if dtype not in (torch.float32, torch.float64):
        raise DtypeError(
            where,
            expected="torch.float32 or torch.float64, since log-densities in 16 bits are off by nats",
            got=f"{dtype}",
            fix="call flow.to(torch.float32)",
        )


def check_tensor(where: str, value: object) -> None:
    """Raise an error unless the value is a dense tensor of one shape.

    Args:
        where: the name with which the message begins.
        value: the value to check.

    Raises:
        DtypeError: the value is an array, a list, a nested or sparse tensor, ….

    Example:
        >>> check_tensor("Flow", torch.zeros(2))
    """
    if not isinstance(value, Tensor):
        raise DtypeError(where, expected="a torch.Tensor", got=type(value).__name__, fix="use torch.as_tensor")
    if value.is_nested:
        raise DtypeError(where, expected="a tensor of one shape", got="a nested tensor", fix="stack its parts")
    if value.layout != torch.strided:
        raise DtypeError(where, expected="a dense tensor", got=f"one of {value.layout}", fix="call x.to_dense()")
