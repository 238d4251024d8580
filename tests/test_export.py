"""Flows without free matrices go through torch.export, densities and samples: a graph that needs no snflow to run."""

import pytest
import torch
from torch import nn

from snflow import flows

FLOWS = {
    "maf": lambda: flows.maf(4),
    "spline": lambda: flows.neural_spline(4),
    "nice": lambda: flows.nice(4),
    "realnvp": lambda: flows.realnvp(4),
    "realnvp on images": lambda: flows.realnvp((1, 4, 4)),
}


class Decoder(nn.Module):
    """z → x, as a module: what is exported is a forward."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, z):
        return self.flow.decode(z)


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
