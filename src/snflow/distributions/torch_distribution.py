"""Flows and bijections as objects of ``torch.distributions``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution, Transform, constraints

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.domain import of_events
from snflow.distributions.base import leading_shape
from snflow.errors import CheckedConstructor, ConfigError, ContextError, ShapeError, check_event_shape

if TYPE_CHECKING:
    from snflow.distributions.flow import Flow


@final
class FlowDistribution(Distribution, metaclass=CheckedConstructor):
    """p(x | context) of a flow, as a ``torch.distributions.Distribution``, and one of Pyro's where Pyro is imported.

    Args:
        flow: the flow; it is not copied, and gradients reach its parameters.
        context: the values on which the flow is conditioned, with shape ``(*batch, *context_shape)``.
        batch_shape: the shape of a batch of identical distributions, without a context; set by :meth:`expand`.
        validate_args: whether ``log_prob`` checks shape and support; torch's default when ``None``.

    Raises:
        ContextError: a context is missing, or is given to an unconditional flow.
        ShapeError: the context does not end in the flow's context shape.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.Flow(snflow.LeakyReLU(), snflow.StandardNormal(2))
        >>> posterior = flow.distribution()
        >>> posterior.log_prob(posterior.sample((5, 3))).shape
        torch.Size([5, 3])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(
        self,
        flow: Flow,
        context: Tensor | None = None,
        *,
        batch_shape: Shape = (),
        validate_args: bool | None = None,
    ) -> None:
        _join_pyro()
        self.flow, self.context = flow, context
        self.has_rsample = flow.dequantization is None
        shape = _batch_shape(flow.bijection, context)
        super().__init__(shape if context is not None else Size(batch_shape), Size(flow.event_shape), validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """The support of the flow, given the context."""
        context, batch_shape = self.context, Size() if self.context is None else self.batch_shape
        return of_events(self.flow._elements, len(self.event_shape), context, batch_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        """Return the same distribution with a larger batch shape.

        Args:
            batch_shape: a shape to which the current batch shape broadcasts.
            _instance: the object to fill in; a new one by default.

        Raises:
            ShapeError: the current batch shape does not broadcast to it.
        """
        try:
            fits = torch.broadcast_shapes(self.batch_shape, tuple(batch_shape)) == Size(batch_shape)
        except RuntimeError:
            fits = False
        if not fits:
            raise ShapeError(
                "FlowDistribution",
                expected=f"a shape to which the batch shape {tuple(self.batch_shape)} broadcasts",
                got=f"{tuple(batch_shape)}",
            )
        new: FlowDistribution = self._get_checked_instance(FlowDistribution, _instance)
        new.flow, new.has_rsample = self.flow, self.has_rsample
        own = () if self.context is None else self.context.shape[len(self.batch_shape) :]
        new.context = None if self.context is None else self.context.expand(*batch_shape, *own)
        Distribution.__init__(new, Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

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
        x, context, lead = _rows(value, self.event_shape, self.context, self.batch_shape)
        if self._validate_args:
            self._validate_sample(value)
        return self.flow.log_prob(x, context).reshape(lead)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """x ~ p, without gradients, with shape ``(*sample_shape, *batch, *event)``."""
        n, context = self._count(sample_shape)
        return self.flow.sample(n, context).reshape(self._extended_shape(Size(sample_shape)))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """x ~ p, differentiable, with shape ``(*sample_shape, *batch, *event)``.

        Raises:
            ConfigError: the flow has a dequantization; its samples are integers, which have no derivative.
        """
        self._need_continuous()
        n, context = self._count(sample_shape)
        return self.flow.rsample(n, context).reshape(self._extended_shape(Size(sample_shape)))

    def rsample_and_log_prob(self, sample_shape: Any = ()) -> tuple[Tensor, Tensor]:
        """x ~ p, log p(x), from one pass.

        Args:
            sample_shape: the shape of the draws from each distribution of the batch.

        Returns:
            Data with shape ``(*sample_shape, *batch, *event)``, log-densities with shape ``(*sample_shape, *batch)``.

        Raises:
            ConfigError: the flow has a dequantization; its samples are integers, which have no derivative.
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
                expected="a flow on continuous data",
                got="one with a dequantization",
                fix="use sample, or flow.rsample for continuous values",
            )


def as_transform(
    bijection: Bijection, event_shape: int | Shape | None = None, *, context: Tensor | None = None
) -> Transform:
    """y = f⁻¹(x): a bijection as a ``torch.distributions.Transform``, which maps base to data.

    Transforms in torch map from base to data, bijections in snflow from data to latents. Calling the transform is
    therefore ``bijection.inverse``, its ``inv`` is ``bijection``, and ``log_abs_det_jacobian`` is −log|det ∂f|.

    Args:
        bijection: f, from data to latents.
        event_shape: D for vectors, or the shape of one sample of data; optional if the bijection determines it.
        context: the values on which the bijection is conditioned, with shape ``(*batch, *context_shape)``; ``batch``
            broadcasts with the dimensions before the event.

    Returns:
        A transform for ``TransformedDistribution`` and for Pyro. It is also a module, so that Pyro finds its
        parameters; its ``inv`` is not: train ``as_transform(Inverse(bijection))`` instead. Two transforms of the same
        bijection and context are equal.

    Raises:
        ConfigError: the bijection accepts events of any shape and ``event_shape`` is missing.
        ShapeError: the event shape does not fit the bijection.
        ContextError: a context is missing, or is given to an unconditional bijection.

    Example:
        >>> import torch, snflow
        >>> from torch.distributions import Independent, Normal, TransformedDistribution
        >>> base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
        >>> data = TransformedDistribution(base, as_transform(snflow.LeakyReLU(), 2))
        >>> data.log_prob(data.sample((5,))).shape
        torch.Size([5])
    """
    if event_shape is not None:
        return _BijectionTransform(bijection, check_event_shape("as_transform", event_shape), context)
    pattern = bijection.event_shape
    if pattern is None or None in pattern:
        raise ConfigError(
            "as_transform",
            expected=f"the event_shape of the data, which {bijection.label} does not determine",
            got="none",
            fix="pass event_shape=…",
        )
    return _BijectionTransform(bijection, tuple(n for n in pattern if n is not None), context)


@final
class _BijectionTransform(Transform, nn.Module):
    bijective = True

    def __init__(self, bijection: Bijection, event_shape: Shape, context: Tensor | None, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.bijection, self.context = bijection, context
        self.data_shape, self.latent_shape = event_shape, bijection.latent_shape(event_shape)
        self.batch_shape = _batch_shape(bijection, context)

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        return of_events(self.bijection.codomain, len(self.latent_shape), self.context, self.batch_shape)

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        return of_events(self.bijection.domain, len(self.data_shape), self.context, self.batch_shape)

    def with_cache(self, cache_size: int = 1) -> Transform:
        return _BijectionTransform(self.bijection, self.data_shape, self.context, cache_size)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _BijectionTransform):
            return False
        if self.bijection is not other.bijection or self.data_shape != other.data_shape:
            return False
        one, two = self.context, other.context
        return one is two or (one is not None and two is not None and torch.equal(one, two))

    def __hash__(self) -> int:
        return hash((id(self.bijection), self.data_shape))

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
        return self.bijection.encode(data, context).reshape(*lead, *self.latent_shape)


def _join_pyro() -> None:
    """Where Pyro is imported, make the flow's distribution one of its own.

    Pyro handles only instances of its mixin, and calls the methods that it adds, such as ``expand_by`` and ``mask``.
    The class becomes a virtual subclass with these methods. Pyro is not a dependency, and never imported from here.
    """
    mixin = getattr(sys.modules.get("pyro.distributions.torch_distribution"), "TorchDistributionMixin", None)
    if mixin is None or issubclass(FlowDistribution, mixin):
        return
    for parent in mixin.__mro__:
        if parent.__module__.startswith("pyro."):
            for name, member in vars(parent).items():
                if name == "__call__" or not (name.startswith("_") or hasattr(FlowDistribution, name)):
                    setattr(FlowDistribution, name, member)
    mixin.register(FlowDistribution)


def _batch_shape(bijection: Bijection, context: Tensor | None) -> Size:
    """Return the dimensions of the context before its own shape."""
    shape = bijection.context_shape
    if context is None:
        if shape is not None:
            dimensions = ", ".join(("*batch", *map(str, shape)))
            raise ContextError(
                bijection.label, expected=f"a context with shape ({dimensions})", got="none", fix="pass context=…"
            )
        return Size()
    if shape is None:
        raise ContextError(
            bijection.label, expected="no context", got="one", fix="leave it out: the flow is unconditional"
        )
    return leading_shape(bijection.label, "a context", context, shape, batch="*batch")


def _rows(
    value: Tensor, event_shape: Shape, context: Tensor | None, batch_shape: Size
) -> tuple[Tensor, Tensor | None, Size]:
    """Broadcast events and contexts, flatten their leading dimensions to one batch, and return those dimensions."""
    leading = leading_shape("torch.distributions facade", "values", value, event_shape, batch="*batch")
    leading = torch.broadcast_shapes(leading, batch_shape)
    events = value.expand(*leading, *event_shape).reshape(leading.numel(), *event_shape)
    if context is None:
        return events, None, leading
    own = context.shape[len(batch_shape) :]
    return events, context.expand(*leading, *own).reshape(leading.numel(), *own), leading


def _replace(shape: Any, old: Shape, new: Shape) -> Size:
    """Replace the event at the end of a shape."""
    split = len(shape) - len(old)
    if split < 0 or tuple(shape[split:]) != tuple(old):
        raise ShapeError("Transform", expected=f"a shape that ends in {old}", got=f"{tuple(shape)}")
    return Size((*shape[:split], *new))
