"""Through the distribution function of a known density."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.distributions import Distribution

from snflow.bijections.base import Bijection
from snflow.errors import ConfigError
from snflow.numerics.events import sum_event


@final
class CDF(Bijection):
    """z = F(x), log|det| = Σ log F'(x): data of the density F' become uniform, and back: inverse-transform sampling.

    Takes events of any shape; z has the shape of x, in [0, 1]. With a uniform base the flow is the density itself; with
    other layers behind it, or with a normal's quantiles (:class:`~snflow.Inverse` of another one), a copula.

    Args:
        kind: a distribution of numbers that has ``cdf`` and ``icdf``: ``torch.distributions.Normal``, ``Laplace``,
            ``Cauchy``, ``Uniform``, ``Exponential``, ``Gumbel`` …
        parameters: its parameters, numbers or tensors that broadcast to an event; kept as buffers.

    Raises:
        ConfigError: the distribution has no ``cdf`` or ``icdf``, or does not take the parameters.

    References:
        Devroye (1986), Non-uniform random variate generation, section II.2; Dinh's primer on flows, for the view.

    Example:
        >>> import torch, snflow
        >>> z, log_det = snflow.CDF(torch.distributions.Normal, loc=0.0, scale=1.0)(torch.zeros(1, 1))
        >>> z.item(), round(log_det.item(), 4)
        (0.5, -0.9189)
    """

    def __init__(self, kind: type[Distribution], **parameters: Tensor | float) -> None:
        super().__init__()
        self.kind = kind
        self.names = tuple(parameters)
        for name, value in parameters.items():
            tensor = torch.as_tensor(value).detach()
            floating = tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())
            self.register_buffer(f"parameter_{name}", floating.clone())
        try:
            half = torch.full((), 0.5, dtype=self._floating_type())
            self._distribution().cdf(self._distribution().icdf(half))
        except (NotImplementedError, TypeError, ValueError) as error:
            raise ConfigError(
                "CDF",
                expected="a distribution of numbers with cdf and icdf, and its parameters",
                got=f"{kind.__name__}({', '.join(self.names)}): {str(error) or 'not implemented'}",
                fix="torch.distributions.Normal, Laplace, Cauchy, Uniform, Exponential and Gumbel have both",
            ) from error

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        distribution = self._distribution()
        return distribution.cdf(x), sum_event(distribution.log_prob(x))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        distribution = self._distribution()
        x = distribution.icdf(z)
        return x, -sum_event(distribution.log_prob(x))

    def _distribution(self) -> Distribution:
        given = {name: getattr(self, f"parameter_{name}") for name in self.names}
        return self.kind(**given, validate_args=False)

    def _floating_type(self) -> torch.dtype:
        return next((b.dtype for b in self.buffers()), torch.get_default_dtype())

    def extra_repr(self) -> str:
        """Show the distribution."""
        return f"{self.kind.__name__}({', '.join(self.names)})"
