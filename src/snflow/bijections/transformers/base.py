"""The contract of a transformer: a monotone map of each element, with parameters supplied by a layer."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from snflow.errors import CheckedConstructor


class Transformer(nn.Module, metaclass=CheckedConstructor):
    """zᵢ = τ(xᵢ; hᵢ) and log dzᵢ/dxᵢ: what a coupling, an autoregressive or an element-wise layer does to an element.

    The layer supplies the parameters h, the transformer uses them. Parameters of zero should give the identity or a
    map near it, because a network that begins with zeros then begins there.

    **To write one**, set ``parameters_per_element`` and implement the two directions; they may not mix elements.

    Attributes:
        parameters_per_element: P, the number of parameters hᵢ.

    References:
        Papamakarios et al. (2021), Normalizing flows for probabilistic modeling and inference, section 3.1: the name.
    """

    parameters_per_element: int

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
        """Compute what depends on the parameters only; the three methods above take the result in place of h.

        A layer whose batch shares the parameters calls it once as long as they do not change. By default h itself.

        Args:
            h: with shape ``(P, 1, *event)``.
        """
        return h
