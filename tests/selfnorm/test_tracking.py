"""The strategies: Newton, Secant, the guard of Penalty, least squares, Neumann terms, one residual."""

import copy
import math

import pytest
import torch
from torch.nn import functional

from snflow import (
    Newton,
    Penalty,
    Secant,
    SelfNormalizingConv2d,
    SelfNormalizingDense,
    SelfNormalizingStridedConv2d,
    refresh_inverses,
)
from snflow.errors import ConfigError
from snflow.numerics.operators.conv import ConvOperator, least_squares_inverse
from snflow.numerics.operators.dense import DenseOperator, TransposedDenseOperator
from snflow.numerics.probes import rademacher
from snflow.selfnorm.gradient import Operators, _neumann
from snflow.selfnorm.newton import newton_schulz
from snflow.selfnorm.secant import secant_step
from snflow.selfnorm.tracking import WeightPair


def near_identity(size, scale, count=1):
    return torch.eye(size) + scale * torch.randn(count, size, size) / math.sqrt(size)


def residual(weight, inverse):
    return torch.eye(weight.shape[-1]) - weight @ inverse


def dense_pair(weight, inverse):
    """Of a dense layer, which keeps the transpose of R."""
    size = len(weight)
    return WeightPair(weight, inverse.mT, Operators(DenseOperator(), TransposedDenseOperator()), (size,))


def test_newton_squares_the_residual():
    weight = near_identity(20, 0.3, 3)
    inverse = torch.linalg.inv(weight) + 0.01 * torch.randn(3, 20, 20)
    before = residual(weight, inverse)
    torch.testing.assert_close(residual(weight, newton_schulz(weight, inverse)), before @ before)


def test_secant_is_the_nearest_matrix_that_undoes_the_probes():
    weight, inverse = near_identity(12, 0.4)[0], torch.eye(12)
    probes = torch.randn(12, 4)
    found = secant_step(weight[None], inverse[None], probes[None])[0]
    seen = weight @ probes
    torch.testing.assert_close(found @ seen, probes, rtol=0, atol=1e-9)
    # Any other solution differs by something that vanishes on the seen vectors: a step along it leads away.
    orthonormal, _ = torch.linalg.qr(seen)
    free = torch.randn(12, 12) @ (torch.eye(12) - orthonormal @ orthonormal.T)
    assert ((found - inverse) * free).sum().abs() < 1e-9
    # With as many probes as dimensions it is the inverse.
    whole = secant_step(weight[None], inverse[None], torch.randn(1, 12, 12))
    torch.testing.assert_close(whole, torch.linalg.inv(weight)[None], rtol=0, atol=1e-6)


def test_residual_is_the_frobenius_norm_and_finds_the_largest_direction():
    weight, inverse = near_identity(30, 0.2)[0], near_identity(30, 0.2)[0]
    wanted = (torch.eye(30) - inverse @ weight).norm() / math.sqrt(30)
    assert dense_pair(weight, inverse).residual(4000).size == pytest.approx(wanted.item(), rel=0.02)
    # One direction of size 3 in a hundred dimensions: small by the Frobenius norm, and no power of it vanishes.
    direction = functional.normalize(torch.randn(100), dim=0)
    lost = dense_pair(torch.eye(100) + 3 * torch.outer(direction, direction), torch.eye(100)).residual(8)
    assert lost.size < 0.5
    assert lost.growth == pytest.approx(3, rel=1e-6)
    assert not lost.contracts


def set_matrices(layer, weight, inverse):
    """Of a dense layer, which keeps the transpose of R, or of a 1×1 convolution; returns the shape of an event."""
    dense = isinstance(layer, SelfNormalizingDense)
    with torch.no_grad():
        layer.weight.copy_(weight.view_as(layer.weight))
        layer.inverse_weight.copy_((inverse.mT if dense else inverse).reshape(layer.weight.shape))
    return (len(weight),) if dense else (len(weight), 1, 1)


