"""Dequantization: continuous noise added to integer data."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from snflow.bijections.base import Bijection
from snflow.errors import ConfigError, DataError, DivergenceError, DtypeError
from snflow.numerics.probes import sum_event


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


@final
class UniformDequantization(Dequantization):
    """x = k + u with u ~ U[0, 1)ᴰ, so that log q = 0 (Theis, van den Oord, Bethge 2016, section 3.1).

    Args:
        levels: L, the number of levels; data run from 0 to L − 1.

    Raises:
        ConfigError: fewer than two levels.

    Example:
        >>> import torch
        >>> dequantize = UniformDequantization(17)
        >>> digits = torch.randint(17, (3, 1, 8, 8))
        >>> x, log_q = dequantize(digits)
        >>> x.shape, log_q.shape
        (torch.Size([3, 1, 8, 8]), torch.Size([3]))
        >>> torch.equal(dequantize.quantize(x), digits.to(torch.uint8))
        True
    """

    def _noise(self, k: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        # The call without a generator is the one that a compiler can trace for batches of any size.
        if generator is None:
            noise = torch.rand_like(k, memory_format=torch.contiguous_format)
        else:
            noise = torch.rand(k.shape, dtype=k.dtype, device=k.device, generator=generator)
        return noise, torch.zeros(k.shape[0], dtype=k.dtype, device=k.device)


@final
class VariationalDequantization(Dequantization):
    """x = k + u, u = σ(v), v = f(ε; k), ε ~ N(0, I); log q = log N(ε) − log|det ∂f/∂ε| − Σ log σ'(v).

    The noise is drawn where it makes the bound log P(k) ≥ E_q[log p(k + u) − log q(u | k)] tight, which uniform noise
    cannot do: its flow is trained with the other one, by the same objective.

    Args:
        levels: L, the number of levels; data run from 0 to L − 1.
        bijection: f, which sees the image, scaled to [−1, 1], as its context.

    Raises:
        ConfigError: fewer than two levels, or a bijection that takes no context.

    References:
        Ho et al. (2019), Flow++, section 3.1, eq. 12.

    Example:
        >>> import torch, snflow
        >>> from snflow.bijections.coupling import checkerboard
        >>> net = snflow.nets.AttentionConvNet(1, 8, 2, (4, 4), 1, context_channels=1)
        >>> layer = snflow.Coupling(checkerboard(4, 4), snflow.AffineTransformer(), net, (1, 4, 4))
        >>> dequantize = VariationalDequantization(16, layer)
        >>> x, log_q = dequantize(torch.randint(16, (3, 1, 4, 4)))
        >>> x.shape, log_q.shape
        (torch.Size([3, 1, 4, 4]), torch.Size([3]))
    """

    def __init__(self, levels: int, bijection: Bijection) -> None:
        super().__init__(levels)
        if bijection.context_shape is None:
            raise ConfigError(
                "VariationalDequantization",
                expected="a bijection that takes the image as its context",
                got=f"{bijection.label}, which takes none",
                fix="build it with the image's shape as context_features",
            )
        self.bijection = bijection

    def _noise(self, k: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        if generator is None:  # as in UniformDequantization
            noise = torch.randn_like(k, memory_format=torch.contiguous_format)
        else:
            noise = torch.randn(k.shape, dtype=k.dtype, device=k.device, generator=generator)
        v, log_det = self.bijection(noise, 2 * k / (self.levels - 1) - 1)
        log_normal = -0.5 * sum_event(noise.square() + math.log(2 * math.pi))
        log_slope = sum_event(F.logsigmoid(v) + F.logsigmoid(-v))
        return torch.sigmoid(v), log_normal - log_det - log_slope
