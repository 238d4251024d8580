"""Tracking from outside a compiled or recorded training step."""

from __future__ import annotations

from torch import nn

from snflow.selfnorm.layers import SelfNormalizingMap


class Followers:
    """r ← towards A(w)⁻¹, for every self-normalizing layer of a module, between training steps instead of inside them.

    A compiled forward leaves out what depends on numbers that it would have to wait for, and a recorded one repeats
    what it did, whatever the numbers are. From when this is made, the layers' own forwards leave r alone.

    Args:
        module: a flow, a chain or a layer, which has seen data: a layer's events have a shape from then on.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.SelfNormalizingDense(2, inverse_tracking="newton")
        >>> _ = layer(torch.randn(3, 2))
        >>> followers = Followers(layer)
        >>> with torch.no_grad():
        ...     _ = layer.weight.mul_(1.5)
        >>> followers.look()
        >>> bool((layer.inverse_matrix @ layer.weight - torch.eye(2)).norm() < 0.4)
        True
    """

    def __init__(self, module: nn.Module) -> None:
        self._layers = [layer for layer in module.modules() if isinstance(layer, SelfNormalizingMap)]
        self._shapes: list[tuple[int, ...]] | None = None
        for layer in self._layers:
            layer.follows_itself = False

    def look(self, steps: int = 1) -> None:
        """Do what each layer's forward would have done: the tracking step, or the guard's look when it is due.

        Args:
            steps: the training steps since the last call.
        """
        if self._shapes is None:
            shapes = [tuple(layer.log_det_shape.tolist()) for layer in self._layers]
            if not all(map(all, shapes)):
                return
            self._shapes = shapes
        for layer, shape in zip(self._layers, self._shapes, strict=True):
            layer.follow(shape, steps)

    def polish(self) -> None:
        """One Newton step in every layer that is followed so, without waiting for a number."""
        for layer in self._layers:
            layer.polish()
