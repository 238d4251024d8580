"""A small layer with a context, for the tests."""

import torch
from torch import nn

from snflow.bijections.base import Bijection


class ContextScale(Bijection):
    """z = (x − w·c) exp(−c₀): the smallest layer whose z and log-determinant both depend on the context."""

    context_shape = (2,)
    event_shape = (3,)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3))

    def _forward(self, x, context):
        return (x - context @ self.weight) * torch.exp(-context[:, :1]), -3 * context[:, 0]

    def _inverse(self, z, context):
        return z * torch.exp(context[:, :1]) + context @ self.weight, 3 * context[:, 0]
