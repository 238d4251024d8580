"""The change of variables as the limit of a variational bound."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from snflow.bijections.base import Bijection, InverseMethod
from snflow.distributions.base import BaseDensity
from snflow.errors import CheckedConstructor, check_choice, check_count, check_positive
from snflow.numerics.probes import sum_event


@final
class StochasticInverse(nn.Module, metaclass=CheckedConstructor):
    """log p(x) ≥ E_ε [log p(z) + log|det J_f(x̃)| − ‖x − g(z)‖²/2σ² + ‖ε‖²/2], x̃ = x + σε, z = f(x̃).

    This is a variational autoencoder whose encoder q(z|x) applies f to a slightly perturbed x, and whose decoder is
    N(x; g(z), σ²I): log q(z|x) = log N(x̃; x, σ²I) − log|det J_f(x̃)|. If g is the inverse of f, the two Gaussians
    cancel and the bound is E log p_f(x̃), which tends to the change of variables as σ → 0 with a gap of order σ².
    Otherwise the squared error of g has weight 1/2σ² and pulls g toward f⁻¹. With self-normalizing layers, the gradient
    of the entropy term log|det J_f| is the self-normalized one.

    Args:
        bijection: f, whose inverse is g.
        base: p(z).
        sigma: σ > 0, the standard deviation of the encoder's noise and of the decoder.
        inverse: the inversion method of self-normalizing layers; with ``"learned"``, their learned inverse is the
            decoder.

    Raises:
        ConfigError: σ is not positive, or the inversion method is unknown.

    References:
        Keller et al. (2021), Self Normalizing Flows, A.4; Gritsenko, Snoek, Salimans (2019), On the relationship
        between normalising flows and variational- and denoising autoencoders.

    Example:
        >>> import torch, snflow
        >>> model = StochasticInverse(snflow.SelfNormalizingDense(3), snflow.StandardNormal(3), sigma=0.01)
        >>> (-model(torch.randn(5, 3)).mean()).backward()
    """

    def __init__(
        self, bijection: Bijection, base: BaseDensity, *, sigma: float, inverse: InverseMethod = "learned"
    ) -> None:
        super().__init__()
        check_positive("StochasticInverse", "sigma", sigma, fix="use 0.01 for standardized data")
        check_choice("StochasticInverse", "inverse", inverse, InverseMethod)
        self.bijection, self.base, self.sigma, self.inverse = bijection, base, sigma, inverse

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The bound, as :meth:`elbo` with one sample."""
        return self.elbo(x, context)

    def elbo(self, x: Tensor, context: Tensor | None = None, *, samples: int = 1) -> Tensor:
        """The bound in nats, averaged over draws of ε.

        Args:
            x: data, with shape ``(batch, *event)``.
            context: the value on which the bijection is conditioned, with shape ``(batch, *context_shape)``.
            samples: the number of draws of ε for each row.

        Returns:
            Estimates of the bound, with shape ``(batch,)``. They are unbiased in ``eval()``, where log-determinants are
            exact; in ``train()`` only their gradient is meaningful.

        Raises:
            ConfigError: fewer than one sample.
            ShapeError, DtypeError, DeviceError, ContextError, NotInvertibleError: as the bijection.
        """
        check_count("StochasticInverse", "samples", samples)
        noise = torch.randn(samples, *x.shape, dtype=x.dtype, device=x.device).flatten(0, 1)
        rows = x.expand(samples, *x.shape).flatten(0, 1)
        contexts = None if context is None else context.expand(samples, *context.shape).flatten(0, 1)
        z, log_det = self.bijection(rows + self.sigma * noise, contexts)
        decoded = self.bijection.decode(z, contexts, inverse=self.inverse)
        decoder = -sum_event((rows - decoded).square()) / (2 * self.sigma**2)
        encoder = -sum_event(noise.square()) / 2
        bound: Tensor = self.base.log_prob(z) + log_det + decoder - encoder
        return bound.view(samples, len(x)).mean(0)
