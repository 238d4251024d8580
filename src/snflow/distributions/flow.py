"""Flow: a bijection and a base density as one distribution, and its likelihood on data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar, final

import torch
from torch import Generator, Tensor, nn
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from snflow.bijections.base import Bijection, InverseMethod, Shape, check_tensor
from snflow.bijections.domain import of_events
from snflow.distributions.base import BaseDensity, check_batch, check_kind, check_sampling, leading_shape
from snflow.distributions.dequantization import Dequantization
from snflow.distributions.sample_check import SampleCheck
from snflow.distributions.torch_distribution import FlowDistribution
from snflow.errors import MAX_INT, CheckedConstructor, ContextError, DataError, ShapeError, check_count


@final
class Flow(nn.Module, metaclass=CheckedConstructor):
    """log p(x) = log p_base(f(x)) + log|det ∂f/∂x|: the density of x when z = f(x) follows the base density.

    With a dequantization, data are integers k, ``log_prob`` is the bound log p(k + u) − log q(u | k) on the
    log-probability of k, in nats, and samples are integers. Calling the flow evaluates :meth:`log_prob`, so that
    ``DistributedDataParallel`` and ``torch.compile`` work on it. Latents and dequantized data have the dtype and the
    device of the base density, which ``flow.to(…)`` changes.

    Args:
        bijection: f, from data to latents.
        base: the density of the latents.
        dequantization: makes integer data continuous; ``None`` for continuous data.

    Raises:
        ShapeError: the event shape of the base density is not that of the latents.
        ConfigError: an argument has the wrong type.

    Example:
        >>> import torch, snflow
        >>> flow = snflow.Flow(snflow.LeakyReLU(), snflow.StandardNormal(2))
        >>> flow.log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
        >>> flow.sample(3).shape
        torch.Size([3, 2])
    """

    def __init__(self, bijection: Bijection, base: BaseDensity, dequantization: Dequantization | None = None) -> None:
        super().__init__()
        order = "the order is Flow(bijection, base, dequantization)"
        check_kind("Flow", "bijection", bijection, Bijection, fix=order)
        check_kind("Flow", "base", base, BaseDensity, fix=order)
        if dequantization is not None:
            check_kind("Flow", "dequantization", dequantization, Dequantization, fix=order)
        self.bijection = bijection
        self.base = base
        self.dequantization = dequantization
        self._event_shape = _data_shape(bijection, base)
        self._check_samples = SampleCheck()

    @property
    def event_shape(self) -> Shape:
        """The shape of one sample of data."""
        return self._event_shape

    @property
    def support(self) -> Constraint:
        """The set of events whose density is positive, as a constraint of ``torch.distributions``.

        It follows from the domains of the layers and the support of the base density; with a dequantization, it is the
        integers from 0 to L − 1. Where it is an interval of every element, ``torch.distributions.biject_to`` accepts
        it. Otherwise it is checked by mapping the data to latents; where these depend on a context, ask
        ``flow.distribution(context).support``.

        Example:
            >>> import torch, snflow
            >>> snflow.flows.circular_spline(2).support.check(torch.tensor([[3.0, -3.0], [4.0, 0.0]]))
            tensor([ True, False])
        """
        return of_events(self._elements, len(self.event_shape))

    @property
    def _elements(self) -> Constraint:
        """The support, as a set of elements where it is one."""
        if self.dequantization is not None:
            return constraints.integer_interval(0, self.dequantization.num_values - 1)
        return self.bijection.preimage(self.base.support)

    def log_prob(self, x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        """log p(x | context), in nats.

        Args:
            x: data, with shape ``(batch, *event)``; integers if the flow has a dequantization.
            context: the value on which the flow is conditioned, with shape ``(batch, *context_shape)``.
            generator: the random number generator of the dequantization noise; torch's global one when ``None``.

        Returns:
            One log-density per sample, with shape ``(batch,)``. The gradient is exact, or self-normalized for
            self-normalizing layers in training. In ``eval()``, finite data so far out that the flow overflows, beyond
            2·10¹⁹ in float32, have the log-density −∞.

        Raises:
            ShapeError, DtypeError, DeviceError, ContextError: the data or the context do not fit the flow.
            DataError: integer data are out of range.
        """
        x, log_q = self._continuous(x, generator)
        z, log_det = self.bijection(x, context)
        log_prob: Tensor = self.base.log_prob(z) + log_det
        if log_q is not None:
            return log_prob - log_q
        return log_prob if self.training else _overflowed(log_prob, x)

    def forward(self, x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        """log p(x | context), as :meth:`log_prob`."""
        return self.log_prob(x, context, generator=generator)

    def encode(self, x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        """z = f(x), of dequantized data if the flow has a dequantization.

        Args:
            x: data, with shape ``(batch, *event)``.
            context: the value on which the flow is conditioned, with shape ``(batch, *context_shape)``.
            generator: the random number generator of the dequantization noise; torch's global one when ``None``.

        Returns:
            Latents, with shape ``(batch, *latent)``.

        Raises:
            ShapeError, DtypeError, DeviceError, ContextError, DataError: as :meth:`log_prob`.
        """
        return self.bijection.encode(self._continuous(x, generator)[0], context)

    def decode(self, z: Tensor, context: Tensor | None = None, *, inverse: InverseMethod | None = None) -> Tensor:
        """x = f⁻¹(z), rounded down to integers if the flow has a dequantization: ``decode(encode(x))`` is x.

        Args:
            z: latents, with shape ``(batch, *latent)``.
            context: the value on which the flow is conditioned, with shape ``(batch, *context_shape)``.
            inverse: the inversion method of self-normalizing layers, ``"exact"`` (the default), ``"learned"`` or
                ``"refined"``.

        Returns:
            Data, with shape ``(batch, *event)``.

        Raises:
            NotInvertibleError: a layer has no inverse, or its weight is singular.
            ConfigError: the inversion method is unknown.
            ShapeError, DtypeError, DeviceError, ContextError: the latents or the context do not fit the flow.
        """
        return self._as_data(self.bijection.decode(z, context, inverse=inverse))

    @torch.no_grad()
    def roundtrip_error(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        inverse: InverseMethod | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """maxᵢ |f⁻¹(f(x)) − x|ᵢ / max(1, |xᵢ|): how far the inverse is off at x, without gradients.

        Args:
            x: data, with shape ``(batch, *event)``; with a dequantization, its continuous values are compared.
            context: the value on which the flow is conditioned, with shape ``(batch, *context_shape)``.
            inverse: the inversion method of self-normalizing layers, as in :meth:`decode`.
            generator: the random number generator of the dequantization noise; torch's global one when ``None``.

        Returns:
            One error per sample, with shape ``(batch,)``; infinite where a value is not finite.

        Raises:
            NotInvertibleError, ConfigError, ShapeError, DtypeError, DeviceError, ContextError, DataError: as
                :meth:`encode` and :meth:`decode`.

        Example:
            >>> import torch, snflow
            >>> flow = snflow.flows.maf(3)
            >>> bool((flow.roundtrip_error(torch.randn(5, 3)) < 1e-3).all())
            True
        """
        return self.bijection.roundtrip_error(self._continuous(x, generator)[0], context, inverse=inverse)

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

        Samples that are not finite give a warning. After a change of the weights, eight samples are also mapped back to
        latents, in ``eval()`` and not with ``inverse="learned"``: a warning states if they are off by more than 1 %,
        which happens in float32 if the layers are ill-conditioned. This costs one pass of :meth:`encode` over eight
        rows; afterwards, a look at the parameters' version counters and at nine of their values.

        Args:
            n: the number of samples; with a context, for each of its rows.
            context: the values on which the flow is conditioned, with shape ``(m, *context_shape)``.
            inverse: the inversion method of self-normalizing layers, ``"exact"`` (the default), ``"learned"`` or
                ``"refined"``.
            temperature: factor on the scale of the base density; below 1, samples are more typical.
            generator: the random number generator of the latents; torch's global one when ``None``.

        Returns:
            Data with shape ``(n, *event)``, or ``(n, m, *event)`` with a context; integers if the flow has a
            dequantization.

        Raises:
            NotInvertibleError: a layer has no inverse, or its weight is singular.
            ConfigError: the number or the temperature is out of range, or the inversion method is unknown.
            ShapeError, ContextError: the context does not fit the flow.

        Warns:
            NumericalWarning: samples are not finite, or not mapped back to their latents.
        """
        z, context, shape = self._latents(n, context, temperature, generator)
        x = self.bijection.decode(z, context, inverse=inverse)
        self._check_samples(self.bijection, z, x, context, inverse)
        return self._as_data(x.reshape(*shape, *self.event_shape))

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

        Arguments, shapes and errors are those of :meth:`sample`, but the data are always continuous.
        """
        z, context, shape = self._latents(n, context, temperature, generator)
        return self.bijection.decode(z, context, inverse=inverse).reshape(*shape, *self.event_shape)

    def rsample_and_log_prob(
        self,
        n: int,
        context: Tensor | None = None,
        *,
        inverse: InverseMethod | None = None,
        generator: Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x = f⁻¹(z), log p(x) = log p_base(z) − log|det ∂x/∂z|, both from one pass, as in variational inference.

        With ``inverse="learned"``, log p is that of x up to the reconstruction error of the learned inverse; with the
        other methods it is exact.

        Args:
            n: the number of samples; with a context, for each of its rows.
            context: the values on which the flow is conditioned, with shape ``(m, *context_shape)``.
            inverse: the inversion method of self-normalizing layers, as in :meth:`sample`.
            generator: the random number generator of the latents; torch's global one when ``None``.

        Returns:
            Continuous data with shape ``(n, *event)`` and their log-densities in nats with shape ``(n,)``; with a
            context ``(n, m, *event)`` and ``(n, m)``.

        Raises:
            NotInvertibleError, ConfigError, ShapeError, ContextError: as :meth:`sample`.
        """
        z, context, shape = self._latents(n, context, 1.0, generator)
        x, log_det = self.bijection.inverse(z, context, inverse=inverse)
        return x.reshape(*shape, *self.event_shape), (self.base.log_prob(z) - log_det).reshape(shape)

    def distribution(self, context: Tensor | None = None) -> FlowDistribution:
        """p(x | context) as a ``torch.distributions.Distribution``.

        Args:
            context: the values on which the flow is conditioned, with shape ``(*batch, *context_shape)``.

        Returns:
            A distribution with batch shape ``batch``, empty without a context.

        Raises:
            ShapeError, ContextError: the context does not fit the flow.
        """
        return FlowDistribution(self, context)

    def _continuous(self, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
        """Return x, dequantized if necessary, and log q."""
        check_batch("Flow", "data", x, self.event_shape, self.base.device)
        if self.dequantization is None:
            return x, None
        continuous: tuple[Tensor, Tensor] = self.dequantization(x, dtype=self.base.dtype, generator=generator)
        return continuous

    def _as_data(self, x: Tensor) -> Tensor:
        return x if self.dequantization is None else self.dequantization.quantize(x)

    def _latents(
        self, n: int, context: Tensor | None, temperature: float, generator: Generator | None
    ) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
        """Draw latents for n samples per row of the context; return them with their contexts and their batch shape."""
        check_sampling("Flow", n, temperature)
        if context is None:
            return self.base.rsample(n, temperature=temperature, generator=generator), None, (n,)
        shape = self.bijection.context_shape
        if shape is None:
            raise ContextError("Flow", expected="no context", got="one", fix="leave it out: the flow is unconditional")
        (m,) = leading_shape("Flow", "context", context, shape, batch="m")
        z = self.base.rsample(n * m, temperature=temperature, generator=generator)
        return z, context.expand(n, *context.shape).flatten(0, 1), (n, m)


def _overflowed(log_prob: Tensor, x: Tensor) -> Tensor:
    """−∞ in place of NaN where x is finite and ½x² would overflow: the density is below the smallest number there.

    NaN at other points is an error in the flow or in its weights, and stays.
    """
    size = x.flatten(1).abs().amax(1)
    largest = torch.finfo(x.dtype).max
    far = (size > largest**0.5) & (size <= largest)
    return torch.where(far & log_prob.isnan(), -torch.inf, log_prob)


def _data_shape(bijection: Bijection, base: BaseDensity) -> Shape:
    """Return the event shape of the data, or reject a base density that does not fit."""
    try:
        event_shape = bijection.data_shape(base.event_shape)
        latent_shape = bijection.latent_shape(event_shape)
    except ShapeError as error:
        raise ShapeError(
            "Flow",
            expected=f"a base density of the latents of {bijection.label}",
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
        dimensions: D, the number of elements in one sample.

    Returns:
        Bits per dimension, of the same type and shape.

    Raises:
        ConfigError: the number of dimensions is below 1.

    Example:
        >>> import math
        >>> round(bits_per_dim(784 * math.log(256), 784), 12)
        8.0
    """
    check_count("bits_per_dim", "dimensions", dimensions, most=MAX_INT)
    return nats / (dimensions * math.log(2))


def mean_nll(
    flow: Flow,
    data: Tensor,
    context: Tensor | None = None,
    *,
    batch_size: int = 500,
    generator: Generator | None = None,
) -> float:
    """−1/N Σₙ log p(xₙ): the mean negative log-likelihood in nats, for reports.

    Log-determinants are those of eval mode: exact, or unbiased estimates where ``flow.bijection.log_det_kind`` is
    ``"estimate"``. Gradients and autocast are off, and the sum is in float64 for every dtype. The mode of every module
    is restored afterwards.

    Args:
        flow: the flow to evaluate.
        data: all rows, with shape ``(N, *event)``; batches are moved to the flow's device one by one.
        context: their contexts, with shape ``(N, *context_shape)``, if the flow is conditional.
        batch_size: the number of rows per batch, which limits the memory and has no other effect.
        generator: the random number generator of the dequantization noise, on the flow's device; use equal seeds to
            compare flows.

    Returns:
        Nats per sample.

    Raises:
        DataError: there are no rows.
        ConfigError: the batch size is below 1.
        DtypeError: the data are not a tensor.
        ContextError, ShapeError: the contexts do not fit the flow or the rows.

    Example:
        >>> import torch, snflow
        >>> flow = Flow(snflow.Chain([]), snflow.StandardNormal(1))
        >>> round(mean_nll(flow, torch.zeros(7, 1), batch_size=2), 4)
        0.9189
    """
    return -log_prob_of_rows("mean_nll", flow, data, context, batch_size, generator).mean().item()


def mean_nll_with_error(
    flow: Flow,
    data: Tensor,
    context: Tensor | None = None,
    *,
    batch_size: int = 500,
    generator: Generator | None = None,
) -> tuple[float, float]:
    """−1/N Σₙ log p(xₙ) and its standard error s/√N, s the standard deviation of log p(xₙ) over the rows.

    The random vectors of estimated log-determinants and the noise of a dequantization are drawn for each row, so the
    error is that over data, random vectors and noise together.

    Args:
        flow: as in :func:`mean_nll`, like the other arguments.
        data: all rows, with shape ``(N, *event)``.
        context: their contexts, with shape ``(N, *context_shape)``.
        batch_size: the number of rows per batch.
        generator: the random number generator of the dequantization noise.

    Returns:
        The mean, equal to that of :func:`mean_nll`, and its standard error, both in nats per sample; the error of a
        single row is unknown, NaN.

    Raises:
        DataError, ConfigError, DtypeError: as in :func:`mean_nll`.

    Example:
        >>> import torch, snflow
        >>> flow = Flow(snflow.Chain([]), snflow.StandardNormal(1))
        >>> mean, error = mean_nll_with_error(flow, torch.tensor([[1.0], [2.0]]))
        >>> round(mean, 4), round(error, 4)
        (2.1689, 0.75)
    """
    log_probs = log_prob_of_rows("mean_nll_with_error", flow, data, context, batch_size, generator)
    if len(log_probs) == 1:
        return -log_probs.item(), math.nan
    return -log_probs.mean().item(), (log_probs.std() / math.sqrt(len(log_probs))).item()


def log_prob_of_rows(
    where: str, flow: Flow, data: Tensor, context: Tensor | None, batch_size: int, generator: Generator | None
) -> Tensor:
    """log p of every row in eval mode, in float64 on the CPU."""
    check_tensor(where, data)
    check_count(where, "batch_size", batch_size, most=MAX_INT)
    if data.dim() == 0 or data.shape[0] == 0:
        raise DataError(where, expected="at least one row", got="none")
    if context is not None and len(context) != len(data):
        raise ShapeError(where, expected=f"{len(data)} contexts, one for each row", got=f"{len(context)}")
    device, contexts = flow.base.device, [None] if context is None else context.split(batch_size)
    with _evaluating(flow), torch.no_grad(), torch.autocast(device.type, enabled=False):
        batches = [
            flow(rows.to(device), None if given is None else given.to(device), generator=generator)
            for rows, given in zip(data.split(batch_size), itertools.cycle(contexts))
        ]
    return torch.cat(batches).to("cpu", torch.float64)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Set eval mode and restore the mode of every module, including frozen ones."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
