"""Exact convolutions by image rows: the results of the dense matrix, and the dense matrix as a fallback."""

import pytest
import torch

from snflow import Conv2d, SelfNormalizingConv2d
from snflow.numerics.convolution_matrices import BlockToeplitz, BlockToeplitzFactor
from snflow.numerics.factorization import LUFactor
from snflow.numerics.operators.conv import ConvOperator
from snflow.numerics.operators.conv_rows import RowFactor, conv_log_abs_det

SHAPES = [  # channels, height, width, kernel side, dilation, groups
    (1, 4, 4, 3, 1, 1),
    (3, 8, 8, 3, 1, 1),
    (2, 7, 5, 3, 1, 1),
    (2, 5, 7, 3, 1, 1),
    (2, 7, 6, 5, 1, 1),  # reaches two rows: the last block is cut short
    (2, 13, 6, 3, 2, 1),
    (4, 9, 8, 3, 1, 2),
    (1, 23, 2, 7, 1, 1),
]


def kernel(channels, side, groups, dtype=torch.float64):
    torch.manual_seed(0)
    weight = 0.3 * torch.randn(channels, channels // groups, side, side, dtype=torch.float64) / (channels * side)
    weight[torch.arange(channels), torch.arange(channels) % (channels // groups), side // 2, side // 2] += 1
    return weight.to(dtype).requires_grad_()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_log_det_and_gradient_are_those_of_the_whole_matrix(shape, dtype, close):
    channels, height, width, side, dilation, groups = shape
    operator, event = ConvOperator(side, dilation, groups), (channels, height, width)
    weight = kernel(channels, side, groups, dtype)
    whole = torch.linalg.slogdet(operator.block(weight, event))[1]
    by_rows = conv_log_abs_det(operator._ungrouped(weight), dilation, event)
    assert by_rows.dtype == dtype
    torch.testing.assert_close(by_rows, whole, rtol=close, atol=close)
    wanted, found = (torch.autograd.grad(value, weight)[0] for value in (whole, by_rows))
    torch.testing.assert_close(found, wanted, rtol=close, atol=close * float(wanted.abs().max()))


@pytest.mark.parametrize("shape", SHAPES)
def test_solves_are_those_of_the_whole_matrix(shape):
    channels, height, width, side, dilation, groups = shape
    operator, event = ConvOperator(side, dilation, groups), (channels, height, width)
    weight = kernel(channels, side, groups).detach()
    factor, whole = operator.factor(weight, event, "test"), LUFactor.of(operator.block(weight, event), "test")
    assert isinstance(factor, RowFactor)
    y = torch.randn(3, channels * height * width)
    torch.testing.assert_close(factor.solve(y), whole.solve(y), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(factor.solve_transposed(y), whole.solve_transposed(y), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(factor.log_abs_det, whole.log_abs_det)


def test_the_recursion_stops_when_it_has_converged():
    weight = kernel(2, 3, 1)
    operator = ConvOperator(3)
    factor = operator.factor(weight, (2, 60, 4), "test")
    assert len(factor.inner.matrix.complements()) < 40
    assert len(factor.inner.factors) == 60
    y = torch.randn(2, 2 * 60 * 4)
    x = factor.solve(y)
    torch.testing.assert_close(operator.product(weight, x.view(2, 2, 60, 4)).flatten(1), y)


def test_an_elimination_that_is_not_stable_is_left_to_the_whole_matrix():
    """The blocks on the diagonal are singular, or nearly so, and the matrix is not."""
    event = (1, 6, 4)
    operator = ConvOperator(3)
    for middle in (0.0, 1e-9):
        weight = torch.zeros(1, 1, 3, 3)
        weight[0, 0, 0, 1], weight[0, 0, 2, 1], weight[0, 0, 1, 1] = 1.0, -1.0, middle
        weight.requires_grad_()
        assert conv_log_abs_det(weight, 1, event) is None
        factor = operator.factor(weight, event, "test")
        assert isinstance(factor, LUFactor)
        value = operator.log_abs_det(weight, event)
        torch.testing.assert_close(value, factor.log_abs_det)
        assert torch.autograd.grad(value, weight)[0].isfinite().all()


def test_a_matrix_with_refused_factors_is_not_solved():
    eye = torch.eye(2)
    assert BlockToeplitzFactor.of(BlockToeplitz(eye, torch.zeros(2, 2), eye, 6)) is None
    assert BlockToeplitzFactor.of(BlockToeplitz(eye, torch.full((2, 2), torch.nan), eye, 6)) is None


@pytest.mark.parametrize("kind", [Conv2d, SelfNormalizingConv2d])
def test_layers_evaluate_by_rows(kind):
    layer = kind(2).eval()
    x = torch.randn(4, 2, 9, 5)
    z, log_det = layer(x)
    assert isinstance(layer._factor.of(layer.weight, (2, 9, 5)), RowFactor)
    matrix = layer.operator.block(layer.weight, (2, 9, 5))
    torch.testing.assert_close(log_det, torch.linalg.slogdet(matrix)[1].expand(4))
    torch.testing.assert_close(layer.inverse(z)[0], x)
