"""The interface of a transformer: a monotone map of each element, with parameters supplied by a layer."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from snflow.bijections.base import Bijection
from snflow.errors import CheckedConstructor
from snflow.numerics.compilation import Reasons


class Transformer(nn.Module, metaclass=CheckedConstructor):
    """zᵢ = τ(xᵢ; hᵢ) and log dzᵢ/dxᵢ: the scalar map of a coupling, autoregressive or element-wise layer.

    The layer supplies the parameters h. For h = 0 the map should be the identity or close to it, so that a layer whose
    network is initialized to zero starts near the identity.

    **To write a transformer**, set ``parameters_per_element`` and implement the two directions; they must not mix
    elements.

    Attributes:
        parameters_per_element: P, the number of parameters hᵢ.
        domain: the interval of x, which τ maps to itself; all real numbers by default.
        uncompiled: what ``torch.compile`` cannot trace, as in :class:`~snflow.Bijection`.

    References:
        Papamakarios et al. (2021), Normalizing flows for probabilistic modeling and inference, section 3.1, for the
        term.
    """

    parameters_per_element: int
    domain: Constraint = constraints.real
    uncompiled: Reasons = Reasons()

    @abstractmethod
    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = τ(x; h), log dz/dx.

        Args:
            x: with shape ``(batch, *event)``.
            h: parameters, with shape ``(P, batch, *event)``, or ``(P, 1, *event)`` if the batch shares them.

        Returns:
            z and the log-slope in nats, both with the shape of x.
        """

    @abstractmethod
    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x = τ⁻¹(z; h), log dx/dz; the shapes are those of :meth:`forward`."""

    def decode(self, z: Tensor, h: Tensor) -> Tensor:
        """x = τ⁻¹(z; h) without the log-slope, which sampling does not need."""
        return self.inverse(z, h)[0]

    def prepare(self, h: Tensor) -> Any:
        """Precompute quantities that depend on the parameters only; the other methods accept the result in place of h.

        A layer whose parameters are shared by the batch caches the result until they change. The default is h itself.

        Args:
            h: parameters, with shape ``(P, 1, *event)``.
        """
        return h


class TransformedElements(Bijection):
    """A layer that maps elements by a transformer, and each element's interval to itself: abstract base class.

    Attributes:
        transformer: τ.
    """

    transformer: Transformer

    @property
    def uncompiled(self) -> Reasons:
        """What the transformer declares."""
        return self.transformer.uncompiled

    @property
    def domain(self) -> Constraint:
        """The domain of the transformer, for every element."""
        return self.transformer.domain

    @property
    def codomain(self) -> Constraint:
        """The domain of the transformer, for every element."""
        return self.transformer.domain
