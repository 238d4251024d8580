"""Exact likelihoods as runs report them: the same noise whenever they are asked, training's generators untouched."""

from __future__ import annotations

import torch
from torch import Tensor

from snflow.distributions import Flow, mean_nll
from snflow.training.checkpoints import generators


def exact_nll(flow: Flow, data: Tensor, batch_size: int, seed: int) -> float:
    """−1/N Σ log p(x): exact, in nats, the dequantization noise a function of ``seed`` alone.

    Args:
        flow: the flow; its mode and every random number generator are as before afterwards.
        data: all rows, with shape ``(N, *event)``; floating data are converted to the dtype of the flow.
        batch_size: rows at a time.
        seed: seed of the noise.

    Returns:
        Nats a sample.

    Example:
        >>> from snflow.bijections import Chain
        >>> from snflow.distributions import StandardNormal
        >>> flow = Flow(Chain([]), StandardNormal((2,)))
        >>> round(exact_nll(flow, torch.zeros(3, 2), 2, 0), 4)
        1.8379
    """
    generator = torch.Generator(flow.base.device).manual_seed(seed)
    with generators.preserved():
        return mean_nll(flow, in_dtype_of(flow, data), batch_size, generator)


def in_dtype_of(flow: Flow, data: Tensor) -> Tensor:
    """Floating data in the flow's dtype; levels as they are."""
    return data.to(flow.base.dtype) if data.is_floating_point() else data
