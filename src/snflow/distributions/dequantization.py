"""Dequantization: continuous noise added to integer data."""

from __future__ import annotations

from abc import abstractmethod
from typing import final

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from snflow.bijections.base import Bijection, check_tensor
from snflow.distributions.base import check_kind, standard_normal_log_prob
from snflow.errors import CheckedConstructor, ConfigError, DataError, DivergenceError, DtypeError
from snflow.numerics.probes import sum_event


class Dequantization(nn.Module, metaclass=CheckedConstructor):
    """x = k + u with noise u ~ q(u | k) on [0, 1)ᴰ: makes integers k continuous.

    A density p(x) fitted to dequantized data bounds the probability of the integers from below,
    log P(k) ≥ E_q[log p(k + u) − log q(u | k)] (Theis, van den Oord, Bethge 2016; Ho et al. 2019, eq. 12).

    **To write one**, implement :meth:`_noise`; this class has the checks and the inverse.

    Args:
        num_values: L, the number of values; data are integers from 0 to L − 1.

    Raises:
        ConfigError: fewer than two values.
    """

    def __init__(self, num_values: int) -> None:
        super().__init__()
        if type(num_values) is not int or num_values < 2:
            raise ConfigError(
                type(self).__name__, expected="num_values ≥ 2", got=repr(num_values), fix="use 256 for 8-bit images"
            )
        self.num_values = num_values

    @abstractmethod
    def _noise(self, k: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Map integers k, as floats ``(batch, *event)``, to noise u of that shape and log q(u | k) ``(batch,)``."""

    def forward(
        self, k: Tensor, *, dtype: torch.dtype | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """x = k + u, log q(u | k).

        Args:
            k: data of an integer dtype, with shape ``(batch, *event)``.
            dtype: the floating dtype of x, torch's default when ``None``.
            generator: the random number generator of the noise; when ``None``, torch's global one on the data's device,
                whose state is part of a checkpoint.

        Returns:
            x in [k, k + 1), with shape ``(batch, *event)``, and log q in nats with shape ``(batch,)``.

        Raises:
            DtypeError: the data are not a tensor of integers.
            DataError: a value is outside 0 … L − 1.
        """
        check_tensor(type(self).__name__, k)
        if k.is_floating_point() or k.is_complex() or k.dtype == torch.bool:
            raise DtypeError(
                type(self).__name__,
                expected="data of an integer dtype",
                got=f"{k.dtype}",
                fix="pass images as uint8, or build the flow without a dequantization for continuous data",
            )
        self._check_range(k)
        real = k.to(torch.get_default_dtype() if dtype is None else dtype)
        noise, log_q = self._noise(real, generator)
        # 255 + 0.9999999 is rounded to 256 in float32: stay below the next integer, so that ⌊x⌋ is exactly k.
        return torch.minimum(real + noise, torch.nextafter(real + 1, real)), log_q

    @final
    def quantize(self, x: Tensor) -> Tensor:
        """k = ⌊x⌋, clamped to 0 … L − 1.

        Args:
            x: real numbers, of any shape.

        Returns:
            Integers of that shape, uint8 if L ≤ 256 and int64 otherwise.

        Raises:
            DivergenceError: a value is NaN.
        """
        # A traced graph cannot branch on values: there, a NaN is cast like any other number.
        missing = 0 if torch.compiler.is_compiling() else int(x.isnan().sum())
        if missing:
            raise DivergenceError(
                type(self).__name__,
                expected="real numbers",
                got=f"{missing} NaN of {x.numel()}",
                fix="sample with inverse='exact' or a lower temperature, or train the flow further",
            )
        return x.floor().clamp(0, self.num_values - 1).to(torch.uint8 if self.num_values <= 256 else torch.int64)

    def extra_repr(self) -> str:
        """Show the number of values in ``print(flow)``."""
        return f"num_values={self.num_values}"

    def _check_range(self, k: Tensor) -> None:
        # On an accelerator this would synchronize in every step; there we rely on the check of the dataset.
        if k.device.type != "cpu" or torch.compiler.is_compiling() or k.numel() == 0:
            return
        if k.dtype == torch.uint8 and self.num_values >= 256:
            return
        low, high = int(k.min()), int(k.max())
        if low < 0 or high >= self.num_values:
            raise DataError(
                type(self).__name__,
                expected=f"values from 0 to {self.num_values - 1}",
                got=f"values from {low} to {high}",
                fix="set num_values to the number of values of the data",
            )


@final
class UniformDequantization(Dequantization):
    """x = k + u with u ~ U[0, 1)ᴰ, so that log q = 0 (Theis, van den Oord, Bethge 2016, section 3.1).

    Args:
        num_values: L, the number of values; data are integers from 0 to L − 1.

    Raises:
        ConfigError: fewer than two values.

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
        # Only a call without a generator can be traced for batches of any size.
        if generator is None:
            noise = torch.rand_like(k, memory_format=torch.contiguous_format)
        else:
            noise = torch.rand(k.shape, dtype=k.dtype, device=k.device, generator=generator)
        return noise, torch.zeros(k.shape[0], dtype=k.dtype, device=k.device)


@final
class VariationalDequantization(Dequantization):
    """x = k + u, u = σ(v), v = f(ε; k), ε ~ N(0, I); log q = log N(ε) − log|det ∂f/∂ε| − Σ log σ'(v).

    The noise distribution is learned so that the bound log P(k) ≥ E_q[log p(k + u) − log q(u | k)] is tighter than with
    uniform noise. The parameters of f are trained together with those of the flow, with the same objective.

    Args:
        num_values: L, the number of values; data are integers from 0 to L − 1.
        bijection: f, conditioned on the image, which is scaled to [−1, 1].

    Raises:
        ConfigError: fewer than two values, or a bijection without a context.

    References:
        Ho et al. (2019), Flow++, section 3.1, eq. 12.

    Example:
        >>> import torch, snflow
        >>> from snflow.bijections.coupling import checkerboard
        >>> net = snflow.nets.AttentionConvNet(1, 2, (4, 4), width=8, blocks=1, context_shape=(1, 4, 4))
        >>> layer = snflow.Coupling(checkerboard(4, 4), snflow.AffineTransformer(), net, context_shape=(1, 4, 4))
        >>> dequantize = VariationalDequantization(16, layer)
        >>> x, log_q = dequantize(torch.randint(16, (3, 1, 4, 4)))
        >>> x.shape, log_q.shape
        (torch.Size([3, 1, 4, 4]), torch.Size([3]))
    """

    def __init__(self, num_values: int, bijection: Bijection) -> None:
        super().__init__(num_values)
        check_kind("VariationalDequantization", "bijection", bijection, Bijection)
        if bijection.context_shape is None:
            raise ConfigError(
                "VariationalDequantization",
                expected="a bijection conditioned on the image",
                got=f"{bijection.label}, without a context",
                fix="build it with context_shape=image_shape",
            )
        self.bijection = bijection

    def _noise(self, k: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        if generator is None:  # as in UniformDequantization
            noise = torch.randn_like(k, memory_format=torch.contiguous_format)
        else:
            noise = torch.randn(k.shape, dtype=k.dtype, device=k.device, generator=generator)
        v, log_det = self.bijection(noise, 2 * k / (self.num_values - 1) - 1)
        log_slope = sum_event(F.logsigmoid(v) + F.logsigmoid(-v))
        return torch.sigmoid(v), standard_normal_log_prob(noise) - log_det - log_slope
