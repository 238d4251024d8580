"""Normalization layers: batch moments in one direction only."""

import pytest
import torch

from snflow import BatchNorm, flows
from snflow.errors import NotInvertibleError


def test_batch_normalization_has_an_inverse_in_eval_only():
    layer, x = BatchNorm(3), 2 + torch.randn(50, 3)
    z, _ = layer(x)
    with pytest.raises(NotInvertibleError, match=r"call flow\.eval\(\) first"):
        layer.inverse(z)
    layer.eval()
    torch.testing.assert_close(layer.decode(layer(x)[0]), x)


def test_a_flow_with_batch_normalization_decodes_what_it_encodes_or_says_why_not():
    flow, x = flows.realnvp(4, width=8), torch.randn(50, 4)
    with pytest.raises(NotInvertibleError, match="BatchNorm"):
        flow.train().decode(flow.encode(x))
    flow.eval()
    torch.testing.assert_close(flow.decode(flow.encode(x)), x)
