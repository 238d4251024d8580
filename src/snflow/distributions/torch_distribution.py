"""Flows as objects of ``torch.distributions``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, Transform, constraints

from snflow.bijections.base import Bijection, Shape
from snflow.errors import ConfigError, ContextError, ShapeError

if TYPE_CHECKING:
    from snflow.distributions.flow import Flow


@final
class FlowDistribution(Distribution):
    """p(x | context) of a flow, as a ``torch.distributions.Distribution``.

    Args:
        flow: the flow; it keeps its parameters, gradients reach them.
        context: what the flow is conditioned on, with shape ``(*batch, *context_shape)``.
        batch_shape: without a context, the shape of a batch of equal distributions; :meth:`expand` sets it.
        validate_args: whether ``log_prob`` checks shape and support, torch's default when ``None``.

    Raises:
        ContextError: a context is missing, or is given where none is taken.
        ShapeError: the context ends in another shape than the flow takes.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.Flow(snflow.LeakyReLU(), snflow.StandardNormal((2,)))
        >>> posterior = flow.distribution()
        >>> posterior.log_prob(posterior.sample((5, 3))).shape
        torch.Size([5, 3])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(
        self,
        flow: Flow,
        context: Tensor | None = None,
        batch_shape: Shape = (),
        validate_args: bool | None = None,
    ) -> None:
        self.flow, self.context = flow, context
        self.has_rsample = flow.dequantization is None
        shape = _batch_shape(flow.bijection, context)
        super().__init__(shape if context is not None else Size(batch_shape), Size(flow.event_shape), validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """Real numbers, or the levels of a dequantized flow."""
        dequantization = self.flow.dequantization
        single = (
            constraints.real if dequantization is None else constraints.integer_interval(0, dequantization.levels - 1)
        )
        return constraints.independent(single, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        """Return the same distribution with a larger batch shape.

        Args:
            batch_shape: a shape to which the present batch shape broadcasts.
            _instance: unused; torch's signature.
        """
        context = self.context
        if context is None:
            return FlowDistribution(self.flow, None, tuple(batch_shape), validate_args=self._validate_args)
        rows = context.expand(*batch_shape, *context.shape[len(self.batch_shape) :])
        return FlowDistribution(self.flow, rows, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value | context), in nats.

        Args:
            value: data, with shape ``(*sample, *batch, *event)``.

        Returns:
            Log-densities, with shape ``(*sample, *batch)``.

        Raises:
            ValueError: with validation, a value outside the support.
            ShapeError, DtypeError, DeviceError: as :meth:`Flow.log_prob`.
        """
        if self._validate_args:
            self._validate_sample(value)
        x, context, lead = _rows(value, self.event_shape, self.context, self.batch_shape)
        return self.flow.log_prob(x, context).reshape(lead)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """x ~ p, without gradients, with shape ``(*sample_shape, *batch, *event)``."""
        n, context = self._count(sample_shape)
        return self.flow.sample(n, context).reshape(self._extended_shape(Size(sample_shape)))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """x ~ p, differentiable, with shape ``(*sample_shape, *batch, *event)``.

        Raises:
            ConfigError: the flow is over levels, which have no derivative.
        """
        self._need_continuous()
        n, context = self._count(sample_shape)
        return self.flow.rsample(n, context).reshape(self._extended_shape(Size(sample_shape)))

    def rsample_and_log_prob(self, sample_shape: Any = ()) -> tuple[Tensor, Tensor]:
        """x ~ p, log p(x), from one pass.

        Args:
            sample_shape: how many draws of each distribution of the batch.

        Returns:
            Data with shape ``(*sample_shape, *batch, *event)``, log-densities with shape ``(*sample_shape, *batch)``.

        Raises:
            ConfigError: the flow is over levels, which have no derivative.
        """
        self._need_continuous()
        n, context = self._count(sample_shape)
        x, log_prob = self.flow.rsample_and_log_prob(n, context)
        lead = Size(sample_shape) + self.batch_shape
        return x.reshape(lead + self.event_shape), log_prob.reshape(lead)

    def _count(self, sample_shape: Any) -> tuple[int, Tensor | None]:
        if self.context is None:
            return (Size(sample_shape) + self.batch_shape).numel(), None
        rows = self.context.reshape(self.batch_shape.numel(), *self.context.shape[len(self.batch_shape) :])
        return Size(sample_shape).numel(), rows

    def _need_continuous(self) -> None:
        if not self.has_rsample:
            raise ConfigError(
                "FlowDistribution",
                expected="a flow over continuous data",
                got="one with a dequantization",
                fix="use sample, or flow.rsample for continuous values",
            )


def as_transform(bijection: Bijection, event_shape: Shape | None = None, context: Tensor | None = None) -> Transform:
    """y = f⁻¹(x): a bijection as a ``torch.distributions.Transform``, which maps base to data.

    Mind the direction: torch's transforms run from the base to the data, ours from data to latents. So calling the
    transform is ``bijection.inverse``, its ``inv`` is ``bijection``, and ``log_abs_det_jacobian`` is −log|det ∂f|.

    Args:
        bijection: f, from data to latents.
        event_shape: the shape of one sample of data; not needed where the bijection fixes it.
        context: what the bijection is conditioned on, with shape ``(*batch, *context_shape)``; it broadcasts against
            the dimensions in front of the event.

    Returns:
        A transform for ``TransformedDistribution`` and for Pyro.

    Raises:
        ConfigError: the bijection takes events of any shape and none is given.
        ShapeError: the event shape does not fit the bijection.
        ContextError: a context is missing, or is given where none is taken.

    Example:
        >>> import torch, snflow
        >>> from torch.distributions import Independent, Normal, TransformedDistribution
        >>> base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
        >>> data = TransformedDistribution(base, as_transform(snflow.LeakyReLU(), (2,)))
        >>> data.log_prob(data.sample((5,))).shape
        torch.Size([5])
    """
    if event_shape is None:
        pattern = bijection.event_shape
        if pattern is None or any(n is None for n in pattern):
            raise ConfigError(
                "as_transform",
                expected=f"the event_shape of the data, which {bijection.label} leaves open",
                got="none",
                fix="pass event_shape=…",
            )
        event_shape = tuple(n for n in pattern if n is not None)
    return _BijectionTransform(bijection, event_shape, context)


@final
class _BijectionTransform(Transform):
    bijective = True

    def __init__(self, bijection: Bijection, event_shape: Shape, context: Tensor | None, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.bijection, self.context = bijection, context
        self.data_shape, self.latent_shape = event_shape, bijection.latent_shape(event_shape)
        self.batch_shape = _batch_shape(bijection, context)

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        return constraints.independent(constraints.real, len(self.latent_shape))

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        return constraints.independent(constraints.real, len(self.data_shape))

    def with_cache(self, cache_size: int = 1) -> Transform:
        return _BijectionTransform(self.bijection, self.data_shape, self.context, cache_size)

    def forward_shape(self, shape: Any) -> Size:
        return _replace(shape, self.latent_shape, self.data_shape)

    def inverse_shape(self, shape: Any) -> Size:
        return _replace(shape, self.data_shape, self.latent_shape)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        data, context, lead = _rows(y, self.data_shape, self.context, self.batch_shape)
        log_det: Tensor = self.bijection(data, context)[1]
        return -log_det.reshape(lead)

    def _call(self, x: Tensor) -> Tensor:
        latents, context, lead = _rows(x, self.latent_shape, self.context, self.batch_shape)
        return self.bijection.decode(latents, context).reshape(*lead, *self.data_shape)

    def _inverse(self, y: Tensor) -> Tensor:
        data, context, lead = _rows(y, self.data_shape, self.context, self.batch_shape)
        latents: Tensor = self.bijection(data, context)[0]
        return latents.reshape(*lead, *self.latent_shape)


def _batch_shape(bijection: Bijection, context: Tensor | None) -> Size:
    """Return what stands in front of the context's own shape."""
    shape = bijection.context_shape
    if context is None:
        if shape is not None:
            raise ContextError(
                bijection.label, expected=f"a context with shape (*batch, *{shape})", got="none", fix="pass context=…"
            )
        return Size()
    if shape is None:
        raise ContextError(bijection.label, expected="no context", got="one", fix="leave it out: no layer takes one")
    split = context.dim() - len(shape)
    if split < 0 or tuple(context.shape[split:]) != shape:
        raise ShapeError(bijection.label, expected=f"context shape (*batch, *{shape})", got=f"{tuple(context.shape)}")
    return context.shape[:split]


def _rows(
    value: Tensor, event_shape: Shape, context: Tensor | None, batch_shape: Size
) -> tuple[Tensor, Tensor | None, Size]:
    """Broadcast events and contexts, flatten what stands in front of them to one batch, and return that shape."""
    split = value.dim() - len(event_shape)
    if split < 0 or tuple(value.shape[split:]) != tuple(event_shape):
        raise ShapeError(
            "torch.distributions facade",
            expected=f"values that end in shape {tuple(event_shape)}",
            got=f"{tuple(value.shape)}",
        )
    lead = torch.broadcast_shapes(value.shape[:split], batch_shape)
    events = value.expand(*lead, *event_shape).reshape(lead.numel(), *event_shape)
    if context is None:
        return events, None, lead
    own = context.shape[len(batch_shape) :]
    return events, context.expand(*lead, *own).reshape(lead.numel(), *own), lead


def _replace(shape: Any, old: Shape, new: Shape) -> Size:
    if tuple(shape[len(shape) - len(old) :]) != old:
        raise ShapeError("Transform", expected=f"a shape that ends in {old}", got=f"{tuple(shape)}")
    return Size((*shape[: len(shape) - len(old)], *new))
