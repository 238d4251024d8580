"""Monotone transformers: logistic mixtures, sigmoidal and integral networks, and sum-of-squares polynomials."""

from __future__ import annotations

from functools import partial
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snflow.bijections.transformers.transformer import Transformer
from snflow.errors import ConfigError, check_count
from snflow.numerics.compilation import ROOT_SEARCH
from snflow.numerics.devices import structure_device
from snflow.numerics.monotone import SOFTPLUS_ONE, integral, legendre, sigmoidal, sum_of_squares
from snflow.numerics.root_finding import implicit_inverse

_LARGEST = 5.0


@final
class LogisticMixtureTransformer(Transformer):
    """z = exp(a) logit(Σₖ πₖ σ((x − μₖ)/sₖ)) + b: the CDF of a logistic mixture, followed by a logit (Flow++).

    hᵢ consists of K log-weights, K means, K log-scales, a and b. For h = 0 the means are spread over [−1, 1], so that
    the components differ. The inverse is a root search with implicit gradients.

    Args:
        components: K.

    Raises:
        ConfigError: fewer than one component.
        ConvergenceError: in the inverse, no root was found for some elements.

    References:
        Ho et al. (2019), Flow++, eq. 13-15.

    Example:
        >>> import torch
        >>> LogisticMixtureTransformer(2)(torch.zeros(1, 1), torch.zeros(8, 1, 1))[0].item()
        0.0
    """

    spread: Tensor

    uncompiled = ROOT_SEARCH

    def __init__(self, components: int = 8) -> None:
        super().__init__()
        check_count("LogisticMixtureTransformer", "components", components)
        self.components = components
        self.parameters_per_element = 3 * components + 2
        with structure_device():
            first = torch.linspace(-1, 1, components) if components > 1 else torch.zeros(1)
        self.register_buffer("spread", first, persistent=False)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = exp(a) logit(F(x)) + b."""
        k = self.components
        logits, means, scales, last = h.split([k, k, k, 2])
        means = means + self.spread.reshape(-1, *[1] * (h.dim() - 1))
        log_slopes = -bounded(scales)
        z, log_slope = sigmoidal(x, torch.log_softmax(logits, 0), log_slopes, -means * log_slopes.exp())
        a = bounded(last[0])
        return torch.addcmul(last[1], z, a.exp()), log_slope + a

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x by a root search."""
        return implicit_inverse(partial(self.forward, h=h), z, z - 1, z + 1, where="LogisticMixtureTransformer inverse")


@final
class SigmoidalTransformer(Transformer):
    """z = τ_L(… τ₁(x)), τ(x) = logit(Σₖ wₖ σ(aₖ x + bₖ)): a monotone network whose weights are the parameters.

    hᵢ consists of K log-weights, K log-slopes and K shifts for each of the L layers. For h = 0 the shifts are spread
    over [−1, 1]. The inverse is a root search with implicit gradients.

    Args:
        units: K.
        layers: L.

    Raises:
        ConfigError: a count below one.
        ConvergenceError: in the inverse, no root was found for some elements.

    References:
        Huang et al. (2018), Neural autoregressive flows, eq. 8 (deep sigmoidal flow).

    Example:
        >>> import torch
        >>> SigmoidalTransformer(2, layers=1)(torch.zeros(1, 1), torch.zeros(6, 1, 1))[0].item()
        0.0
    """

    spread: Tensor

    uncompiled = ROOT_SEARCH

    def __init__(self, units: int = 8, *, layers: int = 2) -> None:
        super().__init__()
        check_count("SigmoidalTransformer", "units", units)
        check_count("SigmoidalTransformer", "layers", layers)
        self.units, self.layers = units, layers
        self.parameters_per_element = 3 * units * layers
        with structure_device():
            first = torch.linspace(-1, 1, units) if units > 1 else torch.zeros(1)
        self.register_buffer("spread", first, persistent=False)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = τ_L(… τ₁(x))."""
        total = torch.zeros_like(x)
        for layer in h.chunk(self.layers):
            logits, slopes, shifts = layer.chunk(3)
            shifts = shifts + self.spread.reshape(-1, *[1] * (h.dim() - 1))
            x, log_slope = sigmoidal(x, torch.log_softmax(logits, 0), bounded(slopes), shifts)
            total = total + log_slope
        return x, total

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x by a root search."""
        return implicit_inverse(partial(self.forward, h=h), z, z - 1, z + 1, where="SigmoidalTransformer inverse")


def bounded(log_scale: Tensor) -> Tensor:
    """c tanh(h/c), c = 5: a bounded log-scale, whose exponential cannot overflow."""
    return _LARGEST * torch.tanh(log_scale / _LARGEST)


_LEAST_SLOPE = 1e-3


