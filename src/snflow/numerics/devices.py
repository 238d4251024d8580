"""Where the tensors that determine the structure of a layer are made."""

from __future__ import annotations

import torch


def structure_device() -> torch.device:
    """The default device, or the CPU under ``torch.device("meta")``: the device of masks and orders.

    A constructor reads their values, and no state dict may contain them.

    Example:
        >>> with torch.device("meta"):
        ...     structure_device()
        device(type='cpu')
    """
    device = torch.empty(0).device
    return torch.device("cpu") if device.type == "meta" else device
