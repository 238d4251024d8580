"""x"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from snflow.nets.mlp import Activation, LipschitzActivation
from snflow.selfnorm.options import LearnedInverse

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


@dataclass(frozen=True)
class ResidualOptions:
    """Residual flow: z = x + g(x) with networks that contract, on vectors or images."""

    layers: int = 10
    """Residual layers, of each scale for images."""
    scales: int = 2
    """Image sizes, a squeeze between each two; vectors have one."""
    width: int = 64
    """Features, or channels, inside of each network."""
    depth: int = 2
    """Hidden layers of it."""
    lipschitz: float = 0.97
    """Bound on the Lipschitz constant of each network, below one."""
    activation: LipschitzActivation = "lipswish"
    """What stands between its layers: lipswish or clipswish."""
    log_det: Literal["auto", "unbiased", "truncated", "exact"] = "auto"
    """How log-determinants are found in training; auto is exact up to three features and unbiased above."""
    terms: int = 2
    """Terms of the truncated series, or those that the unbiased one always has."""
    exact_dimensions: int = 256
    """The most elements of an event for which evaluation takes the full Jacobian."""
    act_norm: bool = True
    """Whether a scale and a shift, set by the first batch, stand before each layer."""
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal"
    """The density of the latent."""
    logit_alpha: float = 1e-6
    """Margin α of the logit that opens the range of integer data: logit(α + (1 − 2α) x)."""


@dataclass(frozen=True)
class DenseNetOptions:
    """i-DenseNet: residual flow whose networks keep what they found and add to it."""

    layers: int = 10
    """Residual layers, of each scale for images."""
    scales: int = 2
    """Image sizes, a squeeze between each two; vectors have one."""
    growth: int = 32
    """Features, or channels, that each layer of a network adds."""
    depth: int = 3
    """Such layers of a network."""
    lipschitz: float = 0.97
    """Bound on the Lipschitz constant of each network, below one."""
    activation: LipschitzActivation = "clipswish"
    """What stands between its layers: clipswish or lipswish."""
    log_det: Literal["auto", "unbiased", "truncated", "exact"] = "auto"
    """How log-determinants are found in training; auto is exact up to three features and unbiased above."""
    terms: int = 2
    """Terms of the truncated series, or those that the unbiased one always has."""
    exact_dimensions: int = 256
    """The most elements of an event for which evaluation takes the full Jacobian."""
    act_norm: bool = True
    """Whether a scale and a shift, set by the first batch, stand before each layer."""
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal"
    """The density of the latent."""
    logit_alpha: float = 1e-6
    """Margin α of the logit that opens the range of integer data: logit(α + (1 − 2α) x)."""


@dataclass(frozen=True)
class FFJORDOptions:
    """FFJORD: a differential equation whose velocity is any network, on vectors or images."""

    layers: int = 1
    """Equations, one behind the other, of each scale for images."""
    scales: int = 2
    """Image sizes, a squeeze between each two; vectors have one."""
    width: int = 64
    """Features, or channels, inside of each velocity."""
    depth: int = 3
    """Hidden layers of it."""
    activation: Activation = "tanh"
    """What stands between them, smooth: tanh, silu or elu."""
    trace: Literal["auto", "exact", "hutchinson"] = "auto"
    """How the trace is found in training; auto is exact up to three features and an estimate above."""
    solver: Literal["dopri5", "dopri8", "bosh3", "adaptive_heun", "rk4", "midpoint", "euler"] = "dopri5"
    """Four that choose their steps, three with fixed ones."""
    tolerance: float = 1e-5
    """Relative and absolute error of the first four, for each sample."""
    steps: int = 20
    """Steps of the other three."""
    adjoint: bool = True
    """Whether gradients come from the equation solved backwards, in constant memory."""
    kinetic_weight: float = 0.0
    """Weight of ∫‖v‖² in training: straight paths."""
    jacobian_weight: float = 0.0
    """Weight of ∫‖∂v/∂x‖² in training: few steps."""
    exact_dimensions: int = 64
    """The most elements of an event for which evaluation takes the exact trace."""
    act_norm: bool = False
    """Whether a scale and a shift, set by the first batch, stand before each equation."""
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal"
    """The density of the latent."""
    logit_alpha: float = 1e-6
    """Margin α of the logit that opens the range of integer data: logit(α + (1 − 2α) x)."""


@dataclass(frozen=True)
class MintNetOptions:
    """MintNet: masked convolutions with a triangular Jacobian, on images or vectors."""

    layers: int = 6
    """Masked layers, their order reversed each time, of each scale for images."""
    scales: int = 2
    """Image sizes, a squeeze between each two; vectors have one."""
    groups: int = 16
    """Copies of the channels inside of each layer."""
    kernel_size: int = 3
    """Side of the kernels, odd."""
    act_norm: bool = True
    """Whether a scale and a shift, set by the first batch, stand before each layer."""
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal"
    """The density of the latent."""
    logit_alpha: float = 1e-6
    """Margin α of the logit that opens the range of integer data: logit(α + (1 − 2α) x)."""


@dataclass(frozen=True)
class GaussianizationOptions:
    """Iterative Gaussianization: each feature is made normal, then all are rotated, without a gradient."""

    layers: int = 10
    """How often."""
    bins: int = 32
    """Pieces of each feature's monotone map."""
    rotation: Literal["random", "pca"] = "random"
    """The rotation behind: a random one, or the principal axes of what comes."""
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal"
    """The density of the latent."""
    logit_alpha: float = 1e-6
    """Margin α of the logit that opens the range of integer data: logit(α + (1 − 2α) x)."""


