"""From a recipe's options and a dataset to a flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from snflow.bijections import Affine, Bijection
from snflow.data import Dataset
from snflow.distributions import Flow
from snflow.flows.conv_flow import conv
from snflow.flows.dense_flow import dense
from snflow.flows.flowpp_flow import flowpp
from snflow.flows.freeform import options as freeform
from snflow.flows.freeform.continuous import ffjord
from snflow.flows.freeform.gaussianization import gaussianization, gaussianize
from snflow.flows.freeform.mintnet import mintnet
from snflow.flows.freeform.residual import densenet, residual
from snflow.flows.glow_flow import glow
from snflow.flows.options import (
    ConvOptions,
    DenseOptions,
    FlowOptions,
    FlowPPOptions,
    GlowOptions,
    PairOptions,
    RealNVPOptions,
)
from snflow.flows.pair_flow import pair
from snflow.flows.realnvp_flow import realnvp
from snflow.flows.vectors import options as vectors
from snflow.flows.vectors.autoregressive import iaf, maf
from snflow.flows.vectors.coupling import nice
from snflow.flows.vectors.monotone import bnaf, naf, sos, umnn
from snflow.flows.vectors.residual import planar, radial, sylvester
from snflow.flows.vectors.spline import neural_spline

_FUNCTIONS: dict[type[FlowOptions], Callable[..., Flow]] = {
    DenseOptions: dense,
    ConvOptions: conv,
    GlowOptions: glow,
    PairOptions: pair,
    RealNVPOptions: realnvp,
    FlowPPOptions: flowpp,
    vectors.MAFOptions: maf,
    vectors.IAFOptions: iaf,
    vectors.NAFOptions: naf,
    vectors.BNAFOptions: bnaf,
    vectors.UMNNOptions: umnn,
    vectors.SOSOptions: sos,
    vectors.NeuralSplineOptions: neural_spline,
    vectors.NICEOptions: nice,
    vectors.PlanarOptions: planar,
    vectors.RadialOptions: radial,
    vectors.SylvesterOptions: sylvester,
    freeform.ResidualOptions: residual,
    freeform.DenseNetOptions: densenet,
    freeform.FFJORDOptions: ffjord,
    freeform.MintNetOptions: mintnet,
    freeform.GaussianizationOptions: gaussianization,
}


def build(options: FlowOptions, dataset: Dataset) -> Flow:
    """Make the flow that the options describe for the events of a dataset.

    Integer data are dequantized, scaled and opened by a logit; continuous data are standardised by the mean and the
    deviation of their training part, in a layer of the flow, so that likelihoods stay those of the raw data.

    Args:
        options: one of the dataclasses in ``snflow.flows.options``.
        dataset: what the flow is for.

    Returns:
        The flow; ``log_prob`` is in nats.

    Raises:
        ConfigError, ShapeError: the options do not fit the data.
    """
    fixed: list[Bijection] = [Affine.standardizing(dataset.train)] if dataset.levels is None else []
    flow = _FUNCTIONS[type(options)](
        dataset.event_shape, quantized=dataset.levels, preprocessing=fixed, **asdict(options)
    )
    return gaussianize(flow, dataset.train) if isinstance(options, freeform.GaussianizationOptions) else flow
