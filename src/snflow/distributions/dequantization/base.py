"""From levels 0 … L−1 to real numbers and back, with the density of the noise that was added."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Generator, Tensor, nn

from snflow.errors import ConfigError, DataError, DivergenceError, DtypeError


class Dequantization(nn.Module, ABC):
    """x = k + u with u ~ q(u | k) on [0, 1)ᴰ, and log q: makes integers k continuous.

    A density p(x) fitted to dequantized data bounds the probability of the integers from below,
    log P(k) ≥ E_q[log p(k + u) − log q(u | k)] (Theis, van den Oord, Bethge 2016; Ho et al. 2019, eq. 12).

    **To write one**, implement :meth:`_noise`; the checks and the way back are here, once.

    Args:
        levels: L, the number of levels; data run from 0 to L − 1.

    Raises:
        ConfigError: fewer than two levels.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        if type(levels) is not int or levels < 2:
            raise ConfigError(
                type(self).__name__, expected="two levels or more", got=repr(levels), fix="an 8-bit image has 256"
            )
        self.levels = levels

    @abstractmethod
    def _noise(self, k: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Map integers k, as floats ``(batch, *event)``, to noise u of that shape and log q(u | k) ``(batch,)``."""

    def forward(
        self, k: Tensor, *, dtype: torch.dtype | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """x = k + u, log q(u | k).

        Args:
            k: levels of an integer dtype, with shape ``(batch, *event)``.
            dtype: the floating type of x, torch's default when ``None``.
            generator: where the noise comes from; when ``None`` torch's global generator of the data's device, whose
                state a checkpoint holds.

        Returns:
            x with shape ``(batch, *event)``, inside [k, k + 1), and log q in nats with shape ``(batch,)``.

        Raises:
            DtypeError: the data are no integers.
            DataError: a value lies outside 0 … L − 1.
        """
        if k.is_floating_point() or k.is_complex() or k.dtype == torch.bool:
            raise DtypeError(
                type(self).__name__,
                expected="levels of an integer dtype",
                got=f"{k.dtype}",
                fix="give the images as uint8, or build the flow without a dequantization for continuous data",
            )
        self._check_range(k)
        levels = k.to(torch.get_default_dtype() if dtype is None else dtype)
        noise, log_q = self._noise(levels, generator)
        # 255 + 0.9999999 rounds to 256 in float32: keep x below the next level, so that the way back is exact.
        return torch.minimum(levels + noise, torch.nextafter(levels + 1, levels)), log_q

    @final
    def quantize(self, x: Tensor) -> Tensor:
        """k = ⌊x⌋, clamped to 0 … L − 1.

        Args:
            x: real numbers, of any shape.

        Returns:
            Levels of that shape, as uint8 when they fit, else as int64.

        Raises:
            DivergenceError: a value is NaN, which no level stands for.
        """
        # A traced graph cannot ask; there NaN becomes whatever the cast makes of it.
        missing = 0 if torch.compiler.is_compiling() else int(x.isnan().sum())
        if missing:
            raise DivergenceError(
                type(self).__name__,
                expected="numbers to quantize",
                got=f"{missing} NaN of {x.numel()}",
                fix="sample with inverse='exact' or a lower temperature, or train the flow further",
            )
        return x.floor().clamp(0, self.levels - 1).to(torch.uint8 if self.levels <= 256 else torch.int64)

    def extra_repr(self) -> str:
        """Show the number of levels in ``print(flow)``."""
        return f"levels={self.levels}"

    def _check_range(self, k: Tensor) -> None:
        # On an accelerator this would wait for the device in every step; there the check of the data set stands.
        if k.device.type != "cpu" or torch.compiler.is_compiling() or k.numel() == 0:
            return
        if k.dtype == torch.uint8 and self.levels >= 256:
            return
        low, high = int(k.min()), int(k.max())
        if low < 0 or high >= self.levels:
            raise DataError(
                type(self).__name__,
                expected=f"levels from 0 to {self.levels - 1}",
                got=f"values from {low} to {high}",
                fix="build it with the number of levels that the data have",
            )
