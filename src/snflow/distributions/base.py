"""Base densities."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.nn.functional import logsigmoid

from snflow.bijections.base import Shape
from snflow.errors import ConfigError, DeviceError, DtypeError, ShapeError, check_count
from snflow.nets.mlp import MLP
from snflow.numerics.probes import sum_event


class BaseDensity(nn.Module, ABC):
    """log p(z) and z ~ p(z): the density that a flow maps its data to.

    **To write one**, implement :meth:`_log_prob` and :meth:`_sample` as plain mathematics; the checks are here, once.
    A class is abstract or final.

    Args:
        event_shape: the shape of one latent, everything behind the batch dimension; ``()`` for a single number.

    Raises:
        ConfigError: the event shape is no tuple of positive integers.
    """

    _anchor: Tensor

    def __init__(self, event_shape: Shape) -> None:
        super().__init__()
        if not _is_shape(event_shape):
            raise ConfigError(
                self.label,
                expected="an event shape, a tuple of positive integers",
                got=repr(event_shape),
                fix="write (2,) for two numbers, (1, 28, 28) for an image",
            )
        self.event_shape: Shape = tuple(event_shape)
        # Follows .to(): a density without parameters knows by it in which dtype and on which device it samples.
        self.register_buffer("_anchor", torch.empty(0), persistent=False)

    @abstractmethod
    def _log_prob(self, z: Tensor) -> Tensor:
        """Map z ``(batch, *event)`` to log p(z) ``(batch,)``."""

    @abstractmethod
    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        """Draw z ``(n, *event)``, differentiable in the parameters, its deviation scaled by the temperature."""

    @final
    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z), in nats.

        Args:
            z: latents, with shape ``(batch, *event)``.

        Returns:
            One log-density per sample, with shape ``(batch,)``.

        Raises:
            ShapeError: the latents have another event shape, or no batch dimension.
            DtypeError: the latents have another dtype than the density.
            DeviceError: the latents lie on another device than the density.
        """
        if z.dim() == 0 or tuple(z.shape[1:]) != self.event_shape:
            raise ShapeError(
                self.label,
                expected=f"latents with shape (batch, *{self.event_shape})",
                got=f"{tuple(z.shape)}",
                fix="the first dimension is the batch, the event is everything behind it",
            )
        if z.device != self.device:
            raise DeviceError(
                self.label,
                expected=f"latents on {self.device}",
                got=f"latents on {z.device}",
                fix=f"move the density with .to({str(z.device)!r})",
            )
        if z.dtype != self.dtype:
            raise DtypeError(
                self.label,
                expected=f"latents of {self.dtype}",
                got=f"{z.dtype}",
                fix=f"convert the density, or the flow that holds it, with .to({z.dtype})",
            )
        return self._log_prob(z)

    @final
    def rsample(self, n: int, temperature: float = 1.0, *, generator: Generator | None = None) -> Tensor:
        """z ~ p, as a differentiable function of the parameters.

        Args:
            n: how many to draw, 0 or more.
            temperature: factor on the deviation from the centre; 0 gives the centre itself.
            generator: where the random numbers come from; torch's global generator when ``None``.

        Returns:
            Latents, with shape ``(n, *event)``.

        Raises:
            ConfigError: the number or the temperature is out of its range.
        """
        if type(n) is not int or n < 0:
            raise ConfigError(self.label, expected="a number of samples, 0 or more", got=repr(n))
        if not (math.isfinite(temperature) and temperature >= 0):
            raise ConfigError(
                self.label,
                expected="a temperature, 0 or more",
                got=repr(temperature),
                fix="1 samples the density itself",
            )
        return self._sample(n, temperature, generator)

    @final
    @torch.no_grad()
    def sample(self, n: int, temperature: float = 1.0, *, generator: Generator | None = None) -> Tensor:
        """z ~ p: as :meth:`rsample`, without gradients."""
        return self.rsample(n, temperature, generator=generator)

    def forward(self, z: Tensor) -> Tensor:
        """log p(z): as :meth:`log_prob`."""
        return self.log_prob(z)

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the latents."""
        return self._anchor.dtype

    @property
    def device(self) -> torch.device:
        """Where the latents lie."""
        return self._anchor.device

    @property
    def label(self) -> str:
        """The name by which errors speak of this density."""
        return type(self).__name__

    def extra_repr(self) -> str:
        """Show the event shape in ``print(flow)``."""
        return f"event_shape={self.event_shape}"

    def _noise(self, n: int) -> Tensor:
        """Return uninitialised memory ``(n, *event)`` of the right dtype and device, for an in-place draw."""
        return torch.empty((n, *self.event_shape), dtype=self.dtype, device=self.device)


def _is_shape(shape: object) -> bool:
    return isinstance(shape, (tuple, list)) and all(type(n) is int and n > 0 for n in shape)


_LOG_2PI = math.log(2 * math.pi)


@final
class StandardNormal(BaseDensity):
    """log p(z) = −½ Σᵢ (zᵢ² + log 2π): independent normals of mean 0 and deviation 1.

    Args:
        event_shape: the shape of one latent.

    Raises:
        ConfigError: the event shape is no tuple of positive integers.

    Example:
        >>> import torch
        >>> base = StandardNormal((1, 28, 28))
        >>> base.log_prob(base.sample(3)).shape
        torch.Size([3])
        >>> round(StandardNormal((1,)).log_prob(torch.zeros(1, 1)).item(), 4)
        -0.9189
    """

    def _log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * sum_event(z.square() + _LOG_2PI)

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        return temperature * self._noise(n).normal_(generator=generator)


@final
class DiagonalNormal(BaseDensity):
    """log p(z) = −½ Σᵢ (((zᵢ − μᵢ)/σᵢ)² + 2 log σᵢ + log 2π): independent normals with learned mean and scale.

    log σ = b tanh(s / b) for the free parameter s: smooth, so that a gradient always comes through, and bounded, so
    that no scale explodes or vanishes. It starts as the standard normal.

    Args:
        event_shape: the shape of one latent.
        log_scale_bound: b, the largest |log σ|; 7 lets σ run from about 1/1100 to 1100.

    Raises:
        ConfigError: the event shape is no tuple of positive integers, or the bound is not positive.

    Example:
        >>> import torch
        >>> base = DiagonalNormal((2,))
        >>> z = torch.ones(5, 2)
        >>> torch.equal(base.log_prob(z), StandardNormal((2,)).log_prob(z))
        True
    """

    def __init__(self, event_shape: Shape, log_scale_bound: float = 7.0) -> None:
        super().__init__(event_shape)
        if not (math.isfinite(log_scale_bound) and log_scale_bound > 0):
            raise ConfigError(self.label, expected="a positive log_scale_bound", got=repr(log_scale_bound))
        self.log_scale_bound = log_scale_bound
        self.mean = nn.Parameter(torch.zeros(self.event_shape))
        self.raw_log_scale = nn.Parameter(torch.zeros(self.event_shape))

    @property
    def log_scale(self) -> Tensor:
        """log σ, with shape ``event_shape``."""
        return self.log_scale_bound * torch.tanh(self.raw_log_scale / self.log_scale_bound)

    def _log_prob(self, z: Tensor) -> Tensor:
        log_scale = self.log_scale
        standard = (z - self.mean) * torch.exp(-log_scale)
        return -0.5 * sum_event(standard.square() + _LOG_2PI) - log_scale.sum()

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        return self.mean + temperature * self.log_scale.exp() * self._noise(n).normal_(generator=generator)


@final
class Logistic(BaseDensity):
    """log p(z) = Σᵢ log σ(zᵢ) + log σ(−zᵢ), σ the sigmoid: independent logistics of mean 0 and scale 1.

    Its deviation is π/√3 and its tails are heavier than the normal's, so an outlier costs |z| nats instead of z²/2.
    The base density of NICE (Dinh, Krueger, Bengio 2015, section 3.4).

    Args:
        event_shape: the shape of one latent.

    Raises:
        ConfigError: the event shape is no tuple of positive integers.

    Example:
        >>> import torch
        >>> round(Logistic((1,)).log_prob(torch.zeros(1, 1)).exp().item(), 6)
        0.25
    """

    def _log_prob(self, z: Tensor) -> Tensor:
        # The two terms, rather than −z − 2 softplus(−z): no ∞ − ∞ in a tail, and smooth at 0.
        return sum_event(logsigmoid(z) + logsigmoid(-z))

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        # log(E₁/E₂) of two exponentials, which torch draws from (0, ∞): no logit of a uniform draw that is exactly 0.
        first = self._noise(n).exponential_(generator=generator)
        second = self._noise(n).exponential_(generator=generator)
        return temperature * (first.log() - second.log())


@final
class Uniform(BaseDensity):
    """log p(z) = −D log(high − low) inside [low, high]ᴰ, exactly −∞ outside.

    A NaN stays a NaN: it is neither inside nor outside.

    Args:
        event_shape: the shape of one latent.
        low: the lower edge of every element.
        high: the upper edge of every element.

    Raises:
        ConfigError: the event shape is no tuple of positive integers, or ``low`` is not below ``high``.

    Example:
        >>> import torch
        >>> base = Uniform((1,), low=-1.0, high=1.0)
        >>> base.log_prob(torch.tensor([[0.5], [1.5]])).exp()
        tensor([0.5000, 0.0000])
    """

    def __init__(self, event_shape: Shape, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__(event_shape)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigError(self.label, expected="finite edges with low < high", got=f"low={low}, high={high}")
        self.low, self.high = low, high

    def _log_prob(self, z: Tensor) -> Tensor:
        density = torch.where(z.isnan(), z, -math.log(self.high - self.low))
        return sum_event(torch.where((z < self.low) | (z > self.high), -math.inf, density))

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        centre, width = (self.low + self.high) / 2, self.high - self.low
        return centre + temperature * width * (self._noise(n).uniform_(generator=generator) - 0.5)

    def extra_repr(self) -> str:
        """Show the shape and the box in ``print(flow)``."""
        return f"{super().extra_repr()}, low={self.low}, high={self.high}"


_LARGEST = 7.0


@final
class NormalMixture(BaseDensity):
    """log p(z) = log Σₖ πₖ Πᵢ N(zᵢ; μₖᵢ, σₖᵢ²): K normals with learned weights, means and scales, for data in clusters.

    A flow is a deformation: from one normal it can only draw thin bridges between clusters. The means begin as a sample
    of a standard normal. A sample is differentiable in means and scales, not in the weights. log σ is bounded by ±7.

    Args:
        event_shape: the shape of one latent.
        components: K.

    Raises:
        ConfigError: the event shape is no tuple of positive integers, or K is below one.

    Example:
        >>> import torch
        >>> base = NormalMixture((2,), 3)
        >>> base.log_prob(base.sample(5)).shape
        torch.Size([5])
    """

    def __init__(self, event_shape: Shape, components: int = 8) -> None:
        super().__init__(event_shape)
        check_count("NormalMixture", "components", components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, *self.event_shape))
        self.raw_log_scales = nn.Parameter(torch.zeros(components, *self.event_shape))

    @property
    def log_scales(self) -> Tensor:
        """log σ, with shape ``(K, *event)``."""
        return _LARGEST * torch.tanh(self.raw_log_scales / _LARGEST)

    def _log_prob(self, z: Tensor) -> Tensor:
        log_scales = self.log_scales
        standard = (z.unsqueeze(1) - self.means) * torch.exp(-log_scales)
        each = -0.5 * sum_event((standard.square() + math.log(2 * math.pi)).flatten(0, 1)).unflatten(
            0, standard.shape[:2]
        )
        return torch.logsumexp(torch.log_softmax(self.logits, 0) + each - sum_event(log_scales), 1)

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        weights = torch.softmax(self.logits.detach(), 0)
        chosen = (
            torch.multinomial(weights, n, replacement=True, generator=generator)
            if n
            else self.means.new_zeros(0).long()
        )
        noise = self._noise(n).normal_(generator=generator)
        return self.means[chosen] + temperature * self.log_scales.exp()[chosen] * noise


_BRANCHES = 3


@final
class FoldedDensity(BaseDensity):
    """log p(x) = log p(z) + Σᵢ log g(kᵢ | z), z = fold(x): a map that is three to one, and the branch a random choice.

    fold(x) is x + 2a left of −a, −x in between and x − 2a right of a: the same z comes from three places, and the gate
    g, a network, says with which probability from each. What one normal cannot hold together comes apart without a
    bridge. |fold'| = 1, so that there is no log-determinant. The density may jump at ±a, where branches meet.

    To go on with a flow, make it the base of one: ``Flow(bijection, FoldedDensity(StandardNormal((2,))))``.

    Args:
        base: p(z), of vectors.
        width: features inside of the gate's network.
        depth: hidden layers of it.

    Attributes:
        raw_fold: a = softplus of it, with shape ``(D,)``; a = 1 at first.

    References:
        Dinh et al. (2019), A RAD approach to deep mixture models, eq. 4 and section 3.

    Example:
        >>> import torch, snflow
        >>> density = FoldedDensity(snflow.StandardNormal((2,)))
        >>> density.log_prob(density.sample(5)).shape
        torch.Size([5])
    """

    def __init__(self, base: BaseDensity, width: int = 32, depth: int = 2) -> None:
        super().__init__(base.event_shape)
        (features,) = base.event_shape
        self.base = base
        self.raw_fold = nn.Parameter(torch.full((features,), 0.5413248546129181))
        self.gate = MLP(features, _BRANCHES * features, width, depth)

    def _log_prob(self, z: Tensor) -> Tensor:
        x, a = z, F.softplus(self.raw_fold)
        branch = (x > -a).long() + (x > a).long()
        shift = 2 * a * (1 - branch)
        folded = torch.where(branch == 1, -x, x + shift)
        log_gate = self._log_gate(folded, a).gather(1, branch.unsqueeze(1)).squeeze(1)
        return self.base.log_prob(folded) + sum_event(log_gate)

    def _sample(self, n: int, temperature: float, generator: Generator | None) -> Tensor:
        z = self.base.rsample(n, temperature, generator=generator)
        a = F.softplus(self.raw_fold)
        weights = self._log_gate(z, a).exp().transpose(1, 2).reshape(-1, _BRANCHES).detach()
        branch = torch.multinomial(weights, 1, generator=generator).view(z.shape) if n else z.long()
        return torch.where(branch == 1, -z, z - 2 * a * (1 - branch))

    def _log_gate(self, z: Tensor, a: Tensor) -> Tensor:
        """log g ``(batch, 3, D)``; a branch that does not reach z has −∞."""
        logits = self.gate(z).unflatten(1, (_BRANCHES, -1))
        reached = torch.stack([z <= a, z.abs() <= a, z >= -a], 1)
        # A NaN is reached by no branch: leave it to the base density to say so.
        return torch.log_softmax(torch.where(reached | z.isnan().unsqueeze(1), logits, -torch.inf), 1)
