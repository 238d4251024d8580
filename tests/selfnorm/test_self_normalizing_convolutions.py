"""Self-normalizing convolutions with a stride, dilation, groups, and an inverse kernel of another size."""

import math

import pytest
import torch
from torch.nn import functional

from snflow import SelfNormalizingStridedConv2d
from snflow.numerics.operators.conv import ConvOperator


def test_strided_convolution_is_the_strided_convolution():
    layer = SelfNormalizingStridedConv2d(3, 2)
    x = torch.randn(4, 3, 6, 8)
    wanted = functional.conv2d(x, layer.kernel, layer.conv.bias, stride=2)
    torch.testing.assert_close(layer(x)[0], wanted)
    # Eq. 27: the multiplicity is the convolution of ones, here the number of patches.
    ones = functional.conv2d(torch.ones(1, 1, 6, 8), torch.ones(1, 1, 2, 2), stride=2)
    counted = layer.conv.operator.multiplicity(x, (12, 3, 4))
    assert counted.item() == ones.numel() == 12


@pytest.mark.parametrize(
    ("dilation", "groups", "kernel", "inverse"), [(2, 1, 3, 3), (1, 2, 3, 5), (3, 4, 3, 3), (2, 2, 3, 5)]
)
def test_gradients_with_dilation_groups_and_two_sizes_are_those_of_the_traces(dilation, groups, kernel, inverse):
    """∂tr(T(w) T(r)) by autodiff through matrices built from unit images, not by our own construction."""
    shape = (4, 5, 6)
    w = torch.randn(4, 4 // groups, kernel, kernel, requires_grad=True)
    r = torch.randn(4, 4 // groups, inverse, inverse, requires_grad=True)
    units = torch.eye(math.prod(shape)).view(-1, *shape)
    t_w, t_r = (
        functional.conv2d(units, v, padding=dilation * (v.shape[-1] // 2), dilation=dilation, groups=groups)
        .flatten(1)
        .T
        for v in (w, r)
    )
    by_w, by_r = torch.autograd.grad((t_w * t_r.T).sum(), (w, r))
    a, g = ConvOperator(kernel, dilation, groups), ConvOperator(inverse, dilation, groups)
    torch.testing.assert_close(a.trace_gradient(r.detach(), shape), by_w)
    torch.testing.assert_close(g.trace_gradient(w.detach(), shape), by_r)
    torch.testing.assert_close(a.block(w, shape), t_w)
    torch.testing.assert_close(a.block(a.transpose(w), shape), t_w.T)
    x, v = torch.randn(2, *shape), torch.randn(2, *shape)
    torch.testing.assert_close(a.transposed_product(w, v).flatten(1), v.flatten(1) @ t_w)
    (grad,) = torch.autograd.grad((v * a.product(w, x)).sum(), w)
    torch.testing.assert_close(a.weight_gradient(w.detach(), x, v), grad)
