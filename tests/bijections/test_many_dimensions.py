"""Hundreds of thousands of dimensions, and stacks of 64 layers: no D × D matrix, and no loss of precision."""

import pytest
import torch

import snflow
from snflow import nets
from snflow.bijections.coupling import halves

D = 2**18


def wide(name):
    kept = halves(D, 0)
    match name:
        case "leaky_relu":
            return snflow.LeakyReLU()
        case "smooth_leaky_relu":
            return snflow.SmoothLeakyReLU()
        case "affine":
            return snflow.Affine(torch.linspace(-1, 1, D), torch.linspace(0.5, 2, D))
        case "spline":
            return snflow.rational_quadratic_spline((D,), bins=4)
        case "permutation":
            return snflow.Permutation(torch.randperm(D))
        case "coupling":
            return snflow.Coupling(kept, snflow.AffineTransformer(), nets.MLP(D // 2, D, width=2, depth=1))
    raise ValueError(name)


@pytest.mark.parametrize("name", ["leaky_relu", "smooth_leaky_relu", "affine", "spline", "permutation", "coupling"])
def test_a_quarter_of_a_million_dimensions_in_single_precision(name):
    torch.manual_seed(0)
    layer, x = wide(name).eval(), torch.randn(2, D)
    with torch.no_grad():
        _, exact = layer.double()(x.double())
        layer, x = layer.float(), x.float()
        z, log_det = layer(x)
        assert log_det.shape == (2,)
        # Terms and sums of 24 bits: a hundred-millionth of a nat a dimension, a millionth of the whole.
        assert (log_det.double() - exact).abs().max() <= 1e-8 * D + 1e-6 * exact.abs().max()
        torch.testing.assert_close(layer.decode(z), x, rtol=1e-4, atol=1e-4)


def test_a_convolution_of_65536_pixels_has_its_exact_determinant_without_its_matrix():
    torch.manual_seed(0)
    layer = snflow.SelfNormalizingConv2d(1, 3).eval()
    small = layer.exact_log_det((1, 256, 8))
    x = torch.randn(1, 1, 256, 256)
    with torch.no_grad():
        z, log_det = layer(x)
        torch.testing.assert_close(layer.decode(z), x, rtol=0, atol=1e-9)
    # Away from the edges every pixel adds the same.
    wide_one = layer.exact_log_det((1, 256, 16))
    each_column = (wide_one - small) / 8
    torch.testing.assert_close(log_det[0], small + 248 * each_column, rtol=1e-3, atol=1e-3)


def test_64_layers_of_3072_dimensions_are_accurate_in_single_precision():
    torch.manual_seed(0)
    layers = []
    for _ in range(16):
        layers += [
            snflow.SelfNormalizingConv2d(3, 3),
            snflow.SmoothLeakyReLU(),
            snflow.ActNorm(3),
            snflow.affine_coupling(3, width=8),
        ]
    chain = snflow.Chain(layers).eval()
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    flow = snflow.Flow(chain, snflow.StandardNormal((3, 32, 32))).double()
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        exact = flow.log_prob(x)
        single = flow.float().log_prob(x.float())
        assert ((single.double() - exact) / exact).abs().max() < 1e-5
        z, _ = flow.bijection(x.float())
        torch.testing.assert_close(flow.bijection.decode(z), x.float(), rtol=1e-3, atol=1e-3)