MATRICES = [SelfNormalizingDense, lambda size, **options: SelfNormalizingConv2d(size, 1, **options)]


@pytest.mark.parametrize("build", MATRICES)
def test_tracking_guard_and_diagnostics_agree_on_the_residual(build):
    """‖I − RW‖_F/√D, which is not ‖I − WR‖_F/√D."""
    layer, weight = build(6), torch.diag(torch.logspace(-1, 1, 6))
    inverse = torch.linalg.inv(weight)
    inverse[0, 5] = 0.2
    event_shape = set_matrices(layer, weight, inverse)
    wanted, other = (float((torch.eye(6) - m).norm() / math.sqrt(6)) for m in (inverse @ weight, weight @ inverse))
    assert wanted > 10 * other
    assert layer.weight_pair(event_shape).residual(20000).size == pytest.approx(wanted, rel=0.03)
    assert float(layer.inverse_residual(event_shape, 20000)) == pytest.approx(wanted, rel=0.03)
    # The step on the device is taken by the same number.
    for bound, moves in ((0.69, True), (0.71, False)):
        inverse[0, 5] = 0.2 * bound / wanted
        set_matrices(layer, weight, inverse)
        found = Newton().update_on_device(layer.weight_pair(event_shape))
        assert torch.equal(found, layer.inverse_weight) != moves


@pytest.mark.parametrize("build", MATRICES)
def test_a_secant_step_inverts_the_map_on_its_vectors(build, monkeypatch):
    """R W N = N, whether R or its transpose is kept."""
    drawn = []
    monkeypatch.setattr("snflow.selfnorm.secant.rademacher", lambda *a: drawn.append(rademacher(*a)) or drawn[-1])
    layer, weight = build(8), near_identity(8, 0.2)[0]
    event_shape = set_matrices(layer, weight, torch.eye(8))
    found = Secant(tolerance=0.1, probes=1).update(layer.weight_pair(event_shape))
    with torch.no_grad():
        layer.inverse_weight.copy_(found)
    vectors = drawn[0][0]
    assert vectors.shape[1] < 8
    error = layer.weight_pair(event_shape).error(vectors.mT.reshape(-1, *event_shape))
    torch.testing.assert_close(error, torch.zeros_like(error), rtol=0, atol=1e-8)


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
    fitted = sum(least_squares_inverse(w, start, a, g, shape) for _ in range(200)) / 200
    assert (fitted - wanted).abs().max() < 0.01
    one = least_squares_inverse(w, start, a, g, shape)
    assert (columns @ one.flatten() - torch.eye(len(matrix)).flatten()).norm() < 1.15 * least


def step(layer, x, optimizer):
    z, log_det = layer(x)
    loss = (0.5 * z.square().flatten(1).sum(1) - log_det).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


BUILDS = {
    "dense": (lambda how: SelfNormalizingDense(30, tracking=how()), (30,), 0.15),
    "1×1": (lambda how: SelfNormalizingConv2d(12, 1, tracking=how()), (12, 4, 4), 0.15),
    "1×1 in groups": (lambda how: SelfNormalizingConv2d(12, 1, groups=3, tracking=how()), (12, 4, 4), 0.15),
    "3×3": (lambda how: SelfNormalizingConv2d(2, 3, tracking=how()), (2, 8, 8), 0.35),
    "3×3 with 7×7": (
        lambda how: SelfNormalizingConv2d(2, 3, inverse_kernel_size=7, tracking=how()),
        (2, 8, 8),
        0.2,
    ),
    "strided": (lambda how: SelfNormalizingStridedConv2d(3, 2, tracking=how()), (3, 8, 8), 0.15),
}


@pytest.mark.parametrize("how", [Newton, Secant])
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
    inner.track(event_shape)
    assert float(inner.inverse_residual(event_shape, 200)) < bound
    assert int(inner.tracking.updates) > 0


