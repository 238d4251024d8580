"""Base densities: the distribution of the latents."""

from __future__ import annotations

import math
from abc import abstractmethod
from numbers import Real
from typing import final

import torch
import torch.nn.functional as F
from torch import Generator, Size, Tensor, nn
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.nn.functional import logsigmoid

from snflow.bijections.base import Shape, check_precision, check_tensor
from snflow.bijections.domain import Mapped
from snflow.errors import (
    CheckedConstructor,
    ConfigError,
    DeviceError,
    DtypeError,
    ShapeError,
    check_count,
    check_event_shape,
    check_positive,
    check_weight,
)
from snflow.nets.mlp import MLP
from snflow.numerics.devices import structure_device
from snflow.numerics.monotone import SOFTPLUS_ONE
from snflow.numerics.probes import sum_event


class BaseDensity(nn.Module, metaclass=CheckedConstructor):
    """log p(z) and z ~ p(z): the density to which a flow maps its data.

    **To write one**, implement :meth:`_log_prob` and :meth:`_sample` without any checks: this class checks the
    arguments. A class is abstract or final. Override :attr:`support` where it is not all real numbers.

    Args:
        event_shape: D for vectors, or the shape of one latent, all dimensions after the batch; ``()`` for a scalar.

    Raises:
        ConfigError: the event shape is not made of positive integers.
    """

    _anchor: Tensor

    def __init__(self, event_shape: int | Shape) -> None:
        super().__init__()
        self.event_shape: Shape = () if event_shape == () else check_event_shape(self.label, event_shape)
        # A buffer follows .to(), so that a density without parameters has a dtype and a device.
        self.register_buffer("_anchor", torch.empty(0, device=structure_device()), persistent=False)

    @abstractmethod
    def _log_prob(self, z: Tensor) -> Tensor:
        """Map z ``(batch, *event)`` to log p(z) ``(batch,)``."""

    @abstractmethod
    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        """Draw z ``(n, *event)``, differentiable in the parameters, with the scale multiplied by the temperature."""

    @final
    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z), in nats.

        Args:
            z: latents, with shape ``(batch, *event)``.

        Returns:
            One log-density per sample, with shape ``(batch,)``.

        Raises:
            ShapeError: the latents have the wrong event shape, or no batch dimension.
            DtypeError: the dtype of the latents is not that of the density, or neither float32 nor float64.
            DeviceError: the latents are on another device than the density.
        """
        check_batch(self.label, "latents", z, self.event_shape, self.device)
        check_precision(self.label, self.dtype)
        if z.dtype != self.dtype:
            raise DtypeError(
                self.label,
                expected=f"latents of {self.dtype}",
                got=f"{z.dtype}",
                fix=f"convert the density, or the flow that contains it, with .to({z.dtype})",
            )
        return self._log_prob(z)

    @final
    def rsample(self, n: int, *, temperature: float = 1.0, generator: Generator | None = None) -> Tensor:
        """z ~ p, as a differentiable function of the parameters.

        Args:
            n: the number of samples, 0 or more.
            temperature: factor on the scale about the center; 0 gives the center itself.
            generator: the random number generator; torch's global one when ``None``.

        Returns:
            Latents, with shape ``(n, *event)``.

        Raises:
            ConfigError: the number or the temperature is out of range.
            DtypeError: the dtype of the density is neither float32 nor float64.
        """
        check_sampling(self.label, n, temperature)
        check_precision(self.label, self.dtype)
        return self._sample(n, temperature, generator)

    @final
    @torch.no_grad()
    def sample(self, n: int, *, temperature: float = 1.0, generator: Generator | None = None) -> Tensor:
        """z ~ p, as :meth:`rsample`, without gradients."""
        return self.rsample(n, temperature=temperature, generator=generator)

    @property
    def support(self) -> Constraint:
        """The set of elements in which the density is positive, as a constraint of ``torch.distributions``."""
        return constraints.real

    def forward(self, z: Tensor) -> Tensor:
        """log p(z), as :meth:`log_prob`."""
        return self.log_prob(z)

    @property
    def dtype(self) -> torch.dtype:
        """The floating dtype of the latents."""
        return self._anchor.dtype

    @property
    def device(self) -> torch.device:
        """The device of the latents."""
        return self._anchor.device

    @property
    def label(self) -> str:
        """The name of this density in errors."""
        return type(self).__name__

    def extra_repr(self) -> str:
        """Show the event shape in ``print(flow)``."""
        return f"event_shape={self.event_shape}"

    def _noise(self, n: int) -> Tensor:
        """Return uninitialized memory ``(n, *event)`` of the right dtype and device, for an in-place draw."""
        return torch.empty((n, *self.event_shape), dtype=self.dtype, device=self.device)


def leading_shape(where: str, what: str, value: Tensor, trailing: Shape, *, batch: str = "batch") -> Size:
    """The dimensions of a tensor before its event, or before its context.

    Args:
        where: the caller, for the error.
        what: the name of the tensor, for the error.
        value: the tensor, with shape ``(*batch, *trailing)``.
        trailing: the shape of one event, or of one context.
        batch: the expected leading dimensions, for the error: exactly one, unless the name starts with a ``*``.

    Returns:
        The leading dimensions.

    Raises:
        DtypeError: the value is not a dense tensor.
        ShapeError: its shape does not end in ``trailing``, or it does not have exactly one leading dimension.

    Example:
        >>> leading_shape("Flow", "data", torch.zeros(5, 2, 3), (2, 3))
        torch.Size([5])
    """
    check_tensor(where, value)
    split = value.dim() - len(trailing)
    if split < 0 or tuple(value.shape[split:]) != tuple(trailing) or (split != 1 and not batch.startswith("*")):
        shape = tuple(value.shape)
        raise ShapeError(
            where,
            expected=f"{what} with shape ({', '.join((batch, *map(str, trailing)))}{'' if trailing else ','})",
            got=f"{shape}",
            fix="add a batch dimension: x[None]"
            if shape == tuple(trailing)
            else "the first dimension is the batch, the others are the event"
            if batch == "batch"
            else None,
        )
    return value.shape[:split]


def check_batch(where: str, what: str, value: Tensor, event_shape: Shape, device: torch.device) -> None:
    """Reject a tensor that is not a batch ``(batch, *event_shape)`` on the device.

    Raises:
        DtypeError: the value is not a dense tensor.
        ShapeError: it has the wrong event shape, or no batch dimension.
        DeviceError: it is on another device.
    """
    leading_shape(where, what, value, event_shape)
    if value.device != device:
        raise DeviceError(
            where,
            expected=f"{what} on {device}",
            got=f"{what} on {value.device}",
            fix=f"call .to({str(device)!r}) on the {what}",
        )


def check_sampling(where: str, n: int, temperature: float = 1.0) -> None:
    """Reject a number of samples or a temperature that is out of range.

    Raises:
        ConfigError: ``n`` is not a non-negative integer, or the temperature is negative, infinite or not a number.
    """
    if type(n) is not int or n < 0:
        raise ConfigError(where, expected="n ≥ 0, a number of samples", got=repr(n), fix="give an integer")
    check_weight(where, "temperature", temperature, fix="use 1 to sample from the density itself")


def check_kind(where: str, option: str, value: object, kind: type[nn.Module], *, fix: str | None = None) -> None:
    """Reject an argument that is not an instance of a class.

    Raises:
        ConfigError: the argument has the wrong type.
    """
    if not isinstance(value, kind):
        raise ConfigError(where, expected=f"{option} to be a {kind.__name__}", got=type(value).__name__, fix=fix)


_LOG_2PI = math.log(2 * math.pi)
_LOG_SCALE_BOUND = 7.0
"""The largest |log σ| by default: σ runs from about 1/1100 to 1100."""


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """−½ Σᵢ (zᵢ² + log 2π): z ``(batch, *event)`` to ``(batch,)``.

    Example:
        >>> round(standard_normal_log_prob(torch.zeros(1, 1)).item(), 4)
        -0.9189
    """
    return -0.5 * sum_event(z.square() + _LOG_2PI)


def _bounded(raw: Tensor, bound: float) -> Tensor:
    """b tanh(s / b): smooth, with slope 1 at 0, within ±b."""
    return bound * torch.tanh(raw / bound)


@final
class StandardNormal(BaseDensity):
    """log p(z) = −½ Σᵢ (zᵢ² + log 2π): independent normals with mean 0 and standard deviation 1.

    Args:
        event_shape: D for vectors, or the shape of one latent.

    Raises:
        ConfigError: the event shape is not made of positive integers.

    Example:
        >>> import torch
        >>> base = StandardNormal((1, 28, 28))
        >>> base.log_prob(base.sample(3)).shape
        torch.Size([3])
        >>> round(StandardNormal(1).log_prob(torch.zeros(1, 1)).item(), 4)
        -0.9189
    """

    def _log_prob(self, z: Tensor) -> Tensor:
        return standard_normal_log_prob(z)

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        return temperature * self._noise(n).normal_(generator=generator)


@final
class DiagonalNormal(BaseDensity):
    """log p(z) = −½ Σᵢ (((zᵢ − μᵢ)/σᵢ)² + 2 log σᵢ + log 2π): independent normals with learned mean and scale.

    log σ = b tanh(s / b) with an unconstrained parameter s is smooth, so that the gradient never vanishes exactly, and
    bounded, so that no scale explodes or collapses. The initial density is the standard normal.

    Args:
        event_shape: D for vectors, or the shape of one latent.
        log_scale_bound: b, the largest |log σ|; with 7, σ runs from about 1/1100 to 1100.

    Raises:
        ConfigError: the event shape is not made of positive integers, or the bound is not positive.

    Example:
        >>> import torch
        >>> base = DiagonalNormal(2)
        >>> z = torch.ones(5, 2)
        >>> torch.equal(base.log_prob(z), StandardNormal(2).log_prob(z))
        True
    """

    def __init__(self, event_shape: int | Shape, *, log_scale_bound: float = _LOG_SCALE_BOUND) -> None:
        super().__init__(event_shape)
        check_positive(self.label, "log_scale_bound", log_scale_bound)
        self.log_scale_bound = log_scale_bound
        self.mean = nn.Parameter(torch.zeros(self.event_shape))
        self.raw_log_scale = nn.Parameter(torch.zeros(self.event_shape))

    @property
    def log_scale(self) -> Tensor:
        """log σ, with shape ``event_shape``."""
        return _bounded(self.raw_log_scale, self.log_scale_bound)

    def _log_prob(self, z: Tensor) -> Tensor:
        log_scale = self.log_scale
        return standard_normal_log_prob((z - self.mean) * torch.exp(-log_scale)) - log_scale.sum()

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        return self.mean + temperature * self.log_scale.exp() * self._noise(n).normal_(generator=generator)


@final
class NormalMixture(BaseDensity):
    """log p(z) = log Σₖ πₖ Πᵢ N(zᵢ; μₖᵢ, σₖᵢ²): K normals with learned weights, means and scales, for clustered data.

    A flow is a continuous map: from a unimodal base it can only produce clusters that are connected by thin bridges of
    density. The means are initialized with a sample from the standard normal, the scales with 1; log σ is bounded as in
    :class:`DiagonalNormal`. Samples are differentiable in means and scales, not in the weights.

    Args:
        event_shape: D for vectors, or the shape of one latent.
        components: K.

    Raises:
        ConfigError: the event shape is not made of positive integers, or K is below 1.

    Example:
        >>> import torch
        >>> base = NormalMixture(2, components=3)
        >>> base.log_prob(base.sample(5)).shape
        torch.Size([5])
    """

    def __init__(self, event_shape: int | Shape, *, components: int = 8) -> None:
        super().__init__(event_shape)
        check_count(self.label, "components", components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, *self.event_shape))
        self.raw_log_scales = nn.Parameter(torch.zeros(components, *self.event_shape))

    @property
    def log_scales(self) -> Tensor:
        """log σ, with shape ``(K, *event)``."""
        return _bounded(self.raw_log_scales, _LOG_SCALE_BOUND)

    def _log_prob(self, z: Tensor) -> Tensor:
        log_scales = self.log_scales
        standard = (z.unsqueeze(1) - self.means) * torch.exp(-log_scales)
        of_component = standard_normal_log_prob(standard.flatten(0, 1)).unflatten(0, standard.shape[:2])
        return torch.logsumexp(torch.log_softmax(self.logits, 0) + of_component - sum_event(log_scales), 1)

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        weights = torch.softmax(self.logits.detach(), 0)
        # torch.multinomial does not accept n = 0
        component = (
            torch.multinomial(weights, n, replacement=True, generator=generator)
            if n
            else torch.zeros(0, dtype=torch.long, device=self.device)
        )
        noise = self._noise(n).normal_(generator=generator)
        return self.means[component] + temperature * self.log_scales.exp()[component] * noise


@final
class Logistic(BaseDensity):
    """log p(z) = Σᵢ log σ(zᵢ) + log σ(−zᵢ), σ the sigmoid: independent logistics with mean 0 and scale 1.

    Its standard deviation is π/√3, and its tails are heavier than the normal's: an outlier costs |z| nats, not z²/2.
    The base density of NICE (Dinh, Krueger, Bengio 2015, section 3.4).

    Args:
        event_shape: D for vectors, or the shape of one latent.

    Raises:
        ConfigError: the event shape is not made of positive integers.

    Example:
        >>> import torch
        >>> round(Logistic(1).log_prob(torch.zeros(1, 1)).exp().item(), 6)
        0.25
    """

    def _log_prob(self, z: Tensor) -> Tensor:
        # The two terms, rather than −z − 2 softplus(−z): no ∞ − ∞ in a tail, and smooth at 0.
        return sum_event(logsigmoid(z) + logsigmoid(-z))

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        # log(E₁/E₂) of two exponentials, which torch draws from (0, ∞), avoids the logit of a uniform draw that is 0.
        first = self._noise(n).exponential_(generator=generator)
        second = self._noise(n).exponential_(generator=generator)
        return temperature * (first.log() - second.log())


@final
class Uniform(BaseDensity):
    """log p(z) = −D log(high − low) in [low, high]ᴰ, exactly −∞ outside.

    The log-density of a NaN is NaN.

    Args:
        event_shape: D for vectors, or the shape of one latent.
        low: the lower edge of every element.
        high: the upper edge of every element.

    Raises:
        ConfigError: the event shape is not made of positive integers, or ``low`` is not below ``high``.

    Example:
        >>> import torch
        >>> base = Uniform(1, low=-1.0, high=1.0)
        >>> base.log_prob(torch.tensor([[0.5], [1.5]])).exp()
        tensor([0.5000, 0.0000])
    """

    def __init__(self, event_shape: int | Shape, *, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__(event_shape)
        if not (_is_finite(low) and _is_finite(high) and low < high):
            raise ConfigError(self.label, expected="finite low < high", got=f"low={low!r}, high={high!r}")
        self.low, self.high = low, high

    @property
    def support(self) -> Constraint:
        """[low, high]."""
        return constraints.interval(self.low, self.high)

    def _log_prob(self, z: Tensor) -> Tensor:
        density = torch.where(z.isnan(), z, -math.log(self.high - self.low))
        return sum_event(torch.where((z < self.low) | (z > self.high), -math.inf, density))

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        center, width = (self.low + self.high) / 2, self.high - self.low
        return center + temperature * width * (self._noise(n).uniform_(generator=generator) - 0.5)

    def extra_repr(self) -> str:
        """Show the event shape and the edges in ``print(flow)``."""
        return f"{super().extra_repr()}, low={self.low}, high={self.high}"


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


_BRANCHES = 3


@final
class FoldedDensity(BaseDensity):
    """log p(x) = log p(z) + Σᵢ log g(kᵢ | z), z = fold(x): a three-to-one map with a random choice of branch.

    fold(x) is x + 2a for x < −a, −x between −a and a, and x − 2a for x > a: up to three points have the same z, and the
    gate g, a network, gives the probability of each. This separates modes that a unimodal base would connect by a
    bridge of density. |fold'| = 1, so there is no log-determinant. The density may jump at ±a, where branches meet.

    Use it like any other base density: ``Flow(bijection, FoldedDensity(StandardNormal(2)))``.

    Args:
        base: p(z), a density of vectors.
        width: W, the width of the gate's network.
        depth: the number of its hidden layers.

    Attributes:
        raw_fold: with shape ``(D,)``; a is its softplus, initially 1.

    Raises:
        ConfigError: the base density is not one of vectors, or a count is below 1.

    References:
        Dinh et al. (2019), A RAD approach to deep mixture models, eq. 4 and section 3.

    Example:
        >>> import torch, snflow
        >>> density = FoldedDensity(snflow.StandardNormal(2))
        >>> density.log_prob(density.sample(5)).shape
        torch.Size([5])
    """

    def __init__(self, base: BaseDensity, *, width: int = 32, depth: int = 2) -> None:
        check_kind("FoldedDensity", "base", base, BaseDensity)
        if len(base.event_shape) != 1:
            got = f"event shape {base.event_shape}"
            raise ConfigError("FoldedDensity", expected="a base density of vectors", got=got, fix="flatten the event")
        super().__init__(base.event_shape)
        (features,) = base.event_shape
        self.base = base
        self.raw_fold = nn.Parameter(torch.full((features,), SOFTPLUS_ONE))
        self.gate = MLP(features, _BRANCHES * features, width=width, depth=depth)

    @property
    def support(self) -> Constraint:
        """The points that are folded into the support of the base density."""
        of_base = self.base.support
        real = isinstance(of_base, type(constraints.real))
        return of_base if real else Mapped(lambda x: self._fold(x, F.softplus(self.raw_fold))[0], of_base)

    def _log_prob(self, z: Tensor) -> Tensor:
        a = F.softplus(self.raw_fold)
        folded, branch = self._fold(z, a)
        log_gate = self._log_gate(folded, a).gather(1, branch.unsqueeze(1)).squeeze(1)
        return self.base.log_prob(folded) + sum_event(log_gate)

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        z = self.base.rsample(n, temperature=temperature, generator=generator)
        a = F.softplus(self.raw_fold)
        weights = self._log_gate(z, a).exp().transpose(1, 2).reshape(-1, _BRANCHES).detach()
        branch = torch.multinomial(weights, 1, generator=generator).view(z.shape) if n else z.long()
        return torch.where(branch == 1, -z, z - 2 * a * (1 - branch))

    @staticmethod
    def _fold(x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """fold(x) and the branch of each element, 0 to 2."""
        branch = (x > -a).long() + (x > a).long()
        return torch.where(branch == 1, -x, x + 2 * a * (1 - branch)), branch

    def _log_gate(self, z: Tensor, a: Tensor) -> Tensor:
        """log g ``(batch, 3, D)``; −∞ for a branch whose range does not contain z."""
        logits = self.gate(z).unflatten(1, (_BRANCHES, -1))
        reached = torch.stack([z <= a, z.abs() <= a, z >= -a], 1)
        # No branch contains a NaN: the base density makes the result NaN.
        return torch.log_softmax(torch.where(reached | z.isnan().unsqueeze(1), logits, -torch.inf), 1)
