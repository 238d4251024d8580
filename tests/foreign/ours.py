"""The ready flows of this library in small sizes, away from their first values, for the properties of other suites."""

import inspect

import torch

from snflow import flows
from snflow.errors import ShapeError
from snflow.flows.gaussianization import gaussianize

READY = flows.ready_flows()

_SIZES = {
    "layers": 2,
    "scales": 1,
    "width": 8,
    "depth": 1,
    "bins": 5,
    "integrand_width": 8,
    "first_layers": 1,
    "channel_layers": 1,
    "last_layers": 1,
    "growth": 3,
    "batch_norm": False,
}


def flow(name, shape, context_shape=None, *, noise=0.1):
    """A small flow whose parameters are moved by normal noise, in the default dtype and ``eval()``."""
    accepted = inspect.signature(READY[name]).parameters
    options = {key: value for key, value in _SIZES.items() if key in accepted}
    if context_shape is not None:
        options["context_shape"] = context_shape
    built = READY[name](shape, **options)
    if name == "gaussianization":
        return gaussianize(built, torch.randn(500, *built.event_shape)).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return built.eval()


def _takes(name, shape):
    try:
        READY[name](shape)
    except ShapeError:
        return False
    return True


VECTORS = sorted(name for name in READY if _takes(name, 4) and name != "circular_spline")
"""Flows on real vectors."""

CONDITIONAL = [name for name in VECTORS if "context_shape" in inspect.signature(READY[name]).parameters]
"""Those that take a context."""

IMAGES = ["conv", "flowpp", "glow", "mintnet", "realnvp", "residual"]
"""Flows with layers of their own for images."""

CONTINUOUS = {"ffjord"}
"""Flows whose two directions agree only to the tolerance of a solver."""


def tolerance(name):
    """Largest absolute difference of two directions in float64."""
    return 1e-5 if name in CONTINUOUS else 1e-8
