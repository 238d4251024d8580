"""Ready architectures, one function each, and ``flows.build`` for recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snflow.lazy import lazily

if TYPE_CHECKING:
    from snflow.flows.building import build as build
    from snflow.flows.conv_flow import conv as conv
    from snflow.flows.dense_flow import dense as dense
    from snflow.flows.flowpp_flow import flowpp as flowpp
    from snflow.flows.freeform.continuous import ffjord as ffjord
    from snflow.flows.freeform.gaussianization import gaussianization as gaussianization
    from snflow.flows.freeform.mintnet import mintnet as mintnet
    from snflow.flows.freeform.residual import densenet as densenet
    from snflow.flows.freeform.residual import residual as residual
    from snflow.flows.glow_flow import glow as glow
    from snflow.flows.pair_flow import pair as pair
    from snflow.flows.realnvp_flow import realnvp as realnvp
    from snflow.flows.vectors.autoregressive import iaf as iaf
    from snflow.flows.vectors.autoregressive import maf as maf
    from snflow.flows.vectors.coupling import nice as nice
    from snflow.flows.vectors.monotone import bnaf as bnaf
    from snflow.flows.vectors.monotone import naf as naf
    from snflow.flows.vectors.monotone import sos as sos
    from snflow.flows.vectors.monotone import umnn as umnn
    from snflow.flows.vectors.residual import planar as planar
    from snflow.flows.vectors.residual import radial as radial
    from snflow.flows.vectors.residual import sylvester as sylvester
    from snflow.flows.vectors.spline import circular_spline as circular_spline
    from snflow.flows.vectors.spline import neural_spline as neural_spline

__all__ = [
    "bnaf",
    "build",
    "circular_spline",
    "conv",
    "dense",
    "densenet",
    "ffjord",
    "flowpp",
    "gaussianization",
    "glow",
    "iaf",
    "maf",
    "mintnet",
    "naf",
    "neural_spline",
    "nice",
    "pair",
    "planar",
    "radial",
    "realnvp",
    "residual",
    "sos",
    "sylvester",
    "umnn",
]

# The options of this package are read by the command line's --help, which must not wait for torch.
__getattr__ = lazily(
    __name__,
    {
        "bnaf": "snflow.flows.vectors.monotone",
        "build": "snflow.flows.building",
        "circular_spline": "snflow.flows.vectors.spline",
        "conv": "snflow.flows.conv_flow",
        "dense": "snflow.flows.dense_flow",
        "densenet": "snflow.flows.freeform.residual",
        "flowpp": "snflow.flows.flowpp_flow",
        "glow": "snflow.flows.glow_flow",
        "iaf": "snflow.flows.vectors.autoregressive",
        "maf": "snflow.flows.vectors.autoregressive",
        "naf": "snflow.flows.vectors.monotone",
        "neural_spline": "snflow.flows.vectors.spline",
        "nice": "snflow.flows.vectors.coupling",
        "pair": "snflow.flows.pair_flow",
        "planar": "snflow.flows.vectors.residual",
        "radial": "snflow.flows.vectors.residual",
        "realnvp": "snflow.flows.realnvp_flow",
        "residual": "snflow.flows.freeform.residual",
        "ffjord": "snflow.flows.freeform.continuous",
        "gaussianization": "snflow.flows.freeform.gaussianization",
        "mintnet": "snflow.flows.freeform.mintnet",
        "sos": "snflow.flows.vectors.monotone",
        "sylvester": "snflow.flows.vectors.residual",
        "umnn": "snflow.flows.vectors.monotone",
    },
)
