"""The change of variables as the limit of a variational bound."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection, InverseMethod
from snflow.distributions.base import BaseDensity
from snflow.errors import ConfigError, check_count
from snflow.numerics.probes import sum_event


@final
class StochasticInverse(nn.Module):
    """log p(x) ≥ E_ε [log p(z) + log|det J_f(x̃)| − ‖x − g(z)‖²/2σ² + ‖ε‖²/2], x̃ = x + σε, z = f(x̃).

    A variational autoencoder whose encoder q(z|x) is f of a slightly shaken x and whose decoder is N(x; g(z), σ²I):
    log q(z|x) = log N(x̃; x, σ²I) − log|det J_f(x̃)|. Where g is the inverse of f the two Gaussians cancel and the bound
    is E log p_f(x̃): it tends to the change of variables as σ → 0, with a gap of order σ². Where g is not, its error
    counts 1/2σ² and pulls g to f⁻¹. With self-normalizing layers the gradient of the entropy term log|det J_f| is the
    self-normalizing one.

    Args:
        bijection: f, and g by its way back.
        base: p(z).
        sigma: σ > 0.
        inverse: how self-normalizing layers go back; ``"learned"`` makes their g the decoder.

    Raises:
        ConfigError: σ is not positive.

    References:
        Keller et al. (2021), Self Normalizing Flows, A.4; Gritsenko, Snoek, Salimans (2019), On the relationship
        between normalising flows and variational- and denoising autoencoders.

    Example:
        >>> import torch, snflow
        >>> model = StochasticInverse(snflow.SelfNormalizingDense(3), snflow.StandardNormal((3,)), sigma=0.01)
        >>> (-model(torch.randn(5, 3)).mean()).backward()
    """

    def __init__(
        self, bijection: Bijection, base: BaseDensity, sigma: float, *, inverse: InverseMethod | None = "learned"
    ) -> None:
        super().__init__()
        if not (math.isfinite(sigma) and sigma > 0):
            raise ConfigError(
                "StochasticInverse", expected="sigma > 0", got=str(sigma), fix="0.01 for data of unit size"
            )
        self.bijection, self.base, self.sigma, self.inverse = bijection, base, sigma, inverse

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The bound: as :meth:`elbo` with one sample."""
        return self.elbo(x, context)

    def elbo(self, x: Tensor, context: Tensor | None = None, samples: int = 1) -> Tensor:
        """The bound in nats, a mean over ``samples`` draws of ε for each row.

        Args:
            x: data, with shape ``(batch, *event)``.
            context: what the flow is conditioned on, with shape ``(batch, *context_shape)``.
            samples: how many ε.

        Returns:
            Lower bounds on log p(x), with shape ``(batch,)``; unbiased ones in ``eval()``, whose log-determinants are
            exact. In ``train()`` their gradient is what counts.

        Raises:
            ConfigError: fewer than one sample.
            ShapeError, DtypeError, DeviceError, ContextError, NotInvertibleError: as those of the bijection.
        """
        check_count("StochasticInverse", "samples", samples)
        noise = torch.randn(samples, *x.shape, dtype=x.dtype, device=x.device).flatten(0, 1)
        rows = x.expand(samples, *x.shape).flatten(0, 1)
        given = None if context is None else context.expand(samples, *context.shape).flatten(0, 1)
        z, log_det = self.bijection(rows + self.sigma * noise, given)
        back = self.bijection.decode(z, given, inverse=self.inverse)
        decoder = -sum_event((rows - back).square()) / (2 * self.sigma**2)
        encoder = -sum_event(noise.square()) / 2
        bound: Tensor = self.base.log_prob(z) + log_det + decoder - encoder
        return bound.view(samples, len(x)).mean(0)