FreeFormOptions = ResidualOptions | DenseNetOptions | FFJORDOptions | MintNetOptions | GaussianizationOptions

FREE_FORM_FLOWS: dict[str, type[FreeFormOptions]] = {
    "residual": ResidualOptions,
    "densenet": DenseNetOptions,
    "ffjord": FFJORDOptions,
    "mintnet": MintNetOptions,
    "gaussianization": GaussianizationOptions,
}
"""The registered flows of this folder."""


MixingName = Literal["free", "plu", "emerging", "exponential", "periodic", "woodbury"]
"""The linear layer of an image flow: free k×k, or one of the restricted ones."""


@dataclass(frozen=True)
class DenseOptions(LearnedInverse):
    """Free square matrices with an activation between them, on vectors or flattened images."""

    layers: int = 2
    """Number of dense layers; an activation stands between each two."""
    activation: Literal["smooth_leaky_relu", "leaky_relu", "spline"] = "smooth_leaky_relu"
    """The element-wise function between two layers."""
    alpha: float = 0.3
    """Slope of the leaky activations for very negative inputs."""
    log_det_rule: Literal["self_normalized", "exact", "relative"] = "self_normalized"
    """How the gradient of each log-determinant is made: by a learned inverse, exactly, or relative to the weight."""
    initialization: Literal["identity", "orthogonal"] = "identity"
    """First forward weights: the identity plus small noise, or a random rotation."""
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal"
    """The density of the latent."""
    logit_alpha: float = 1e-6
    """Margin α of the logit that opens the range of integer data: logit(α + (1 − 2α) x)."""


@dataclass(frozen=True)
class ConvOptions(LearnedInverse):
    """Blocks of free convolutions with activations, a squeeze between two blocks, on images."""

    blocks: int = 3
    """Number of blocks; a squeeze, which halves both image sides, stands between each two."""
    layers_per_block: int = 3
    """Number of convolutions in each block; each but the last of all is followed by an activation."""
    mixing: MixingName = "free"
    """The linear layers: free convolutions, or ones that are restricted so that their determinant is cheap."""
    kernel_size: int = 3
    """Side of the kernels, odd."""
    inverse_kernel_size: int | None = None
    """Side of the learned inverse kernels, odd, at least kernel_size; null makes it that."""
    activation: Literal["spline", "smooth_leaky_relu", "leaky_relu"] = "spline"
    """The element-wise function after each convolution."""
    bins: int = 5
    """Bins of the spline activation, which has parameters of its own for each pixel."""
    tail_bound: float = 10.0
    """Half-width B of the spline's box; outside [−B, B] it is the identity."""
    alpha: float = 0.3
    """Slope of the leaky activations for very negative inputs."""
    log_det_rule: Literal["self_normalized", "exact", "exact_by_rows"] = "self_normalized"
    """For free convolutions, how each log-determinant's gradient is made: by a learned inverse, or exactly, from the
    whole matrix or by rows of the image."""
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal"
    """The density of the latent."""
    logit_alpha: float = 1e-6
    """Margin α of the logit that opens the range of integer data: logit(α + (1 − 2α) x)."""


