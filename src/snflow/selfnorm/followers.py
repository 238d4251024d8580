"""Tracking between training steps that are compiled or recorded."""

from __future__ import annotations

from torch import nn

from snflow.selfnorm.layers import SelfNormalizingMap


class Followers:
    """Applies the strategy of every self-normalizing layer of a module between training steps instead of in them.

    A compiled forward cannot contain a decision that waits for a number, and a recorded one repeats its operations,
    whatever the numbers are. From the construction of an instance on, the layers' forwards leave the inverses alone.

    Args:
        module: a flow, a chain or a layer. Nothing is done until each layer has seen data, which have a shape.

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
        """Apply each layer's strategy, as its forward would have done: a tracking step, or the guard's periodic check.

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
        """Apply each layer's step that reads no number from the device, if its strategy has one."""
        for layer in self._layers:
            layer.track_on_device()
