"""MintNet."""

from __future__ import annotations

from typing import Any

from snflow.bijections.base import Bijection, Shape
from snflow.bijections.convolution.masked_residual import MaskedResidualConv2d
from snflow.bijections.inverse import Inverse
from snflow.bijections.reshaping import Flatten
from snflow.distributions.flow import Flow
from snflow.flows._composition import multiscale, ready_flow


@ready_flow(like=multiscale)
def mintnet(
    event_shape: int | Shape,
    *,
    context_shape: int | Shape | None = None,
    layers: int = 6,
    groups: int = 16,
    kernel_size: int = 3,
    **options: Any,
) -> Flow:
    """z = t ⊙ x + m(x), m a masked network, so that the Jacobian is triangular: exact, cheap densities.

    The order of the elements alternates between layers. A sample takes a fixed-point iteration per layer.

    Args:
        layers: Number of masked layers per scale.
        groups: Number of copies of the channels in each hidden layer.
        kernel_size: Side of the kernels on images, odd.

    Returns:
        A flow on vectors or images with a standard normal base; ``log_prob`` is in nats.

    Raises:
        ConfigError: an option is unknown or out of its range.
        ShapeError: events that are neither vectors nor images, or sides that cannot be halved ``scales − 1`` times.

    References:
        Song, Meng, Ermon (2019), MintNet: building invertible neural networks with masked convolutions.

    Example:
        >>> import torch, snflow
        >>> snflow.flows.mintnet((1, 4, 4), layers=2, groups=2).log_prob(torch.randn(3, 1, 4, 4)).shape
        torch.Size([3])
    """

    def layer(number: int, shape: Shape) -> list[Bijection]:
        masked = MaskedResidualConv2d(
            shape[0],
            groups=groups,
            kernel_size=kernel_size if len(shape) == 3 else 1,
            reverse=number % 2 == 1,
            context_shape=context_shape,
        )
        if len(shape) == 3:
            return [masked]
        pixel = (shape[0], 1, 1)  # a vector is an image of one pixel
        return [Inverse(Flatten(pixel)), masked, Flatten(pixel)]

    return multiscale("flows.mintnet", event_shape, layer, layers=layers, **options)
