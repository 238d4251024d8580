"""The contract of a base density: ``log_prob(z)``, ``sample(n)`` and ``rsample(n)``."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Generator, Tensor, nn

from snflow.bijections.base import Shape
from snflow.errors import ConfigError, DeviceError, DtypeError, ShapeError


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
