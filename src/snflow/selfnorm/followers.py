"""Tracking for compiled or recorded training steps."""

from __future__ import annotations

from torch import nn

from snflow.selfnorm.layers import SelfNormalizingMap


class Followers:
    """Applies the strategies of all self-normalizing layers of a module between training steps instead of within them.

    A compiled forward pass cannot branch on the value of a tensor, and a recorded one repeats the same operations
    regardless of values. Constructing an instance disables tracking in the forward passes of the layers.

    Args:
        module: a flow, a chain or a layer. Tracking starts once every layer has processed data, which determine the
            event shapes.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.SelfNormalizingDense(2, tracking=snflow.Newton())
        >>> _ = layer(torch.randn(3, 2))
        >>> followers = Followers(layer)
        >>> with torch.no_grad():
        ...     _ = layer.weight.mul_(1.5)
        >>> followers.track()
        >>> bool((layer.inverse_matrix @ layer.weight - torch.eye(2)).norm() < 0.4)
        True
    """

    def __init__(self, module: nn.Module) -> None:
        self._layers = [layer for layer in module.modules() if isinstance(layer, SelfNormalizingMap)]
        self._shapes: list[tuple[int, ...]] | None = None
        for layer in self._layers:
            layer.tracks_in_forward = False

    def track(self, steps: int = 1) -> None:
        """Apply the strategy of each layer, as its forward pass would: a tracking step, or the guard's periodic check.

        Args:
            steps: the number of training steps since the last call.
        """
        if self._shapes is None:
            shapes = [tuple(layer.log_det_shape.tolist()) for layer in self._layers]
            if not all(map(all, shapes)):
                return
            self._shapes = shapes
        for layer, shape in zip(self._layers, self._shapes, strict=True):
            layer.track(shape, steps)

    def track_on_device(self) -> None:
        """Apply the tracking step of each layer that needs no device synchronization, if its strategy has one."""
        for layer in self._layers:
            layer.track_on_device()
