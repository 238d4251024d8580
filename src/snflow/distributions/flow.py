"""The flow: a bijection and a base density as one distribution, and its likelihood on data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar, final

import torch
from torch import Generator, Tensor, nn

from snflow.bijections.base import Bijection, InverseMethod, Shape, check_tensor
from snflow.distributions.base import BaseDensity
from snflow.distributions.dequantization import Dequantization
from snflow.distributions.torch_distribution import FlowDistribution
from snflow.errors import ConfigError, ContextError, DataError, DeviceError, ShapeError


@final
class Flow(nn.Module):
    """log p(x) = log p_base(f(x)) + log|det ∂f/∂x|: the density of x when z = f(x) follows the base density.

    With a dequantization the data are levels k of an integer dtype, log p is the bound log p(k + u) − log q(u | k) in
    nats of the discrete image, and samples are levels again. Calling the flow is :meth:`log_prob`, so that
    ``DistributedDataParallel`` and ``torch.compile`` work on it. Latents, and data made continuous, have the dtype and
    the device of the base density, which follow ``flow.to(…)``.

    Args:
        bijection: f, from data to latents.
        base: the density of the latents.
        dequantization: how integer data become continuous; ``None`` for continuous data.

    Raises:
        ShapeError: the base density has another event shape than the latents of the bijection.
        ConfigError: an argument is of another kind.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.Flow(snflow.LeakyReLU(), snflow.StandardNormal((2,)))
        >>> flow.log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
        >>> flow.sample(3).shape
        torch.Size([3, 2])
    """

    def __init__(self, bijection: Bijection, base: BaseDensity, dequantization: Dequantization | None = None) -> None:
        super().__init__()
        for name, part, kind in (
            ("bijection", bijection, Bijection),
            ("base", base, BaseDensity),
            ("dequantization", dequantization, (Dequantization, type(None))),
        ):
            if not isinstance(part, kind):
                raise ConfigError(
                    "Flow",
                    expected=f"{name} to be a {name.capitalize() if name != 'base' else 'BaseDensity'}",
                    got=type(part).__name__,
                    fix="the order is Flow(bijection, base, dequantization)",
                )
        self.bijection = bijection
        self.base = base
        self.dequantization = dequantization
        self._event_shape = _data_shape(bijection, base)

    @property
    def event_shape(self) -> Shape:
        """The shape of one sample of data."""
        return self._event_shape

    def log_prob(self, x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        """log p(x | context), in nats.

        Args:
            x: data, with shape ``(batch, *event)``; integers when the flow has a dequantization.
            context: what the flow is conditioned on, with shape ``(batch, *context_shape)``.
            generator: where the dequantization noise comes from; torch's global generator when ``None``.

        Returns:
            One log-density per sample, with shape ``(batch,)``. The gradient is what the layers declare: exact, or in
            training the self-normalized one.

        Raises:
            ShapeError, DtypeError, DeviceError, ContextError: the data or the context do not fit the flow.
            DataError: integer data outside the levels.
        """
        x, log_q = self._continuous(x, generator)
        z, log_det = self.bijection(x, context)
        log_prob: Tensor = self.base.log_prob(z) + log_det
        return log_prob if log_q is None else log_prob - log_q

    def forward(self, x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        """log p(x | context): as :meth:`log_prob`."""
        return self.log_prob(x, context, generator=generator)

    def encode(self, x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        """z = f(x), of data made continuous first where the flow has a dequantization.

        Args:
            x: data, with shape ``(batch, *event)``.
            context: what the flow is conditioned on, with shape ``(batch, *context_shape)``.
            generator: where the dequantization noise comes from.

        Returns:
            Latents, with shape ``(batch, *latent)``.

        Raises:
            ShapeError, DtypeError, DeviceError, ContextError, DataError: as :meth:`log_prob`.
        """
        z: Tensor = self.bijection(self._continuous(x, generator)[0], context)[0]
        return z

    def decode(self, z: Tensor, context: Tensor | None = None, *, inverse: InverseMethod | None = None) -> Tensor:
        """x = f⁻¹(z), as levels where the flow has a dequantization: ``decode(encode(x))`` is x.

        Args:
            z: latents, with shape ``(batch, *latent)``.
            context: what the flow is conditioned on, with shape ``(batch, *context_shape)``.
            inverse: how self-normalizing layers go back, ``"learned"``, ``"exact"`` or ``"refined"``; ``None`` leaves
                it to each layer.

        Returns:
            Data, with shape ``(batch, *event)``.

        Raises:
            NotInvertibleError: a layer has no inverse, or its weight is singular.
            ShapeError, DtypeError, DeviceError, ContextError: the latents or the context do not fit the flow.
        """
        return self._as_data(self.bijection.decode(z, context, inverse=inverse))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        *,
        inverse: InverseMethod | None = None,
        temperature: float = 1.0,
        generator: Generator | None = None,
    ) -> Tensor:
        """x = f⁻¹(z) with z ~ base: new data, without gradients.

        Args:
            n: how many; with a context, how many for each of its rows.
            context: what the flow is conditioned on, with shape ``(m, *context_shape)``.
            inverse: how self-normalizing layers go back, ``"learned"``, ``"exact"`` or ``"refined"``; ``None`` leaves
                it to each layer.
            temperature: factor on the deviation of the base density; below 1 the samples are more typical.
            generator: where the latents come from; torch's global generator when ``None``.

        Returns:
            Data with shape ``(n, *event)``, with a context ``(n, m, *event)``; levels where the flow has a
            dequantization.

        Raises:
            NotInvertibleError: a layer has no inverse, or its weight is singular.
            ConfigError: the number, the temperature or the way back is none.
            ShapeError, ContextError: the context does not fit the flow.
        """
        return self._as_data(self.rsample(n, context, inverse=inverse, temperature=temperature, generator=generator))

    def rsample(
        self,
        n: int,
        context: Tensor | None = None,
        *,
        inverse: InverseMethod | None = None,
        temperature: float = 1.0,
        generator: Generator | None = None,
    ) -> Tensor:
        """x = f⁻¹(z) with z ~ base, as a differentiable function of the parameters and the context.

        Arguments, shapes and errors are those of :meth:`sample`; the data are always continuous.
        """
        z, rows, shape = self._latents(n, context, temperature, generator)
        return self.bijection.decode(z, rows, inverse=inverse).reshape(*shape, *self.event_shape)

    def rsample_and_log_prob(
        self,
        n: int,
        context: Tensor | None = None,
        *,
        inverse: InverseMethod | None = None,
        generator: Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x = f⁻¹(z), log p(x) = log p_base(z) − log|det ∂x/∂z|: both from one pass, as variational inference needs.

        The two belong together as far as the inverse is the inverse: exactly with ``"exact"`` and ``"refined"``, up
        to the reconstruction error with ``"learned"``.

        Args:
            n: how many; with a context, how many for each of its rows.
            context: what the flow is conditioned on, with shape ``(m, *context_shape)``.
            inverse: how self-normalizing layers go back, as in :meth:`sample`.
            generator: where the latents come from; torch's global generator when ``None``.

        Returns:
            Continuous data with shape ``(n, *event)`` and their log-densities in nats with shape ``(n,)``; with a
            context ``(n, m, *event)`` and ``(n, m)``.

        Raises:
            NotInvertibleError, ConfigError, ShapeError, ContextError: as :meth:`sample`.
        """
        z, rows, shape = self._latents(n, context, 1.0, generator)
        x, log_det = self.bijection.inverse(z, rows, inverse=inverse)
        return x.reshape(*shape, *self.event_shape), (self.base.log_prob(z) - log_det).reshape(shape)

    def distribution(self, context: Tensor | None = None) -> FlowDistribution:
        """p(x | context) as a ``torch.distributions.Distribution``.

        Args:
            context: what the flow is conditioned on, with shape ``(*batch, *context_shape)``.

        Returns:
            A distribution with batch shape ``batch``, empty without a context.

        Raises:
            ShapeError, ContextError: the context does not fit the flow.
        """
        return FlowDistribution(self, context)

    def _continuous(self, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
        check_tensor("Flow", x)
        if x.dim() == 0 or tuple(x.shape[1:]) != self.event_shape:
            single = tuple(x.shape) == self.event_shape
            raise ShapeError(
                "Flow",
                expected=f"data with shape (batch, *{self.event_shape})",
                got=f"{tuple(x.shape)}",
                fix="add a batch dimension: x[None]" if single else "reshape the data, or put a layer that does first",
            )
        if x.device != self.base.device:
            raise DeviceError(
                "Flow",
                expected=f"data on {self.base.device}",
                got=f"data on {x.device}",
                fix=f"call x.to({str(self.base.device)!r})",
            )
        if self.dequantization is None:
            return x, None
        continuous: tuple[Tensor, Tensor] = self.dequantization(x, dtype=self.base.dtype, generator=generator)
        return continuous

    def _as_data(self, x: Tensor) -> Tensor:
        return x if self.dequantization is None else self.dequantization.quantize(x)

    def _latents(
        self, n: int, context: Tensor | None, temperature: float, generator: Generator | None
    ) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
        """Draw the latents of n samples, n for each row of a context, and repeat those rows beside them."""
        if context is None:
            return self.base.rsample(n, temperature, generator=generator), None, (n,)
        shape = self.bijection.context_shape
        if shape is None:
            raise ContextError("Flow", expected="no context", got="one", fix="leave it out: no layer takes one")
        check_tensor("Flow", context)
        if context.dim() == 0 or tuple(context.shape[1:]) != shape:
            raise ShapeError("Flow", expected=f"context shape (m, *{shape})", got=f"{tuple(context.shape)}")
        m = context.shape[0]
        z = self.base.rsample(n * m, temperature, generator=generator)
        return z, context.expand(n, *context.shape).flatten(0, 1), (n, m)


def _data_shape(bijection: Bijection, base: BaseDensity) -> Shape:
    """Return the event shape of the data, or refuse a base density that does not fit."""
    try:
        event_shape = bijection.data_shape(base.event_shape)
        latent_shape = bijection.latent_shape(event_shape)
    except ShapeError as error:
        raise ShapeError(
            "Flow",
            expected=f"a base density over the latents of {bijection.label}",
            got=f"event shape {base.event_shape}",
            fix=str(error),
        ) from error
    if latent_shape != base.event_shape:
        raise ShapeError(
            "Flow",
            expected=f"a base density with event shape {latent_shape}, the latents of {bijection.label}",
            got=f"event shape {base.event_shape}",
            fix=f"build it with {latent_shape}",
        )
    return event_shape


_Nats = TypeVar("_Nats", float, Tensor)


def bits_per_dim(nats: _Nats, dimensions: int) -> _Nats:
    """nats / (D ln 2): a negative log-likelihood per sample, in bits per dimension.

    Args:
        nats: negative log-likelihoods of whole samples, a float or a tensor of any shape.
        dimensions: D, the number of elements of one sample.

    Returns:
        What came, divided; of the same type and shape.

    Raises:
        ConfigError: the number of dimensions is not positive.

    Example:
        >>> import math
        >>> round(bits_per_dim(784 * math.log(256), 784), 12)
        8.0
    """
    if dimensions <= 0:
        raise ConfigError("bits_per_dim", expected="a positive number of dimensions", got=repr(dimensions))
    return nats / (dimensions * math.log(2))


def mean_nll(flow: Flow, data: Tensor, batch_size: int = 500, generator: Generator | None = None) -> float:
    """−1/N Σₙ log p(xₙ): the mean negative log-likelihood in nats, as it is reported.

    Exact log-determinants (eval mode), no gradients, no autocast, summed in float64 whatever the batches are. The
    mode of every module is as before when it returns.

    Args:
        flow: the flow to evaluate.
        data: all the rows, with shape ``(N, *event)``; batches are moved to the flow's device one by one.
        batch_size: rows at a time; it bounds the memory and changes nothing else.
        generator: the dequantization noise, on the flow's device; seed it alike to compare two flows.

    Returns:
        Nats per sample.

    Raises:
        DataError: there are no rows.
        ConfigError: the batch size is not positive.

    Example:
        >>> import torch
        >>> from snflow.bijections import Chain
        >>> from snflow.distributions import StandardNormal
        >>> flow = Flow(Chain([]), StandardNormal((1,)))
        >>> round(mean_nll(flow, torch.zeros(7, 1), batch_size=2), 4)
        0.9189
    """
    if data.shape[0] == 0:
        raise DataError("mean_nll", expected="one row or more", got="none")
    if batch_size <= 0:
        raise ConfigError("mean_nll", expected="a positive batch_size", got=repr(batch_size))
    total = torch.zeros((), dtype=torch.float64)
    device = flow.base.device
    with _evaluating(flow), torch.no_grad(), torch.autocast(device.type, enabled=False):
        for batch in data.split(batch_size):
            log_prob = flow(batch.to(device), generator=generator)
            total -= log_prob.to("cpu", torch.float64).sum()
    return total.item() / data.shape[0]


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Set eval mode and give every part its own mode back, a frozen part included."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
