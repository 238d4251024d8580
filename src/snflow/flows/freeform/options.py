"""What a recipe may say about residual, continuous and other free flows, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from snflow.nets.options import LipschitzActivation


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


FreeFormOptions = ResidualOptions | DenseNetOptions

FREE_FORM_FLOWS: dict[str, type[FreeFormOptions]] = {
    "residual": ResidualOptions,
    "densenet": DenseNetOptions,
}
"""The registered flows of this folder."""