def test_a_tracked_inverse_is_no_parameter_and_takes_the_whole_gradient():
    layer = SelfNormalizingDense(5, tracking=Newton())
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
    layer = SelfNormalizingDense(6, tracking=Secant(tolerance=1e-6))
    x = torch.randn(3, 6)
    layer(x)
    steps = int(layer.tracking.updates)
    assert steps == 1
    kept = layer.inverse_weight.clone()
    layer(x)
    with torch.no_grad():
        layer.weight.mul_(1.1)
    layer.eval()(x)
    assert int(layer.tracking.updates) == steps
    assert torch.equal(layer.inverse_weight, kept)
    layer.train()(x)
    assert int(layer.tracking.updates) == steps + 1


def test_a_lost_inverse_is_computed_anew():
    for how in (Newton, Secant):
        layer = SelfNormalizingDense(6, tracking=how())
        with torch.no_grad():
            layer.weight.copy_(3 * torch.linalg.qr(torch.randn(6, 6)).Q)
        layer(torch.randn(2, 6))
        torch.testing.assert_close(layer.inverse_matrix @ layer.weight, torch.eye(6))


def test_a_singular_or_broken_weight_leaves_the_last_inverse():
    layer = SelfNormalizingDense(4, tracking=Newton())
    layer(torch.randn(2, 4))
    kept = layer.inverse_weight.clone()
    for broken in (torch.zeros(4, 4), torch.full((4, 4), torch.nan)):
        with torch.no_grad():
            layer.weight.copy_(broken)
        layer(torch.randn(2, 4))
        assert torch.equal(layer.inverse_weight, kept)


@pytest.mark.parametrize(
    "build",
    [lambda how: SelfNormalizingDense(8, tracking=how), lambda how: SelfNormalizingConv2d(2, 3, tracking=how)],
)
def test_the_guard_repairs_a_lost_inverse_when_it_is_due(build):
    layer = build(Penalty(guard_every=3))
    x = torch.randn(4, 8) if isinstance(layer, SelfNormalizingDense) else torch.randn(4, 2, 6, 6)
    with torch.no_grad():
        layer.inverse_weight.zero_()
    for forward in range(1, 7):
        layer(x)
        assert int(layer.tracking.updates) == (forward >= 3)
    assert float(layer.inverse_residual(tuple(x.shape[1:]))) < 0.05
    assert isinstance(layer.inverse_weight, torch.nn.Parameter)


def test_a_guard_that_is_off_does_nothing():
    layer = SelfNormalizingDense(4, tracking=Penalty(guard=False, guard_every=1))
    with torch.no_grad():
        layer.inverse_weight.zero_()
    layer(torch.randn(2, 4))
    assert not layer.inverse_weight.any()
    assert int(layer.tracking.updates) == 0


def test_a_repair_between_two_forwards_does_not_break_the_backward_of_the_first():
    layer = SelfNormalizingDense(4, tracking=Penalty(guard_every=2))
    with torch.no_grad():
        layer.inverse_weight.zero_()
    loss = sum((z.square().sum(1) - log_det).mean() for z, log_det in (layer(torch.randn(3, 4)) for _ in range(2)))
    loss.backward()
    assert int(layer.tracking.updates) == 1
    assert layer.inverse_weight.grad is not None


def test_the_guards_count_survives_a_checkpoint():
    layer = SelfNormalizingDense(4, tracking=Penalty(guard_every=4))
    for _ in range(3):
        layer(torch.randn(2, 4))
    fresh = SelfNormalizingDense(4, tracking=Penalty(guard_every=4))
    fresh.load_state_dict(layer.state_dict())
    with torch.no_grad():
        fresh.inverse_weight.zero_()
    fresh(torch.randn(2, 4))
    assert int(fresh.tracking.updates) == 1


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
    layer = SelfNormalizingDense(5, tracking=Penalty(weight=0.0, neumann_terms=terms))
    w, r = near_identity(5, 0.3)[0], torch.eye(5)
    units = math.sqrt(5) * torch.eye(5)
    found = _neumann(w, r, units, layer.operators, layer.rule)
    error = torch.eye(5) - w.T @ r.T
    torch.testing.assert_close(found, r.T @ sum(torch.linalg.matrix_power(error, k) for k in range(1, terms + 1)))