@dataclass(frozen=True)
class GlowOptions(LearnedInverse):
    """Levels of steps of act-norm, mixing convolution and affine coupling, on images."""

    levels: int = 2
    """L: levels of scale; each begins with a squeeze, and half of the channels leaves the flow between two."""
    steps: int = 16
    """K: steps in each level."""
    width: int = 512
    """Channels inside of the couplings' networks."""
    mixing: MixingName = "free"
    """The convolution of each step: free, or one that is restricted so that its determinant is cheap."""
    kernel_size: int = 1
    """Its side, odd."""
    inverse_kernel_size: int | None = None
    """Side of the learned inverse kernels, odd, at least kernel_size; null makes it that."""
    log_det_rule: Literal["self_normalized", "exact", "exact_by_rows"] = "self_normalized"
    """For free convolutions, how each log-determinant's gradient is made: by a learned inverse, or exactly, from the
    whole matrix or by rows of the image."""
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal"
    """The density of the latent."""
    logit_alpha: float = 1e-6
    """Margin α of the logit that opens the range of integer data: logit(α + (1 − 2α) x)."""


@dataclass(frozen=True)
class PairOptions:
    """Free residual networks, each with a network beside it that learns its inverse."""

    layers: int = 1
    """Number of pairs, one behind the other."""
    width: int = 256
    """Features inside of each network."""
    blocks: int = 3
    """Residual blocks of each network."""
    penalty_weight: float = 10.0
    """Weight λ of the reconstruction penalty ‖g(f(x)) − x‖²."""
    jacobian_penalty: float = 1.0
    """Weight of the penalty ‖J_g J_f ν − ν‖²."""
    penalty_spread: float = 0.7
    """Deviation of the noise around the data where the penalty holds too, so that the map stays one-to-one there."""
    probe: Literal["rademacher", "gaussian", "orthogonal"] = "orthogonal"
    """The kind of the random vectors ν."""
    probes: int = 1
    """How many of them for each row."""
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal"
    """The density of the latent."""
    logit_alpha: float = 1e-6
    """Margin α of the logit that opens the range of integer data: logit(α + (1 − 2α) x)."""


@dataclass(frozen=True)
class RealNVPOptions:
    """Real NVP: affine couplings, on vectors by alternating features, on images by checkerboards and channels."""

    layers: int = 6
    """Couplings on vectors; on images a level has three by checkerboard and three by channel, the last four."""
    levels: int = 2
    """Levels of scale, of images alone; half of the channels leaves the flow between two."""
    width: int = 64
    """Features or channels inside of each network."""
    depth: int = 2
    """Hidden layers of each network, or its residual blocks on images."""
    activation: Activation = "relu"
    """What stands between the layers on vectors: relu, silu, elu or tanh."""
    batch_norm: bool = True
    """Whether an invertible batch normalization follows each coupling."""
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal"
    """The density of the latent."""
    logit_alpha: float = 0.05
    """Margin α of the logit that opens the range of integer data: logit(α + (1 − 2α) x)."""


@dataclass(frozen=True)
class FlowPPOptions:
    """Flow++: couplings by mixtures of logistics with attention, on images, dequantized by a flow."""

    first: int = 4
    """Couplings by checkerboard before the squeeze."""
    channel: int = 2
    """Couplings by channel behind it."""
    last: int = 3
    """Couplings by checkerboard behind those."""
    width: int = 96
    """Channels inside of each network, a multiple of 4."""
    blocks: int = 10
    """Blocks of gated convolution and attention of each network."""
    components: int = 32
    """Logistics in each mixture."""
    dequantization: Literal["variational", "uniform"] = "variational"
    """The noise that is added to integer data: a flow that sees the image, or uniform."""
    dequantization_couplings: int = 4
    """Couplings of the dequantizing flow."""
    dequantization_blocks: int = 2
    """Blocks of each of its networks."""
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal"
    """The density of the latent."""
    logit_alpha: float = 1e-6
    """Margin α of the logit that opens the range of integer data: logit(α + (1 − 2α) x)."""


FlowOptions = (
    DenseOptions
    | ConvOptions
    | GlowOptions
    | PairOptions
    | RealNVPOptions
    | FlowPPOptions
    | VectorFlowOptions
    | FreeFormOptions
)

FLOWS: dict[str, type[FlowOptions]] = {
    "dense": DenseOptions,
    "conv": ConvOptions,
    "glow": GlowOptions,
    "pair": PairOptions,
    "realnvp": RealNVPOptions,
    "flowpp": FlowPPOptions,
    **VECTOR_FLOWS,
    **FREE_FORM_FLOWS,
}
"""The registered flows: the word after ``flow: {name: …}`` in a recipe, and its options."""
