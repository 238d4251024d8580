"""What a recipe may say about residual, continuous and other free flows, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from snflow.nets.options import Activation, LipschitzActivation


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