@pytest.mark.parametrize("how", [Penalty, Newton, Secant])
def test_only_a_tracked_convolution_takes_a_neumann_term_by_itself(how):
    """Its inverse is not a convolution; that of a matrix or a 1×1 convolution is one of its kind."""
    tracked = how is not Penalty
    assert SelfNormalizingConv2d(2, 3, tracking=how()).rule.neumann_terms == int(tracked)
    assert SelfNormalizingConv2d(2, 3, tracking=how(neumann_terms=0)).rule.neumann_terms == 0
    assert SelfNormalizingConv2d(2, 1, tracking=how()).rule.neumann_terms == 0
    assert SelfNormalizingDense(2, tracking=how()).rule.neumann_terms == 0


def test_neumann_terms_turn_the_gradient_towards_the_exact_one():
    shape, angles = (2, 8, 8), {}
    base = SelfNormalizingConv2d(2, 3, tracking=Secant())
    with torch.no_grad():
        base.weight.add_(0.1 * torch.randn_like(base.weight))
    wanted = dense_kernel_gradient(base, shape)
    for terms in (0, 1, 4):
        layer = SelfNormalizingConv2d(2, 3, tracking=Secant(neumann_terms=terms, neumann_probes=2000))
        layer.load_state_dict(base.state_dict())
        angles[terms] = degrees(log_det_gradient(layer, torch.randn(2, *shape)), wanted)
    assert angles[1] < 0.6 * angles[0]
    assert angles[4] < 0.6 * angles[1]


def test_a_larger_inverse_kernel_comes_nearer():
    shape, angles, residuals = (2, 12, 12), {}, {}
    w = torch.nn.init.dirac_(torch.zeros(2, 2, 3, 3)) + 0.1 * torch.randn(2, 2, 3, 3)
    for size in (3, 5, 7):
        layer = SelfNormalizingConv2d(2, 3, inverse_kernel_size=size, tracking=Secant(neumann_terms=0))
        with torch.no_grad():
            layer.weight.copy_(w)
        angles[size] = degrees(log_det_gradient(layer, torch.randn(1, *shape)), dense_kernel_gradient(layer, shape))
        residuals[size] = float(layer.inverse_residual(shape, 100))
    assert angles[7] < angles[5] < angles[3]
    assert residuals[7] < residuals[5] < residuals[3]


def test_the_pull_of_the_penalty_on_a_tracked_kernel_is_that_of_the_penalty():
    torch.manual_seed(1)
    free, pulled = (
        SelfNormalizingConv2d(1, 3, tracking=Newton(tolerance=10.0, pull=p, neumann_terms=0)) for p in (0.0, 5.0)
    )
    with torch.no_grad():
        free.weight.add_(0.1 * torch.randn_like(free.weight))
    pulled.load_state_dict({**free.state_dict(), "tracking.penalty_weight": torch.tensor(5.0)})
    x = torch.randn(4, 1, 6, 6)
    gradients = []
    for layer in (free, pulled):
        z, log_det = layer(x)
        (z.square().flatten(1).sum(1) - log_det).mean().backward()
        gradients.append(layer.weight.grad)
    w = free.weight.detach().clone().requires_grad_()
    again = functional.conv2d(functional.conv2d(x, w, padding=1), free.inverse_weight, padding=1)
    penalty = 5.0 * (again - x).square().flatten(1).sum(1).mean()
    torch.testing.assert_close(gradients[1] - gradients[0], torch.autograd.grad(penalty, w)[0])


