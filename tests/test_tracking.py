"""How the learned inverse is kept: newton, secant, least squares, the guard, Neumann terms."""

import copy
import math

import pytest
import torch
from torch.nn import functional

from snflow import (
    SelfNormalizingConv2d,
    SelfNormalizingDense,
    SelfNormalizingStridedConv2d,
    refresh_inverses,
)
from snflow.errors import ConfigError
from snflow.numerics.operators.conv import ConvOperator
from snflow.numerics.operators.dense import DenseOperator, TransposedDenseOperator
from snflow.numerics.probes import rademacher
from snflow.selfnorm.gradient import Operators
from snflow.selfnorm.tracking import exact, inverse_residual, least_squares_kernel, newton, secant


def near_identity(size, scale, count=1):
    return torch.eye(size) + scale * torch.randn(count, size, size) / math.sqrt(size)


def residual(weight, inverse):
    return torch.eye(weight.shape[-1]) - weight @ inverse


def test_newton_squares_the_residual():
    weight = near_identity(20, 0.3, 3)
    inverse = exact(weight) + 0.01 * torch.randn(3, 20, 20)
    before = residual(weight, inverse)
    torch.testing.assert_close(residual(weight, newton(weight, inverse)), before @ before)


def test_secant_is_the_nearest_matrix_that_undoes_the_probes():
    weight, inverse = near_identity(12, 0.4)[0], torch.eye(12)
    probes = torch.randn(12, 4)
    found = secant(weight[None], inverse[None], probes[None])[0]
    seen = weight @ probes
    torch.testing.assert_close(found @ seen, probes, rtol=0, atol=1e-9)
    # Any other solution differs by something that vanishes on the seen vectors: a step along it leads away.
    orthonormal, _ = torch.linalg.qr(seen)
    free = torch.randn(12, 12) @ (torch.eye(12) - orthonormal @ orthonormal.T)
    assert ((found - inverse) * free).sum().abs() < 1e-9
    # With as many probes as dimensions it is the inverse.
    whole = secant(weight[None], inverse[None], torch.randn(1, 12, 12))
    torch.testing.assert_close(whole, exact(weight[None]), rtol=0, atol=1e-6)


def test_residual_is_the_frobenius_norm_and_sees_the_largest_direction():
    weight, operators = near_identity(30, 0.2)[0], Operators(DenseOperator(), TransposedDenseOperator())
    inverse = torch.eye(30)
    wanted = residual(weight, inverse).norm() / math.sqrt(30)
    assert inverse_residual(weight, inverse, operators, (30,), 4000).size == pytest.approx(wanted.item(), rel=0.02)
    # One direction of size 3 in a hundred dimensions: small by the Frobenius norm, and no power of it vanishes.
    direction = functional.normalize(torch.randn(100), dim=0)
    lost = inverse_residual(
        torch.eye(100) + 3 * torch.outer(direction, direction), torch.eye(100), operators, (100,), 8
    )
    assert lost.size < 0.5
    assert lost.growth == pytest.approx(3, rel=1e-6)
    assert not lost.contracts


