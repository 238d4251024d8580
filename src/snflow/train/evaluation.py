"""Exact likelihoods of a dataset, and loading of weights from a checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor

from snflow.distributions.flow import Flow, log_prob_of_rows, mean_nll_with_error
from snflow.errors import CheckpointError
from snflow.selfnorm.diagnostics import refresh_inverses
from snflow.train import generators
from snflow.train.checkpoints import Checkpoint
from snflow.train.optimizer import MovingAverage


def exact_nll(flow: Flow, data: Tensor, batch_size: int, seed: int, context: Tensor | None = None) -> float:
    """−1/N Σ log p(x): the mean of :func:`estimated_nll`, exact if the flow's log-determinants are.

    Example:
        >>> import snflow
        >>> flow = snflow.Flow(snflow.Chain([]), snflow.StandardNormal(2))
        >>> round(exact_nll(flow, torch.zeros(3, 2), 2, 0), 4)
        1.8379
    """
    return estimated_nll(flow, data, batch_size, seed, context)[0]


def estimated_nll(
    flow: Flow, data: Tensor, batch_size: int, seed: int, context: Tensor | None = None
) -> tuple[float, float | None]:
    """−1/N Σ log p(x) and, if its log-determinants are estimates, the standard error.

    Args:
        flow: the flow; its mode and all random generators are restored afterwards.
        data: all rows, with shape ``(N, *event)``; floating data are converted to the dtype of the flow.
        batch_size: rows evaluated at a time.
        seed: seed of the dequantization noise and of the random vectors of estimates, the only randomness.
        context: the contexts of the rows, with shape ``(N, *context_shape)``.

    Returns:
        The mean NLL and its standard error over rows and random vectors, in nats; ``None`` for an exact NLL.

    Example:
        >>> import snflow
        >>> flow = snflow.Flow(snflow.Chain([]), snflow.StandardNormal(2))
        >>> estimated_nll(flow, torch.zeros(3, 2), 2, 0)[1] is None
        True
    """
    generator = torch.Generator(flow.base.device).manual_seed(seed)
    with generators.preserved():
        torch.manual_seed(seed)
        rows, given = in_dtype_of(flow, data), None if context is None else in_dtype_of(flow, context)
        nll, error = mean_nll_with_error(flow, rows, given, batch_size=batch_size, generator=generator)
    return nll, None if flow.bijection.log_det_kind == "exact" else error


def log_densities(flow: Flow, data: Tensor, batch_size: int, seed: int, context: Tensor | None = None) -> Tensor:
    """log p(x) of each row, with the arguments of :func:`estimated_nll`: ``(N,)``, nats, in float64 on the CPU."""
    generator = torch.Generator(flow.base.device).manual_seed(seed)
    with generators.preserved():
        torch.manual_seed(seed)
        rows, given = in_dtype_of(flow, data), None if context is None else in_dtype_of(flow, context)
        return log_prob_of_rows("log_densities", flow, rows, given, batch_size, generator)


def in_dtype_of(flow: Flow, data: Tensor) -> Tensor:
    """Convert floating-point data to the flow's dtype; leave integers unchanged."""
    return data.to(flow.base.dtype) if data.is_floating_point() else data


def load_model(flow: Flow, checkpoint: Checkpoint, *, averaged: bool = False) -> None:
    """Load the weights and buffers of a checkpoint into a flow.

    Args:
        flow: a flow built from the checkpoint's recipe.
        checkpoint: the verified checkpoint.
        averaged: load the moving average of the weights, which was validated, if the run kept one.

    Raises:
        CheckpointError: it is from a different flow.
    """
    try:
        flow.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"checkpoint of step {checkpoint.step}",
            expected="the weights of this recipe's flow",
            got=reason[:200],
            fix="use the recipe of that run",
        ) from None
    if averaged and checkpoint.state["average"] is not None:
        average = MovingAverage(flow, 0.5)
        average.load_state_dict(checkpoint.state["average"])
        average.install()
        refresh_inverses(flow)


def near(data: Tensor, device: torch.device) -> Tensor:
    """Move the rows to a CUDA device if they take less than half of its free memory; else return them unchanged.

    Batches are then formed on the device, without a copy in each step.
    """
    if device.type != "cuda":
        return data
    free, _ = torch.cuda.mem_get_info(device)
    return data.to(device) if 2 * data.numel() * data.element_size() < free else data