@final
class IntegralTransformer(Transformer):
    """z = ∫₀ˣ g(t; h) dt + β, log dz/dx = log g(x; h), g > 0 a network: an unconstrained monotone network.

    On [−B, B] the integral is computed by Gauss–Legendre quadrature; outside, g is constant and z is linear. The
    log-slope is that of the exact integral. The slope of the quadrature differs from it by the error of the rule: in a
    flow with weights moved by 0.3, by up to 2e-4 nats with 12 nodes, 4e-8 with 24 and 1e-13 with 48. hᵢ consists of E
    additional inputs of g, and β. All elements share the same g. The inverse is a root search with implicit gradients.

    Args:
        embedding: E.
        width: units of each of the two hidden layers of g.
        nodes: number of quadrature nodes.
        bound: B, in the units of x.

    Raises:
        ConfigError: a count below one, or a bound that is not positive.
        ConvergenceError: in the inverse, no root was found for some elements.

    References:
        Wehenkel & Louppe (2019), Unconstrained monotonic neural networks, eq. 3 and 5.

    Example:
        >>> import torch
        >>> z, log_slope = IntegralTransformer(2, width=4)(torch.zeros(1, 1), torch.zeros(3, 1, 1))
        >>> z.item()
        0.0
    """

    uncompiled = ROOT_SEARCH

    def __init__(self, embedding: int = 8, *, width: int = 32, nodes: int = 48, bound: float = 5.0) -> None:
        super().__init__()
        for option, count in (("embedding", embedding), ("width", width), ("nodes", nodes)):
            check_count("IntegralTransformer", option, count)
        _check_bound("IntegralTransformer", bound)
        self.parameters_per_element = embedding + 1
        self.bound = bound
        self.rule = legendre(nodes)
        self.of_point = nn.Linear(1, width)
        self.of_embedding = nn.Linear(embedding, width, bias=False)
        self.hidden = nn.Linear(width, width)
        self.last = nn.Linear(width, 1)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = ∫₀ˣ g + β."""
        embedded = self.of_embedding(h[:-1].movedim(0, -1))
        inner = x.clamp(-self.bound, self.bound)
        value = integral(lambda t: self._log_integrand(t, embedded).exp(), inner, self.rule)
        log_slope = self._log_integrand(inner, embedded)
        return value + log_slope.exp() * (x - inner) + h[-1], log_slope

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x by a root search."""
        return implicit_inverse(partial(self.forward, h=h), z, z - 1, z + 1, where="IntegralTransformer inverse")

    def _log_integrand(self, t: Tensor, embedded: Tensor) -> Tensor:
        # the offset makes the slope one where the output of the network is zero
        units = torch.tanh(self.hidden(torch.tanh(self.of_point(t.unsqueeze(-1)) + embedded)))
        positive: Tensor = F.softplus(self.last(units).squeeze(-1) + SOFTPLUS_ONE) + _LEAST_SLOPE
        return positive.log()


@final
class SumOfSquaresTransformer(Transformer):
    """z = β + ∫₀ˣ (ε + Σₖ pₖ(t)²) dt, K polynomials of degree R: an increasing polynomial of degree 2R + 1.

    hᵢ consists of the K (R + 1) coefficients and β. For h = 0 the map is close to the identity. Outside [−B, B] it is
    linear, to avoid overflow at distant points. The inverse is a root search with implicit gradients.

    Args:
        polynomials: K.
        degree: R.
        bound: B, in the units of x.

    Raises:
        ConfigError: a count below one, or a bound that is not positive.
        ConvergenceError: in the inverse, no root was found for some elements.

    References:
        Jaini et al. (2019), Sum-of-squares polynomial flow, eq. 9.

    Example:
        >>> import torch
        >>> SumOfSquaresTransformer(2, 1)(torch.zeros(1, 1), torch.zeros(5, 1, 1))[0].item()
        0.0
    """

    first: Tensor
    units: Tensor

    uncompiled = ROOT_SEARCH

    def __init__(self, polynomials: int = 3, degree: int = 3, *, bound: float = 5.0) -> None:
        super().__init__()
        check_count("SumOfSquaresTransformer", "polynomials", polynomials)
        check_count("SumOfSquaresTransformer", "degree", degree)
        _check_bound("SumOfSquaresTransformer", bound)
        self.polynomials, self.degree, self.bound = polynomials, degree, bound
        self.parameters_per_element = polynomials * (degree + 1) + 1
        # for h = 0, Σ p² ≈ 1, with slightly different slopes: identical polynomials would remain identical
        with structure_device():
            first = torch.zeros(polynomials, degree + 1)
            first[:, 0] = ((1 - _LEAST_SLOPE) / polynomials) ** 0.5
            first[:, 1] = 0.05 * (torch.arange(polynomials) - (polynomials - 1) / 2)
            # scaled by B⁻ⁱ, so that all coefficients have effects of similar size on [−B, B]
            units = torch.tensor([bound ** -float(i) for i in range(degree + 1)])
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("units", units, persistent=False)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = ∫₀ˣ (ε + Σ p²) + β."""
        ones = [1] * (h.dim() - 1)
        free = h[:-1].unflatten(0, (self.polynomials, self.degree + 1)) * self.units.to(h.dtype).reshape(-1, *ones)
        coefficients = free + self.first.reshape(*self.first.shape, *ones)
        inner = x.clamp(-self.bound, self.bound)
        value, slope = sum_of_squares(inner, coefficients, _LEAST_SLOPE)
        return value + slope * (x - inner) + h[-1], slope.log()

    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x by a root search."""
        return implicit_inverse(partial(self.forward, h=h), z, z - 1, z + 1, where="SumOfSquaresTransformer inverse")


def _check_bound(where: str, bound: float) -> None:
    if not 0 < bound < float("inf"):
        raise ConfigError(where, expected="bound > 0", got=str(bound), fix="use 5 for standardized data")
