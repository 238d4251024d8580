"""Likelihoods as they are reported: exact, in eval mode, summed in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn

from snflow.distributions.flow import Flow
from snflow.errors import ConfigError, DataError

_Nats = TypeVar("_Nats", float, Tensor)


def bits_per_dim(nats: _Nats, dimensions: int) -> _Nats:
    """nats / (D ln 2): a negative log-likelihood per sample, in bits per dimension.

    Args:
        nats: negative log-likelihoods of whole samples, a float or a tensor of any shape.
        dimensions: D, the number of elements of one sample.

    Returns:
        What came, divided; of the same type and shape.

    Raises:
        ConfigError: the number of dimensions is not positive.

    Example:
        >>> import math
        >>> round(bits_per_dim(784 * math.log(256), 784), 12)
        8.0
    """
    if dimensions <= 0:
        raise ConfigError("bits_per_dim", expected="a positive number of dimensions", got=repr(dimensions))
    return nats / (dimensions * math.log(2))


def mean_nll(flow: Flow, data: Tensor, batch_size: int = 500, generator: Generator | None = None) -> float:
    """−1/N Σₙ log p(xₙ): the mean negative log-likelihood in nats, as it is reported.

    Exact log-determinants (eval mode), no gradients, no autocast, summed in float64 whatever the batches are. The
    mode of every module is as before when it returns.

    Args:
        flow: the flow to evaluate.
        data: all the rows, with shape ``(N, *event)``; batches are moved to the flow's device one by one.
        batch_size: rows at a time; it bounds the memory and changes nothing else.
        generator: the dequantization noise, on the flow's device; seed it alike to compare two flows.

    Returns:
        Nats per sample.

    Raises:
        DataError: there are no rows.
        ConfigError: the batch size is not positive.

    Example:
        >>> import torch
        >>> from snflow.bijections import Chain
        >>> from snflow.distributions import StandardNormal
        >>> flow = Flow(Chain([]), StandardNormal((1,)))
        >>> round(mean_nll(flow, torch.zeros(7, 1), batch_size=2), 4)
        0.9189
    """
    if data.shape[0] == 0:
        raise DataError("mean_nll", expected="one row or more", got="none")
    if batch_size <= 0:
        raise ConfigError("mean_nll", expected="a positive batch_size", got=repr(batch_size))
    total = torch.zeros((), dtype=torch.float64)
    device = flow.base.device
    with _evaluating(flow), torch.no_grad(), torch.autocast(device.type, enabled=False):
        for batch in data.split(batch_size):
            log_prob = flow(batch.to(device), generator=generator)
            total -= log_prob.to("cpu", torch.float64).sum()
    return total.item() / data.shape[0]


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Set eval mode and give every part its own mode back, a frozen part included."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