@pytest.mark.parametrize("inverse_size", [3, 5])
@pytest.mark.parametrize(("groups", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_least_squares_kernel_is_the_minimum_over_all_images(inverse_size, groups, dilation):
    """Against the least squares of the dense matrices: ‖T(r) T(w) − I‖_F over r, without random images."""
    shape, w = (2, 9, 9), torch.zeros(2, 2 // groups, 3, 3)
    w = torch.nn.init.dirac_(w, groups) + 0.1 * torch.randn_like(w)
    a, g = ConvOperator(3, dilation, groups), ConvOperator(inverse_size, dilation, groups)
    start = torch.zeros(2, 2 // groups, inverse_size, inverse_size)
    matrix = a.block(w, shape)
    units = [torch.zeros_like(start).flatten().index_fill(0, torch.tensor(i), 1.0) for i in range(start.numel())]
    columns = torch.stack([(g.block(u.view_as(start), shape) @ matrix).flatten() for u in units], 1)
    wanted = torch.linalg.lstsq(columns, torch.eye(len(matrix)).flatten()[:, None]).solution.view_as(start)
    least = (columns @ wanted.flatten() - torch.eye(len(matrix)).flatten()).norm()
    fitted = sum(least_squares_kernel(w, start, Operators(a, g), shape) for _ in range(200)) / 200
    assert (fitted - wanted).abs().max() < 0.01
    one = least_squares_kernel(w, start, Operators(a, g), shape)
    assert (columns @ one.flatten() - torch.eye(len(matrix)).flatten()).norm() < 1.15 * least


def step(layer, x, optimizer):
    z, log_det = layer(x)
    loss = (0.5 * z.square().flatten(1).sum(1) - log_det).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


BUILDS = {
    "dense": (lambda how: SelfNormalizingDense(30, inverse_tracking=how), (30,), 0.15),
    "1×1": (lambda how: SelfNormalizingConv2d(12, 1, inverse_tracking=how), (12, 4, 4), 0.15),
    "1×1 in groups": (lambda how: SelfNormalizingConv2d(12, 1, groups=3, inverse_tracking=how), (12, 4, 4), 0.15),
    "3×3": (lambda how: SelfNormalizingConv2d(2, 3, inverse_tracking=how), (2, 8, 8), 0.35),
    "3×3 with 7×7": (
        lambda how: SelfNormalizingConv2d(2, 3, inverse_kernel_size=7, inverse_tracking=how),
        (2, 8, 8),
        0.2,
    ),
    "strided": (lambda how: SelfNormalizingStridedConv2d(3, 2, inverse_tracking=how), (3, 8, 8), 0.15),
}


@pytest.mark.parametrize("how", ["newton", "secant"])
@pytest.mark.parametrize("name", BUILDS)
def test_the_inverse_follows_weights_that_move_fast(name, how):
    build, shape, bound = BUILDS[name]
    layer = build(how)
    optimizer = torch.optim.Adam(layer.parameters(), lr=3e-3)
    mixing = 2 * torch.randn(shape[0], shape[0]) / math.sqrt(shape[0])
    for _ in range(150):
        step(layer, torch.einsum("nc...,cd->nd...", torch.randn(20, *shape), mixing), optimizer)
    inner = getattr(layer, "conv", layer)
    event_shape = tuple(inner.log_det_shape.tolist())
    inner.follow(event_shape)
    assert float(inner.inverse_residual(event_shape, 200)) < bound
    assert int(inner.tracking_steps) > 0
    assert int(inner.repairs) == 0


def test_a_tracked_inverse_is_no_parameter_and_takes_the_whole_gradient():
    layer = SelfNormalizingDense(5, inverse_tracking="newton")
    assert "inverse_weight" not in dict(layer.named_parameters())
    assert "inverse_weight" in layer.state_dict()
    with torch.no_grad():
        layer.weight.add_(0.02 * torch.randn(5, 5))
        layer.inverse_matrix.copy_(torch.linalg.inv(layer.weight))
    x = torch.randn(7, 5)
    gradients = []
    for mode in (True, False):
        layer.train(mode).zero_grad()
        z, log_det = layer(x)
        (z.square().sum(1) - log_det).mean().backward()
        gradients.append(layer.weight.grad.clone())
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


def test_unchanged_weights_leave_the_inverse_alone_and_so_does_evaluation():
    layer = SelfNormalizingDense(6, inverse_tracking="secant", tracking_tolerance=1e-6)
    x = torch.randn(3, 6)
    layer(x)
    steps = int(layer.tracking_steps)
    assert steps == 1
    kept = layer.inverse_weight.clone()
    layer(x)
    with torch.no_grad():
        layer.weight.mul_(1.1)
    layer.eval()(x)
    assert int(layer.tracking_steps) == steps
    assert torch.equal(layer.inverse_weight, kept)
    layer.train()(x)
    assert int(layer.tracking_steps) == steps + 1


def test_a_lost_inverse_is_computed_anew():
    for how in ("newton", "secant"):
        layer = SelfNormalizingDense(6, inverse_tracking=how)
        with torch.no_grad():
            layer.weight.copy_(3 * torch.linalg.qr(torch.randn(6, 6)).Q)
        layer(torch.randn(2, 6))
        torch.testing.assert_close(layer.inverse_matrix @ layer.weight, torch.eye(6))


def test_a_singular_or_broken_weight_leaves_the_last_inverse():
    layer = SelfNormalizingDense(4, inverse_tracking="newton")
    layer(torch.randn(2, 4))
    kept = layer.inverse_weight.clone()
    for broken in (torch.zeros(4, 4), torch.full((4, 4), torch.nan)):
        with torch.no_grad():
            layer.weight.copy_(broken)
        layer(torch.randn(2, 4))
        assert torch.equal(layer.inverse_weight, kept)


@pytest.mark.parametrize("build", [lambda: SelfNormalizingDense(8), lambda: SelfNormalizingConv2d(2, 3)])
def test_the_guard_repairs_a_lost_inverse_when_it_is_due(build):
    layer = build()
    layer.learned = type(layer.learned)(guard_every=3)
    x = torch.randn(4, 8) if isinstance(layer, SelfNormalizingDense) else torch.randn(4, 2, 6, 6)
    with torch.no_grad():
        layer.inverse_weight.zero_()
    for forward in range(1, 7):
        layer(x)
        assert int(layer.repairs) == (forward >= 3)
    assert float(layer.inverse_residual(tuple(x.shape[1:]))) < 0.05
    assert isinstance(layer.inverse_weight, torch.nn.Parameter)


def test_a_guard_that_is_off_does_nothing():
    layer = SelfNormalizingDense(4, guard=False, guard_every=1)
    with torch.no_grad():
        layer.inverse_weight.zero_()
    layer(torch.randn(2, 4))
    assert not layer.inverse_weight.any()
    assert int(layer.repairs) == 0


def test_a_repair_between_two_forwards_does_not_break_the_backward_of_the_first():
    layer = SelfNormalizingDense(4, guard_every=2)
    with torch.no_grad():
        layer.inverse_weight.zero_()
    loss = sum((z.square().sum(1) - log_det).mean() for z, log_det in (layer(torch.randn(3, 4)) for _ in range(2)))
    loss.backward()
    assert int(layer.repairs) == 1
    assert layer.inverse_weight.grad is not None


def test_the_guards_count_survives_a_checkpoint():
    layer = SelfNormalizingDense(4, guard_every=4)
    for _ in range(3):
        layer(torch.randn(2, 4))
    fresh = SelfNormalizingDense(4, guard_every=4)
    fresh.load_state_dict(layer.state_dict())
    with torch.no_grad():
        fresh.inverse_weight.zero_()
    fresh(torch.randn(2, 4))
    assert int(fresh.repairs) == 1


def dense_kernel_gradient(layer, shape):
    """∂ log|det T(w)|/∂w by autograd through the dense matrix."""
    w = layer.weight.detach().clone().requires_grad_()
    return torch.autograd.grad(
        torch.linalg.slogdet(layer.operator.block(w, shape))[1] * layer.operator.copies(shape), w
    )[0]


def log_det_gradient(layer, x):
    layer.zero_grad()
    layer(x)[1].mean().backward()
    return layer.weight.grad / layer.rule.weight_share


def degrees(one, other):
    return math.degrees(math.acos(float((one * other).sum() / one.norm() / other.norm())))


@pytest.mark.parametrize("terms", [1, 3])
def test_neumann_terms_are_the_powers_of_the_residual(terms):
    """With all unit vectors for probes, E ννᵀ = I holds exactly and so does the formula."""
    layer = SelfNormalizingDense(5, penalty_weight=0.0, neumann_terms=terms)
    w, r = near_identity(5, 0.3)[0], torch.eye(5)
    units = math.sqrt(5) * torch.eye(5)
    from snflow.selfnorm.gradient import _neumann

    found = _neumann(w, r, units, layer.operators, layer.rule)
    error = torch.eye(5) - w.T @ r.T
    torch.testing.assert_close(found, r.T @ sum(torch.linalg.matrix_power(error, k) for k in range(1, terms + 1)))


@pytest.mark.parametrize("how", ["penalty", "newton", "secant"])
def test_only_a_tracked_convolution_takes_a_neumann_term_by_itself(how):
    """Its inverse is no convolution; a matrix and a 1×1 convolution have theirs."""
    tracked = how != "penalty"
    assert SelfNormalizingConv2d(2, 3, inverse_tracking=how).rule.neumann_terms == int(tracked)
    assert SelfNormalizingConv2d(2, 3, inverse_tracking=how, neumann_terms=0).rule.neumann_terms == 0
    assert SelfNormalizingConv2d(2, 1, inverse_tracking=how).rule.neumann_terms == 0
    assert SelfNormalizingDense(2, inverse_tracking=how).rule.neumann_terms == 0


def test_neumann_terms_turn_the_gradient_towards_the_exact_one():
    shape, angles = (2, 8, 8), {}
    base = SelfNormalizingConv2d(2, 3, inverse_tracking="secant")
    with torch.no_grad():
        base.weight.add_(0.1 * torch.randn_like(base.weight))
    wanted = dense_kernel_gradient(base, shape)
    for terms in (0, 1, 4):
        layer = SelfNormalizingConv2d(2, 3, inverse_tracking="secant", neumann_terms=terms, neumann_probes=2000)
        layer.load_state_dict(base.state_dict())
        angles[terms] = degrees(log_det_gradient(layer, torch.randn(2, *shape)), wanted)
    assert angles[1] < 0.6 * angles[0]
    assert angles[4] < 0.6 * angles[1]


def test_a_larger_inverse_kernel_comes_nearer():
    shape, angles, residuals = (2, 12, 12), {}, {}
    w = torch.nn.init.dirac_(torch.zeros(2, 2, 3, 3)) + 0.1 * torch.randn(2, 2, 3, 3)
    for size in (3, 5, 7):
        layer = SelfNormalizingConv2d(2, 3, inverse_kernel_size=size, inverse_tracking="secant", neumann_terms=0)
        with torch.no_grad():
            layer.weight.copy_(w)
        angles[size] = degrees(log_det_gradient(layer, torch.randn(1, *shape)), dense_kernel_gradient(layer, shape))
        residuals[size] = float(layer.inverse_residual(shape, 100))
    assert angles[7] < angles[5] < angles[3]
    assert residuals[7] < residuals[5] < residuals[3]


def test_the_pull_of_the_penalty_on_a_tracked_kernel_is_that_of_the_penalty():
    torch.manual_seed(1)
    free, pulled = (
        SelfNormalizingConv2d(1, 3, inverse_tracking="newton", tracking_pull=p, neumann_terms=0) for p in (0.0, 5.0)
    )
    with torch.no_grad():
        free.weight.add_(0.1 * torch.randn_like(free.weight))
    pulled.load_state_dict({**free.state_dict(), "penalty_weight": torch.tensor(5.0)})
    x = torch.randn(4, 1, 6, 6)
    gradients = []
    for layer in (free, pulled):
        layer.learned = type(layer.learned)(inverse_tracking="newton", tracking_tolerance=10.0)
        z, log_det = layer(x)
        (z.square().flatten(1).sum(1) - log_det).mean().backward()
        gradients.append(layer.weight.grad)
    w = free.weight.detach().clone().requires_grad_()
    again = functional.conv2d(functional.conv2d(x, w, padding=1), free.inverse_weight, padding=1)
    penalty = 5.0 * (again - x).square().flatten(1).sum(1).mean()
    torch.testing.assert_close(gradients[1] - gradients[0], torch.autograd.grad(penalty, w)[0])


def test_averaged_weights_get_their_inverse():
    layer = SelfNormalizingConv2d(2, 1, inverse_tracking="newton")
    layer(torch.randn(3, 2, 4, 4))
    with torch.no_grad():
        layer.weight.mul_(2)
    refresh_inverses(layer)
    product = layer.operators.inverse.product(
        layer.inverse_weight, layer.operator.product(layer.weight, torch.ones(1, 2, 1, 1))
    )
    torch.testing.assert_close(product, torch.ones(1, 2, 1, 1))


@pytest.mark.parametrize("how", ["penalty", "newton", "secant"])
def test_a_loaded_layer_goes_on_bit_for_bit(how):
    torch.manual_seed(2)
    layer = SelfNormalizingDense(6, inverse_tracking=how, guard_every=2, multiplier="geco", neumann_terms=1)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    batches = torch.randn(8, 10, 6)
    for x in batches[:4]:
        step(layer, x, optimizer)
    twin = SelfNormalizingDense(6, inverse_tracking=how, guard_every=2, multiplier="geco", neumann_terms=1)
    twin.load_state_dict(layer.state_dict())
    twin_optimizer = torch.optim.Adam(twin.parameters(), lr=1e-2)
    twin_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one, its in ((layer, optimizer), (twin, twin_optimizer)):
        torch.manual_seed(3)
        for x in batches[4:]:
            step(one, x, its)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name]), name


def test_rademacher_probes_are_signs_without_a_mean():
    probes = rademacher(4000, (3,), torch.zeros(()))
    assert set(probes.unique().tolist()) == {-1.0, 1.0}
    assert (probes.T @ probes / 4000 - torch.eye(3)).abs().max() < 0.08


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SelfNormalizingConv2d(3, 3, groups=2), "groups that divide 3 channels, got 2"),
        (lambda: SelfNormalizingConv2d(3, 5, inverse_kernel_size=3), "an inverse kernel of at least 5"),
        (lambda: SelfNormalizingConv2d(3, inverse_kernel_size=4), "odd kernel_size"),
        (lambda: SelfNormalizingConv2d(3, dilation=0), "dilation ≥ 1"),
        (lambda: SelfNormalizingDense(3, inverse_tracking="newtn"), "did you mean 'newton'"),
        (lambda: SelfNormalizingDense(3, multiplier="geko"), "did you mean 'geco'"),
        (lambda: SelfNormalizingDense(3, tracking_tolerance=0.0), "flow.tracking_tolerance: expected a number above 0"),
        (lambda: SelfNormalizingDense(3, neumann_terms=-1), "flow.neumann_terms"),
        (lambda: SelfNormalizingDense(3, guard_every=0), "flow.guard_every"),
        (lambda: SelfNormalizingDense(3, multiplier_average=1.0), "flow.multiplier_average"),
    ],
)
def test_wrong_options_are_named(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_a_fit_that_cannot_be_better_is_not_made_again():
    """The residual of a fitted kernel never is zero: the tolerance alone would ask for a fit at each step."""
    layer = SelfNormalizingConv2d(2, 3, inverse_tracking="newton", tracking_tolerance=1e-6)
    with torch.no_grad():
        layer.weight.add_(0.1 * torch.randn_like(layer.weight))
        for factor in (1.0, 1 + 1e-9, 1 + 1e-9):
            layer.weight.mul_(factor)
            layer.follow((2, 8, 8))
        assert int(layer.tracking_steps) == 1
        layer.weight.mul_(1.5)
        layer.follow((2, 8, 8))
    assert int(layer.tracking_steps) == 2
