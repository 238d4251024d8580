"""From a checkpoint into a flow, and from a data set to where it is used."""

from __future__ import annotations

import torch
from torch import Tensor

from snflow.distributions import Flow
from snflow.errors import CheckpointError
from snflow.selfnorm import refresh_inverses
from snflow.training.checkpoints.checkpoint import Checkpoint
from snflow.training.engine.ema import MovingAverage


def load_model(flow: Flow, checkpoint: Checkpoint, *, averaged: bool = False) -> None:
    """Put the weights and buffers of a checkpoint into a flow.

    Args:
        flow: the flow, of the recipe that the checkpoint was written by.
        checkpoint: the verified checkpoint.
        averaged: take the moving average of the weights where the run kept one: what was validated.

    Raises:
        CheckpointError: it belongs to another flow.
    """
    try:
        flow.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"checkpoint of step {checkpoint.step}",
            expected="weights of this recipe's flow",
            got=reason[:200],
            fix="use the recipe that the run was made with",
        ) from None
    if averaged and checkpoint.state["average"] is not None:
        average = MovingAverage(flow, 0.5)
        average.load_state_dict(checkpoint.state["average"])
        average.install()
        refresh_inverses(flow)


def near(data: Tensor, device: torch.device) -> Tensor:
    """The rows in the memory of a CUDA device, if they take less than half of what is free there; else as they are.

    Batches are then gathered where they are used: nothing is copied in a step.
    """
    if device.type != "cuda":
        return data
    free, _ = torch.cuda.mem_get_info(device)
    return data.to(device) if 2 * data.numel() * data.element_size() < free else data
