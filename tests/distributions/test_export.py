"""torch.export of densities and of inverses, including learned ones.

An exported graph runs without snflow. What depends on values has no graph: the exact log-determinant of a free matrix,
which checks whether its cached factors are still valid, and iterative root finding.
"""

import pytest
import torch
from torch import nn

from snflow import dequantized, flows

FLOWS = {
    "maf": lambda: flows.maf(4, layers=2),
    "spline": lambda: flows.neural_spline(4, layers=2),
    "nice": lambda: flows.nice(4, layers=2),
    "realnvp": lambda: flows.realnvp(4, layers=2),
    "realnvp on images": lambda: flows.realnvp((1, 4, 4), layers=2),
}


class Decoder(nn.Module):
    """z → x as a module, since torch.export takes the forward of one."""

    def __init__(self, flow, inverse=None):
        super().__init__()
        self.flow, self.inverse = flow, inverse

    def forward(self, z):
        return self.flow.decode(z, inverse=self.inverse)


@pytest.mark.parametrize("name", FLOWS)
def test_density_and_decoder_are_exported(name):
    torch.manual_seed(0)
    flow = FLOWS[name]().eval()
    x, z = torch.randn(3, *flow.event_shape), torch.randn(3, *flow.base.event_shape)
    with torch.no_grad():
        for module, given in ((flow, x), (Decoder(flow), z)):
            exported = torch.export.export(module, (given,)).module()
            torch.testing.assert_close(exported(given), module(given), rtol=0, atol=1e-12)
            other = torch.randn_like(given)
            torch.testing.assert_close(exported(other), module(other), rtol=0, atol=1e-12)


LEARNED = {
    "dense": lambda: flows.dense((4,), activation="spline"),
    "conv": lambda: flows.conv((2, 4, 4)),
    "bytes": lambda: dequantized(flows.conv((1, 4, 4)), 256),
    "glow": lambda: flows.glow((2, 4, 4), scales=1, layers=2, width=8),
}


@pytest.mark.parametrize("name", LEARNED)
def test_sampling_through_the_learned_inverse_is_exported(name):
    torch.manual_seed(0)
    flow = LEARNED[name]().eval()
    decoder, z = Decoder(flow, "learned"), torch.randn(3, *flow.base.event_shape)
    with torch.no_grad():
        exported = torch.export.export(decoder, (z,)).module()
        for given in (z, torch.randn_like(z)):
            assert exported(given).dtype == decoder(given).dtype
            torch.testing.assert_close(exported(given).double(), decoder(given).double(), rtol=0, atol=1e-12)
