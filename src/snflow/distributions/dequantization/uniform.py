"""Dequantization by uniform noise."""

from __future__ import annotations

from typing import final

import torch
from torch import Generator, Tensor

from snflow.distributions.dequantization.base import Dequantization


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
