"""Lanczos' method finds the largest singular value before power iteration does."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from snflow.nets.spectral_norm import SpectralConv2d
from snflow.numerics.krylov import lanczos, leading_direction


def stretch(matrix, **options):
    start = torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(1), dtype=matrix.dtype)
    return float((matrix @ leading_direction(lambda v: matrix.mT @ (matrix @ v), start, **options)).norm())


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (40, 40), (200, 150)])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-8])
def test_it_is_the_spectral_norm(size, tolerance):
    matrix = torch.randn(size, generator=torch.Generator().manual_seed(0))
    largest = float(torch.linalg.matrix_norm(matrix, 2))
    assert stretch(matrix, cycles=100, tolerance=tolerance) == pytest.approx(largest, rel=tolerance)


def test_singular_values_that_lie_close_together():
    values = torch.linspace(0.9, 1.0, 300)
    turn = torch.linalg.qr(torch.randn(300, 300, generator=torch.Generator().manual_seed(0)))[0]
    matrix = turn * values @ turn.mT
    assert stretch(matrix, cycles=100, tolerance=1e-6) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_a_space_that_is_invariant_up_to_rounding_errors_keeps_an_orthogonal_basis(seed):
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(50, 50, generator=generator, dtype=torch.float32))[0]
    start = torch.randn(1, 50, generator=generator, dtype=torch.float32)
    basis, tridiagonal, _ = lanczos(lambda v: (v @ turn.mT) @ turn, start, 16)
    unit = torch.eye(basis.shape[1], dtype=torch.float32)
    torch.testing.assert_close(basis[0] @ basis[0].mT, unit, rtol=0, atol=1e-5)
    assert float(torch.linalg.eigvalsh(tridiagonal[0]).amax()) == pytest.approx(1, abs=1e-5)


def test_maps_without_a_singular_vector_return_the_start():
    start = torch.tensor([0.6, 0.8])
    assert torch.equal(leading_direction(torch.zeros_like, start), start)
    assert torch.equal(leading_direction(lambda v: v * torch.nan, start), start)


@pytest.mark.parametrize("outputs", [2, 5])
def test_a_wide_convolution_keeps_its_bound(outputs):
    layer = SpectralConv2d(3, outputs, (6, 5), bound=0.9).eval()
    with torch.no_grad():
        layer.weight.mul_(4)
        units = torch.eye(90).view(90, 3, 6, 5)
        matrix = (layer(units) - functional.conv2d(torch.zeros(1, 3, 6, 5), layer.weight, padding=1)).flatten(1)
    assert float(torch.linalg.matrix_norm(matrix, 2)) == pytest.approx(0.9, abs=1e-7)


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize(("channels", "outputs"), [(2, 6), (6, 2)])
def test_the_norm_of_a_convolution_is_that_of_its_matrix(kernel_size, channels, outputs):
    layer = SpectralConv2d(channels, outputs, (5, 4), kernel_size=kernel_size).eval()
    with torch.no_grad():
        layer.weight.normal_()
        units = torch.eye(20 * channels).view(-1, channels, 5, 4)
        matrix = functional.conv2d(units, layer.weight, padding=kernel_size // 2).flatten(1)
        assert float(layer.norm()) == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-8)
        layer.weight.fill_(torch.nan)
        assert layer.norm().isnan()
