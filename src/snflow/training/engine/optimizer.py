"""Adam as the options say, the same one wherever a flow is trained or its step is timed."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from snflow.training.config.options import OptimizerOptions


def adam(
    parameters: Iterable[nn.Parameter], options: OptimizerOptions, device: torch.device, *, recorded: bool = False
) -> torch.optim.Adam:
    """θ ← θ − η m̂ / (√v̂ + ε), one fused kernel where the device has it.

    Args:
        parameters: θ, of any shapes.
        options: η, the decays of m and v, ε and the weight decay.
        device: that of the parameters.
        recorded: whether its step is recorded as a CUDA graph.

    References:
        Kingma & Ba (2015), Adam, algorithm 1.

    Example:
        >>> weight = nn.Parameter(torch.zeros(3))
        >>> adam([weight], OptimizerOptions(learning_rate=0.5), weight.device).defaults["lr"]
        0.5
    """
    return torch.optim.Adam(
        parameters,
        lr=options.learning_rate,
        betas=options.betas,
        eps=options.eps,
        weight_decay=options.weight_decay,
        fused=device.type in ("cpu", "cuda"),
        capturable=recorded and device.type == "cuda",
    )
