"""Permutations of features or channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import torch
from torch import Tensor

from snflow.arguments import check_count
from snflow.bijections.base import Bijection
from snflow.errors import ConfigError


@final
class Permutation(Bijection):
    """zᵢ = x_{order[i]}, log|det| = 0: features, or the channels of an image, in another order.

    Args:
        order: each index from 0 to D − 1 once.
        image: whether the D are channels of an image.

    Shapes:
        x, z: ``(batch, D)`` or ``(batch, D, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: the order is no permutation.

    Example:
        >>> import torch, snflow
        >>> snflow.Permutation([2, 0, 1])(torch.tensor([[10.0, 11.0, 12.0]]))[0]
        tensor([[12., 10., 11.]])
    """

    order: Tensor
    back: Tensor

    def __init__(self, order: Sequence[int] | Tensor, image: bool = False) -> None:
        super().__init__()
        index = torch.as_tensor(order).long()
        if index.dim() != 1 or not torch.equal(index.sort().values, torch.arange(len(index))):
            raise ConfigError(
                "Permutation",
                expected="each index from 0 to D − 1 once",
                got=str(index.tolist()),
                fix="see torch.randperm",
            )
        self.event_shape = (len(index), None, None) if image else (len(index),)
        self.register_buffer("order", index)
        self.register_buffer("back", index.argsort(), persistent=False)
        self.register_load_state_dict_post_hook(_refresh)

    @classmethod
    def reversed(cls, features: int, image: bool = False) -> Self:
        """zᵢ = x_{D − 1 − i}.

        Example:
            >>> Permutation.reversed(3).order.tolist()
            [2, 1, 0]
        """
        check_count("Permutation", "features", features)
        return cls(list(range(features))[::-1], image)

    @classmethod
    def random(cls, features: int, image: bool = False) -> Self:
        """A random order, drawn by torch's generator and kept in the state."""
        check_count("Permutation", "features", features)
        return cls(torch.randperm(features), image)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x.index_select(1, self.order), x.new_zeros(x.shape[0])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z.index_select(1, self.back), z.new_zeros(z.shape[0])

    def extra_repr(self) -> str:
        """Show the number of features."""
        return str(len(self.order))


def _refresh(layer: Permutation, _: object) -> None:
    layer.back = layer.order.argsort()