def test_averaged_weights_get_their_inverse():
    layer = SelfNormalizingConv2d(2, 1, tracking=Newton())
    layer(torch.randn(3, 2, 4, 4))
    with torch.no_grad():
        layer.weight.mul_(2)
    refresh_inverses(layer)
    product = layer.operators.inverse.product(
        layer.inverse_weight, layer.operator.product(layer.weight, torch.ones(1, 2, 1, 1))
    )
    torch.testing.assert_close(product, torch.ones(1, 2, 1, 1))


@pytest.mark.parametrize(
    "how",
    [
        *(
            Penalty(guard_every=2, multiplier=name, neumann_terms=1, multiplier_interval=3)
            for name in ("constant", "geco", "differential", "augmented_lagrangian")
        ),
        Newton(neumann_terms=1),
        Secant(neumann_terms=1),
    ],
)
def test_a_loaded_layer_goes_on_bit_for_bit(how):
    torch.manual_seed(2)
    layer = SelfNormalizingDense(6, tracking=how)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    batches = torch.randn(8, 10, 6)
    for x in batches[:4]:
        step(layer, x, optimizer)
    twin = SelfNormalizingDense(6, tracking=how)
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
        (lambda: SelfNormalizingConv2d(3, 5, 3), "SelfNormalizingConv2d: expected arguments of .*too many positional"),
        (lambda: SelfNormalizingDense(64, 32), "SelfNormalizingDense: expected arguments of .*too many positional"),
        (lambda: SelfNormalizingDense(3, trackin=Newton()), "did you mean 'tracking'"),
        (lambda: SelfNormalizingDense(3, tracking="newton"), "tracking to be a strategy, got 'newton'"),
        (lambda: SelfNormalizingDense(3, tracking=Newton), "tracking to be a strategy"),
        (lambda: Penalty(multiplier="geko"), "Penalty: expected multiplier .* did you mean 'geco'"),
        (lambda: Penalty(weight=-1), "Penalty: expected weight ≥ 0 and finite, got -1; use 1, as in the paper"),
        (lambda: Penalty(neumann_terms=-1), "Penalty: expected neumann_terms ≥ 0"),
        (lambda: Penalty(guard_every=0), "Penalty: expected guard_every ≥ 1"),
        (lambda: Penalty(guard_bound=0), "Penalty: expected guard_bound > 0"),
        (lambda: Penalty(multiplier_average=1.0), "Penalty: expected multiplier_average in"),
        (lambda: Penalty(multiplier="geco", multiplier_damping=1.0), "multiplier_damping with"),
        (lambda: Penalty(tolerance=0.1), "Penalty: expected a keyword argument of"),
        (lambda: Newton(tolerance=0.0), "Newton: expected tolerance > 0, got 0.0"),
        (lambda: Newton(pull=-1.0), "Newton: expected pull ≥ 0"),
        (lambda: Secant(probes=0), "Secant: expected probes ≥ 1"),
        (lambda: Secant(tolerence=0.1), "Secant: .*did you mean 'tolerance'"),
    ],
)
def test_wrong_options_are_named(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_a_fit_that_cannot_be_better_is_not_made_again():
    """The residual of a fitted kernel never is zero: the tolerance alone would ask for a fit at each step."""
    layer = SelfNormalizingConv2d(2, 3, tracking=Newton(tolerance=1e-6))
    with torch.no_grad():
        layer.weight.add_(0.1 * torch.randn_like(layer.weight))
        for factor in (1.0, 1 + 1e-9, 1 + 1e-9):
            layer.weight.mul_(factor)
            layer.track((2, 8, 8))
        assert int(layer.tracking.updates) == 1
        layer.weight.mul_(1.5)
        layer.track((2, 8, 8))
    assert int(layer.tracking.updates) == 2


def test_a_strategy_is_copied_by_each_layer():
    strategy = Newton(tolerance=1e-6)
    first, second = (SelfNormalizingDense(4, tracking=strategy) for _ in range(2))
    assert first.tracking is not strategy
    first(torch.randn(3, 4))
    assert int(first.tracking.updates) == 1
    assert int(second.tracking.updates) == int(strategy.updates) == 0
