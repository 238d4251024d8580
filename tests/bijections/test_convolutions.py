"""Convolutions with cheap determinants, compared with their dense matrices."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from snflow import (
    AutoregressiveConv2d,
    Chain,
    Conv2d,
    ConvExponential,
    EmergingConv2d,
    MaskedResidualConv2d,
    PeriodicConv2d,
    PLUConv2d,
    Woodbury,
)
from snflow.bijections.convolution.exponential import _series
from snflow.errors import ConfigError, NotInvertibleError, NumericalWarning, ShapeError
from snflow.numerics.convolution_matrices import SparseTriangular, convolution_matrix


def shaken(layer, scale=0.1):
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(scale * torch.randn_like(p))
    return layer


def matrix_of(layer, shape):
    """The linear part of a layer, column by column, from unit images."""
    units = torch.eye(int(np.prod(shape))).view(-1, *shape)
    zero = layer(torch.zeros(1, *shape))[0]
    return (layer(units)[0] - zero).flatten(1).T.detach()


@pytest.mark.parametrize("order", ["forward", "backward"])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_autoregressive_matrix_is_triangular_in_rows_columns_channels(order, kernel):
    shape = (3, 3, 4)
    layer = shaken(AutoregressiveConv2d(3, kernel, order=order))
    matrix = matrix_of(layer, shape)
    ordering = torch.arange(36).view(shape).permute(1, 2, 0).flatten()
    matrix = matrix[ordering][:, ordering]
    assert (matrix.triu(1) if order == "forward" else matrix.tril(-1)).abs().max() < 1e-12
    assert matrix.diagonal().min() > 0
    if kernel > 1:
        assert (matrix.tril(-1) if order == "forward" else matrix.triu(1)).count_nonzero() > 100


def test_sparse_matrix_is_the_convolution():
    kernel, x = torch.randn(2, 2, 3, 3), torch.randn(3, 2, 4, 5)
    matrix = convolution_matrix(kernel, 4, 5).toarray()
    rows = x.permute(0, 2, 3, 1).flatten(1).numpy() @ matrix.T
    wanted = functional.conv2d(x, kernel, padding=1).permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(torch.from_numpy(rows), wanted)


def test_sparse_solves_do_not_fill_in_and_refuse_a_zero():
    layer = shaken(AutoregressiveConv2d(4))
    matrix = convolution_matrix(layer.kernel, 6, 6)
    solver = SparseTriangular.of(matrix, "test")
    count = solver.factor.L.nnz + solver.factor.U.nnz
    assert count <= matrix.nnz + 2 * matrix.shape[0]
    rows = torch.randn(3, 144)
    dense = torch.from_numpy(matrix.toarray())
    torch.testing.assert_close(solver.solve(rows) @ dense.T, rows)
    torch.testing.assert_close(solver.solve_transposed(rows) @ dense, rows)
    with torch.no_grad():
        layer.log_diagonal[0] = -torch.inf
    with pytest.raises(NotInvertibleError, match=r"AutoregressiveConv2d: .* a zero on the diagonal"):
        layer.inverse(torch.randn(2, 4, 6, 6))


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.load_state_dict(shaken(AutoregressiveConv2d(2)).state_dict()),
        lambda layer: setattr(layer.weight, "data", 3 * layer.weight.data),
        lambda layer: layer.log_diagonal.data.add_(1.0),
    ],
)
def test_a_cached_factor_is_never_stale(change):
    layer = shaken(AutoregressiveConv2d(2)).eval()
    x = torch.randn(3, 2, 4, 4)
    layer.inverse(layer(x)[0])
    change(layer)
    torch.testing.assert_close(layer.inverse(layer(x)[0])[0], x)
    wide = torch.randn(2, 2, 3, 7)
    torch.testing.assert_close(layer.inverse(layer(wide)[0])[0], wide)


def test_emerging_covers_all_neighbours_and_is_its_three_layers():
    layer = shaken(EmergingConv2d(2), 0.3)
    matrix = matrix_of(layer, (2, 5, 5)).view(2, 5, 5, 2, 5, 5)
    assert (matrix[0, 2, 2, 0, 1:4, 1:4].abs() > 1e-12).all()
    kinds = [type(part) for part in layer.layers]
    assert kinds == [Conv2d, AutoregressiveConv2d, AutoregressiveConv2d]


@pytest.mark.parametrize(("size", "kernel"), [((4, 6), 3), ((5, 3), 3), ((3, 3), 5), ((1, 4), 3)])
def test_periodic_is_the_circular_convolution(size, kernel):
    layer, x = shaken(PeriodicConv2d(2, kernel)), torch.randn(3, 2, *size)
    wanted = torch.zeros_like(x)
    for a in range(kernel):
        for b in range(kernel):
            moved = x.roll((kernel // 2 - a, kernel // 2 - b), (2, 3))
            wanted += torch.einsum("oi,nihw->nohw", layer.weight[:, :, a, b], moved)
    torch.testing.assert_close(layer(x)[0], wanted + layer.bias[:, None, None])


def test_a_singular_frequency_is_an_error():
    layer, x = PeriodicConv2d(1), torch.randn(2, 1, 4, 4)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0, 1, 1], layer.weight[0, 0, 1, 2] = 1.0, -1.0
    layer.encode(x)
    for mode in (True, False):
        for call in (layer.train(mode), layer.inverse, layer.decode):
            with pytest.raises(NotInvertibleError, match=r"PeriodicConv2d: .* a singular one"):
                call(x)


def test_exponential_is_the_matrix_exponential():
    layer = shaken(ConvExponential(2), 0.05).eval()
    x, shape = torch.randn(3, 2, 4, 5), (2, 4, 5)
    kernel = layer.kernel.detach()
    units = torch.eye(40).view(-1, *shape)
    matrix = functional.conv2d(units, kernel, padding=1).flatten(1).T
    assert torch.linalg.matrix_norm(matrix, 2) < 0.92
    wanted = (layer.pointwise(x)[0].flatten(1) @ torch.linalg.matrix_exp(matrix).T).view_as(x)
    torch.testing.assert_close(layer(x)[0], wanted + layer.bias[:, None, None], rtol=0, atol=1e-10)


def test_exponential_takes_six_terms_in_training_and_scales_a_large_kernel():
    layer = ConvExponential(2)
    with torch.no_grad():
        layer.weight.mul_(300)
        layer.pointwise.weight.copy_(torch.eye(2)[:, :, None, None])
    x = torch.randn(3, 2, 8, 8)
    for _ in range(30):
        trained = layer(x)[0]
    norm = layer._on_torus(layer.direction).norm()
    assert norm > 0.9
    torch.testing.assert_close(layer.kernel, layer.weight * 0.9 / norm)
    z6, z13 = (_series(layer.kernel, x, terms) + layer.bias[:, None, None] for terms in (6, 13))
    torch.testing.assert_close(trained, z6)
    torch.testing.assert_close(layer.eval()(x)[0], z13)
    assert (z6 - z13).flatten(1).norm() / x.norm() < 1e-4


def test_the_norm_of_a_fresh_kernel_is_known_without_a_training_step():
    layer = ConvExponential(3).eval()
    with torch.no_grad():
        large = float(layer._on_torus(layer.direction).norm())
        layer._turn(200)
        assert float(layer._on_torus(layer.direction).norm()) == pytest.approx(large, rel=0.05)


def test_a_kernel_of_zeros_is_handled():
    layer = ConvExponential(2)
    with torch.no_grad():
        layer.weight.zero_()
    z, log_det = layer(torch.randn(2, 2, 3, 3))
    (z.sum() + log_det.sum()).backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_woodbury_is_the_kronecker_product_of_its_two_mixings():
    layer = shaken(Woodbury((3, 2, 4), 2, 3), 0.2)
    by_channels = torch.eye(3) + layer.channel_u @ layer.channel_v
    by_pixels = torch.eye(8) + layer.spatial_u @ layer.spatial_v
    torch.testing.assert_close(matrix_of(layer, (3, 2, 4)), torch.kron(by_channels, by_pixels.T.contiguous()))


def damaged(build):
    """The layer in float32, with a factor of its matrix close to singular."""
    layer = build().float()
    with torch.no_grad():
        if isinstance(layer, Woodbury):
            u = layer.channel_u[:, 0]
            layer.channel_v[0] = (1e-7 - 1) * u / u.square().sum()
        elif isinstance(layer, PLUConv2d):
            layer.log_diagonal[0] -= 16
        elif isinstance(layer, AutoregressiveConv2d):
            layer.weight.zero_()
            layer.log_diagonal[0] -= 16
        else:
            inner = {EmergingConv2d: lambda: layer.layers[0], ConvExponential: lambda: layer.pointwise}
            inner.get(type(layer), lambda: layer)().weight[0] *= 1e-7
    return layer


EXACT = [
    lambda: EmergingConv2d(3),
    lambda: ConvExponential(3),
    lambda: PeriodicConv2d(3),
    lambda: AutoregressiveConv2d(3),
    lambda: PLUConv2d(3),
    lambda: Woodbury((3, 4, 4), 1, 1),
]


@pytest.mark.parametrize("build", EXACT)
def test_an_ill_conditioned_convolution_warns_once_for_each_weight(build):
    z = torch.randn(2, 3, 4, 4, dtype=torch.float32)
    build().float().decode(z)  # warnings are errors
    layer = damaged(build)
    with pytest.warns(NumericalWarning, match=r"the condition number of the weight .* in float32"):
        layer.decode(z)
    layer.decode(z)
    layer.double().decode(z.double())


@pytest.mark.parametrize("build", EXACT)
def test_convolutions_encode_what_they_map(build):
    layer, x = build().eval(), torch.randn(2, 3, 4, 4)
    assert torch.equal(layer.encode(x), layer(x)[0])


def test_woodbury_inverts_in_double_precision():
    layer = shaken(Woodbury((4, 4, 4), 4, 16), 0.3)
    x = torch.randn(3, 4, 4, 4)
    single = copy.deepcopy(layer).float()
    wanted = torch.linalg.solve(matrix_of(layer, (4, 4, 4)), x.flatten(1).T).T.view_as(x)
    torch.testing.assert_close(single.decode(x.float()).double(), wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("build", [EmergingConv2d, ConvExponential, PeriodicConv2d])
def test_log_det_in_training_is_that_of_evaluation(build):
    layer, x = shaken(build(2), 0.03), torch.randn(3, 2, 4, 4)
    trained = layer(x)[1]
    torch.testing.assert_close(layer.eval()(x)[1], trained, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda: AutoregressiveConv2d(2, 2), ConfigError, "odd kernel_size"),
        (lambda: AutoregressiveConv2d(2, 3, order="sideways"), ConfigError, "order to be one of"),
        (lambda: EmergingConv2d(0), ConfigError, "channels ≥ 1"),
        (lambda: PeriodicConv2d(2, 4), ConfigError, "odd kernel_size"),
        (lambda: ConvExponential(2, train_terms=0), ConfigError, "train_terms ≥ 1"),
        (lambda: ConvExponential(2, spectral_coefficient=0.0), ConfigError, "spectral_coefficient > 0"),
        (lambda: Woodbury((8,)), ShapeError, r"images, \(channels, height, width\)"),
        (lambda: Woodbury((2, 3, 3), 0), ConfigError, "channel_rank ≥ 1"),
        (lambda: Chain([EmergingConv2d(2)])(torch.randn(1, 3, 4, 4)), ShapeError, r"event shape \(2, any, any\)"),
    ],
)
def test_wrong_options_are_named(build, kind, message):
    with pytest.raises(kind, match=message):
        build()


@torch.no_grad()
def test_masked_residual_convolutions_are_inverted_to_the_last_digits():
    torch.manual_seed(0)
    layer = MaskedResidualConv2d(2, groups=3)
    for x in (torch.randn(20, 2, 4, 4), 1e20 * torch.randn(5, 2, 4, 4)):
        error = (layer.decode(layer.encode(x)) - x).abs().max() / x.abs().max()
        assert error < 1e-12


def test_factors_whose_product_overflows_are_refused():
    layer = PLUConv2d(2).float()
    with torch.no_grad():
        layer.lower[1, 0] = 1e30
        layer.upper[0, 1] = 1e30
    x = torch.randn(3, 2, 2, 2, dtype=torch.float32)
    for mode in (True, False):
        with pytest.raises(NotInvertibleError, match="PLUConv2d: expected an invertible weight, got a non-finite one"):
            layer.train(mode)(x)
