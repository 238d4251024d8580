"""The contract of a transformer: a monotone map of each element whose parameters are supplied by a layer."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Transformer(nn.Module, ABC):
    """zᵢ = τ(xᵢ; hᵢ) and log dzᵢ/dxᵢ: what a coupling, an autoregressive or an element-wise layer does to an element.

    A layer decides where the parameters h come from; a transformer what is done with them. Parameters that are all zero
    shall mean the identity, or something near it, so that a network that begins with zeros begins there.

    **To write one**, set ``parameters_per_element`` and implement the two directions; they may not mix elements.

    Attributes:
        parameters_per_element: P, how many numbers hᵢ is.

    References:
        Papamakarios et al. (2021), Normalizing flows for probabilistic modeling and inference, section 3.1: the name.
    """

    parameters_per_element: int

    @abstractmethod
    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = τ(x; h), log dz/dx.

        Args:
            x: with shape ``(batch, *event)``.
            h: parameters, with shape ``(P, batch, *event)``, or ``(P, 1, *event)`` where the batch shares them.

        Returns:
            z and the log-slope in nats, both with the shape of x.
        """

    @abstractmethod
    def inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x = τ⁻¹(z; h), log dx/dz, likewise."""

    def decode(self, z: Tensor, h: Tensor) -> Tensor:
        """x = τ⁻¹(z; h) without the log-slope, likewise: what sampling needs."""
        return self.inverse(z, h)[0]
