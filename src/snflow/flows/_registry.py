"""The ready flows by name, derived from what the package exports."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import snflow.flows
from snflow.distributions.flow import Flow


def ready_flows() -> dict[str, Callable[..., Flow]]:
    """Return the ready flows by name: each exported function of an ``event_shape`` that returns a :class:`Flow`.

    The names are those of ``flows/__init__.pyi``; a new flow is listed there and nowhere else.

    Example:
        >>> from snflow.flows import ready_flows
        >>> flows = ready_flows()
        >>> flows["maf"](3).event_shape
        (3,)
    """
    exported = {name: getattr(snflow.flows, name) for name in dir(snflow.flows)}
    return {name: function for name, function in exported.items() if _is_ready_flow(function)}


def _is_ready_flow(function: object) -> bool:
    if not inspect.isfunction(function):
        return False
    signature = inspect.signature(function)
    return signature.return_annotation in ("Flow", Flow) and next(iter(signature.parameters), None) == "event_shape"
