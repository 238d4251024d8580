"""What a recipe may say about a flow on vectors: one typed dataclass a flow, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from snflow.nets.options import Activation

VectorMixing = Literal["reverse", "random", "lu", "none"]
"""What stands between two layers: the features reversed, shuffled, mixed by a matrix in its LU form, or nothing."""

SylvesterBasis = Literal["householder", "orthogonal", "triangular"]
"""How the directions of a Sylvester layer are kept orthogonal."""

SplineName = Literal["rational_quadratic", "cubic", "quadratic", "linear"]
"""The pieces of a spline."""


@dataclass(frozen=True)
class VectorOptions:
    """What every flow on vectors has."""

    layers: int = 5
    """Number of trained layers, without what mixes the features between them."""
    mixing: VectorMixing = "reverse"
    """What stands between two layers: reverse, random, lu or none."""
    width: int = 64
    """Features inside of each network."""
    depth: int = 2
    """Hidden layers of each network."""
    residual: bool = False
    """Whether the hidden layers of a network add up."""
    activation: Activation = "relu"
    """What stands between them: relu, which fits edges soonest, or the smooth silu, elu or tanh."""
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal"
    """The density of the latent."""
    logit_alpha: float = 1e-6
    """Margin α of the logit that opens the range of integer data: logit(α + (1 − 2α) x)."""


@dataclass(frozen=True)
class MAFOptions(VectorOptions):
    """Masked autoregressive flow: affine, densities in one pass, samples feature by feature."""

    batch_norm: bool = False
    """Whether an invertible batch normalization follows each layer."""


@dataclass(frozen=True)
class IAFOptions(VectorOptions):
    """Inverse autoregressive flow: gated, samples in one pass, densities feature by feature."""

    gate_bias: float = 2.0
    """What is added to each gate before its sigmoid, so that layers begin near the identity."""


@dataclass(frozen=True)
class NAFOptions(VectorOptions):
    """Neural autoregressive flow: monotone networks of sigmoids, written by the masked network."""

    units: int = 8
    """Sigmoids in each layer of a monotone network."""
    sigmoidal_layers: int = 2
    """Layers of each monotone network."""


@dataclass(frozen=True)
class BNAFOptions:
    """Block neural autoregressive flow: each layer one monotone network for the whole vector."""

    layers: int = 3
    """Number of layers, without what mixes the features between them."""
    mixing: VectorMixing = "reverse"
    """What stands between two layers: reverse, random, lu or none."""
    block: int = 16
    """Hidden units of each feature in each hidden layer."""
    depth: int = 2
    """Hidden layers of each network."""
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal"
    """The density of the latent."""
    logit_alpha: float = 1e-6
    """Margin α of the logit that opens the range of integer data: logit(α + (1 − 2α) x)."""


@dataclass(frozen=True)
class UMNNOptions(VectorOptions):
    """Unconstrained monotonic network flow: integrals of positive networks."""

    embedding: int = 8
    """How many numbers the masked network tells each integrand."""
    integrand_width: int = 32
    """Features inside of an integrand."""
    nodes: int = 24
    """Nodes of the quadrature rule."""


@dataclass(frozen=True)
class SOSOptions(VectorOptions):
    """Sum-of-squares polynomial flow."""

    polynomials: int = 3
    """Squared polynomials in each sum."""
    degree: int = 3
    """Degree of each of them."""


@dataclass(frozen=True)
class NeuralSplineOptions(VectorOptions):
    """Neural spline flow: splines in couplings or in autoregressive layers."""

    mixing: VectorMixing = "lu"
    """What stands between two layers: reverse, random, lu or none."""
    kind: Literal["coupling", "autoregressive"] = "coupling"
    """Couplings are fast both ways, autoregressive layers say more a layer."""
    spline: SplineName = "rational_quadratic"
    """The pieces of the splines."""
    bins: int = 8
    """Pieces of each spline."""
    tail_bound: float = 5.0
    """Half-width B of the splines' box; outside [−B, B] they are the identity."""


@dataclass(frozen=True)
class NICEOptions(VectorOptions):
    """NICE: additive couplings, a learned scale at the end, a logistic base."""

    layers: int = 4
    """Number of couplings."""
    mixing: VectorMixing = "none"
    """What stands between two couplings, whose halves alternate anyway."""
    base: Literal["normal", "diagonal_normal", "logistic"] = "logistic"
    """The density of the latent."""


@dataclass(frozen=True)
class PlanarOptions:
    """Planar flow: each layer moves space along one direction."""

    layers: int = 16
    """Number of layers."""
    mixing: VectorMixing = "none"
    """What stands between two of them: reverse, random, lu or none."""
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal"
    """The density of the latent."""
    logit_alpha: float = 1e-6
    """Margin α of the logit that opens the range of integer data: logit(α + (1 − 2α) x)."""


@dataclass(frozen=True)
class RadialOptions(PlanarOptions):
    """Radial flow: each layer moves space towards a point or away from it."""


@dataclass(frozen=True)
class SylvesterOptions:
    """Sylvester flow: each layer is several planar ones at once."""

    layers: int = 8
    """Number of layers."""
    units: int | None = None
    """Planar flows in a layer, as many as features at most; null for all."""
    basis: SylvesterBasis = "householder"
    """How their directions are kept orthogonal: householder, orthogonal, or triangular for the features themselves."""
    mixing: VectorMixing = "none"
    """What stands between two of them: reverse, random, lu or none."""
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal"
    """The density of the latent."""
    logit_alpha: float = 1e-6
    """Margin α of the logit that opens the range of integer data: logit(α + (1 − 2α) x)."""


VectorFlowOptions = (
    MAFOptions
    | IAFOptions
    | NAFOptions
    | BNAFOptions
    | UMNNOptions
    | SOSOptions
    | NeuralSplineOptions
    | NICEOptions
    | PlanarOptions
    | RadialOptions
    | SylvesterOptions
)

VECTOR_FLOWS: dict[str, type[VectorFlowOptions]] = {
    "maf": MAFOptions,
    "iaf": IAFOptions,
    "naf": NAFOptions,
    "bnaf": BNAFOptions,
    "umnn": UMNNOptions,
    "sos": SOSOptions,
    "neural_spline": NeuralSplineOptions,
    "nice": NICEOptions,
    "planar": PlanarOptions,
    "radial": RadialOptions,
    "sylvester": SylvesterOptions,
}
"""The registered flows on vectors."""
