"""Ready architectures, one function each, and ``flows.build`` for recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snflow.lazy import lazily

if TYPE_CHECKING:
    from snflow.flows.building import build as build
    from snflow.flows.conv_flow import conv as conv
    from snflow.flows.dense_flow import dense as dense
    from snflow.flows.glow_flow import glow as glow
    from snflow.flows.pair_flow import pair as pair

__all__ = ["build", "conv", "dense", "glow", "pair"]

# The options of this package are read by the command line's --help, which must not wait for torch.
__getattr__ = lazily(
    __name__,
    {
        "build": "snflow.flows.building",
        "conv": "snflow.flows.conv_flow",
        "dense": "snflow.flows.dense_flow",
        "glow": "snflow.flows.glow_flow",
        "pair": "snflow.flows.pair_flow",
    },
)
