"""x"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from snflow.bijections.base import Bijection
from snflow.bijections.elementwise import Affine
from snflow.data.dataset import Dataset
from snflow.distributions.flow import Flow
from snflow.flows import options as freeform
from snflow.flows import options as vectors
from snflow.flows.autoregressive import bnaf, iaf, maf, naf, sos, umnn
from snflow.flows.coupling import nice, realnvp
from snflow.flows.ffjord import ffjord
from snflow.flows.flowpp import flowpp
from snflow.flows.gaussianization import gaussianization, gaussianize
from snflow.flows.glow import glow
from snflow.flows.mintnet import mintnet
from snflow.flows.neural_spline import neural_spline
from snflow.flows.options import (
    ConvOptions,
    DenseOptions,
    FlowOptions,
    FlowPPOptions,
    GlowOptions,
    PairOptions,
    RealNVPOptions,
)
from snflow.flows.residual import densenet, residual
from snflow.flows.self_normalizing import conv, dense, pair
from snflow.flows.sylvester import planar, radial, sylvester

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
