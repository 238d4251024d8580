"""MintNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.convolution.masked_residual import MaskedResidualConv2d
from snflow.bijections.inverse import Inverse
from snflow.bijections.reshaping import Flatten
from snflow.distributions.flow import Flow
from snflow.flows.composition import stacked


def mintnet(
    features: int | Shape,
    *,
    context_features: int = 0,
    quantized: int | None = None,
    preprocessing: Sequence[Bijection] = (),
    layers: int = 6,
    scales: int = 2,
    groups: int = 16,
    kernel_size: int = 3,
    act_norm: bool = True,
    base: Literal["normal", "diagonal_normal", "logistic"] = "normal",
    logit_alpha: float = 1e-6,
) -> Flow:
    """z = t ⊙ x + masked network of x with a triangular Jacobian, the order reversed each time: exact, cheap densities.

    Args:
        features: D of vectors, or ``(channels, height, width)`` of images.
        context_features: size of a context that every layer sees; 0 for none.
        quantized: the number of values of integer data, which are dequantized; ``None`` for continuous data.
        preprocessing: fixed layers before the first trained one.
        layers: number of masked layers, at each scale of images.
        scales: of images, a squeeze between each two.
        groups: copies of the channels inside of each layer.
        kernel_size: side of the kernels, odd.
        act_norm: whether a scale and a shift, set by the first batch, stand before each layer.
        base: the density of the latent.
        logit_alpha: margin of the logit for integer data.

    Returns:
        A flow on vectors or images; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is out of its range.
        ShapeError: events that are neither vectors nor images, or sides that do not halve often enough.

    References:
        Song, Meng, Ermon (2019), MintNet: building invertible neural networks with masked convolutions.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.mintnet((1, 4, 4), layers=2, groups=2).log_prob(torch.randn(3, 1, 4, 4)).shape
        torch.Size([3])
    """

    def layer(number: int, shape: Shape) -> list[Bijection]:
        size = kernel_size if len(shape) == 3 else 1
        masked = MaskedResidualConv2d(shape[0], groups, size, number % 2 == 1, context_features)
        if len(shape) == 3:
            return [masked]
        pixel = (shape[0], 1, 1)  # a vector is an image of one pixel
        return [Inverse(Flatten(pixel)), masked, Flatten(pixel)]

    return stacked(
        "flows.mintnet",
        features,
        layer,
        layers=layers,
        scales=scales,
        act_norm=act_norm,
        quantized=quantized,
        preprocessing=preprocessing,
        base=base,
        logit_alpha=logit_alpha,
    )
