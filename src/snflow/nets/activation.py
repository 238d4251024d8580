"""What stands between the layers of a network."""

from __future__ import annotations

from torch import nn

from snflow.arguments import check_choice
from snflow.nets.options import Activation

_MODULES: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "elu": nn.ELU, "tanh": nn.Tanh}


def activation_module(where: str, name: Activation) -> nn.Module:
    """Make the activation of this name.

    Args:
        where: the caller, for the error.
        name: one of ``Activation``.

    Raises:
        ConfigError: there is none of that name.

    Example:
        >>> activation_module("MLP", "silu")
        SiLU()
    """
    check_choice(where, "activation", name, Activation)
    return _MODULES[name]()
