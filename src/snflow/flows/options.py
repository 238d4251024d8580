"""What a recipe may say about a ready flow: one typed dataclass a flow, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from snflow.flows.freeform.options import FREE_FORM_FLOWS, FreeFormOptions
from snflow.flows.vectors.options import VECTOR_FLOWS, VectorFlowOptions
from snflow.nets.options import Activation
from snflow.selfnorm.options import LearnedInverse

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
