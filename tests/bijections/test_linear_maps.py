"""Exact log-determinants that are never stale, singular weights, and the three inversion methods."""

import copy
import math
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn import functional

from snflow import (
    Chain,
    Conv2d,
    Dense,
    LULinear,
    QRLinear,
    Reversible,
    SelfNormalizingConv2d,
    SelfNormalizingDense,
    SmoothLeakyReLU,
    SVDLinear,
    TriangularLinear,
    layer_diagnostics,
)
from snflow.errors import ConfigError, ConvergenceError, NotInvertibleError, NumericalWarning
from snflow.numerics.factorization import LUFactor
from snflow.numerics.krylov import gmres, refine
from snflow.numerics.operators.conv import ConvOperator
from snflow.numerics.operators.conv_rows import RowFactor

LAYERS = {
    "SelfNormalizingDense": (lambda: SelfNormalizingDense(6), (6,)),
    "Dense": (lambda: Dense(6), (6,)),
    "SelfNormalizingConv2d": (lambda: SelfNormalizingConv2d(2), (2, 3, 4)),
    "SelfNormalizingConv2d 1×1": (lambda: SelfNormalizingConv2d(3, 1), (3, 3, 4)),
    "Conv2d": (lambda: Conv2d(2), (2, 3, 4)),
}


def true_log_det(layer, x):
    """By the dense matrix of the layer, columns from unit vectors."""
    size = x[0].numel()
    units = torch.eye(size).view(size, *x.shape[1:]).to(layer.weight)
    weight = layer.weight.detach()
    images = units @ weight.T if x.dim() == 2 else functional.conv2d(units, weight, padding=weight.shape[-1] // 2)
    return torch.linalg.slogdet(images.flatten(1).double())[1]


@pytest.fixture(params=LAYERS.values(), ids=LAYERS)
def layer_and_data(request):
    build, shape = request.param
    return build().eval(), torch.randn(4, *shape)


def set_by_copy(layer, weight):
    with torch.no_grad():
        layer.weight.copy_(weight)


def set_by_data(layer, weight):
    layer.weight.data = weight.clone()


def set_in_place_through_data(layer, weight):
    layer.weight.data.copy_(weight)


def set_by_load(layer, weight):
    layer.load_state_dict({**layer.state_dict(), "weight": weight})


def set_by_fused_step(layer, weight):
    layer.weight.grad = layer.weight.detach() - weight
    torch.optim.Adam([layer.weight], lr=0.1, fused=True).step()


CHANGES = [set_by_copy, set_by_data, set_in_place_through_data, set_by_load, set_by_fused_step]


@pytest.mark.parametrize("change", CHANGES)
def test_exact_log_det_follows_every_way_to_change_a_weight(layer_and_data, change):
    layer, x = layer_and_data
    before = layer(x)[1][0]
    change(layer, layer.weight.detach() + 0.1 * torch.randn_like(layer.weight))
    after = layer(x)[1][0]
    assert after != before
    torch.testing.assert_close(after, true_log_det(layer, x), rtol=0, atol=1e-10)
    torch.testing.assert_close(layer.inverse(layer(x)[0])[0], x, rtol=0, atol=1e-10)


def test_exact_log_det_follows_a_dtype_move(layer_and_data):
    layer, x = layer_and_data
    double = layer(x)[1][0]
    layer.float()
    single = layer(x.float())[1][0]
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)


@pytest.mark.parametrize("build", [lambda: SelfNormalizingConv2d(2), lambda: Conv2d(2, 1)])
@pytest.mark.parametrize("training", [True, False])
def test_log_det_follows_the_image_size(build, training):
    layer = build().train(training)
    set_by_copy(layer, layer.weight + 0.1 * torch.randn_like(layer.weight))
    for size in [(4, 4), (3, 5), (4, 4)]:
        x = torch.randn(2, 2, *size)
        torch.testing.assert_close(layer(x)[1][0], true_log_det(layer, x), rtol=0, atol=1e-10)


def test_exact_log_det_is_computed_once_a_weight(layer_and_data, monkeypatch):
    layer, x = layer_and_data
    layer(x)
    monkeypatch.setattr(torch.linalg, "lu_factor_ex", lambda *_: pytest.fail("factorized again"))
    layer(x)
    layer.inverse(x)


def test_training_value_is_the_last_exact_one_and_survives_a_checkpoint():
    layer = SelfNormalizingDense(6)
    x = torch.randn(4, 6)
    first = layer(x)[1][0]
    torch.testing.assert_close(first, true_log_det(layer, x), rtol=0, atol=1e-12)
    set_by_copy(layer, layer.weight + 0.2 * torch.randn(6, 6))
    assert layer(x)[1][0] == first
    fresh = SelfNormalizingDense(6)
    fresh(x)
    fresh.load_state_dict(layer.state_dict())
    assert fresh(x)[1][0] == first
    exact = layer.eval()(x)[1][0].item()
    assert exact != first.item()
    assert layer.train()(x)[1][0].item() == exact


def test_a_loaded_value_is_not_taken_for_another_image_size():
    small, wide = torch.randn(2, 2, 3, 3), torch.randn(2, 2, 3, 5)
    trained, layer = SelfNormalizingConv2d(2), SelfNormalizingConv2d(2)
    trained(small)
    layer(wide)
    layer.load_state_dict(trained.state_dict())
    torch.testing.assert_close(layer(wide)[1][0], true_log_det(layer, wide), rtol=0, atol=1e-10)


@pytest.mark.parametrize("build", [lambda: SelfNormalizingDense(6), lambda: SelfNormalizingConv2d(2)])
def test_diagnostics_measure_the_learned_inverse(build):
    layer = build()
    x = torch.randn(5, 6) if isinstance(layer, SelfNormalizingDense) else torch.randn(5, 2, 3, 4)
    with torch.no_grad():
        layer.inverse_weight += 0.1 * torch.randn_like(layer.inverse_weight)
    z = layer(x)[0]
    size, shape, operator = x[0].numel(), x.shape[1:], layer.operator
    with torch.no_grad():
        back = layer.decode(z, inverse="learned")
        units = torch.eye(size).view(size, *shape)
        cycle = layer.operators.inverse.product(layer.inverse_weight, operator.product(layer.weight, units)) - units
    measured = layer_diagnostics(Chain([layer]))["layers.0"]
    assert measured.reconstruction_error == pytest.approx((back - x).square().flatten(1).sum(1).mean().item())
    exact = (cycle.square().sum() / size).sqrt().item()
    assert float(layer.inverse_residual(tuple(shape), probes=20000)) == pytest.approx(exact, rel=0.02)
    assert measured.inverse_residual == pytest.approx(float(layer.inverse_residual(tuple(shape))))


@pytest.mark.parametrize("rule", ["exact", "relative"])
def test_dense_training_gradient(rule):
    layer = Dense(5, log_det_rule=rule)
    with torch.no_grad():
        layer.weight += 0.3 * torch.randn(5, 5)
    x = torch.randn(8, 5, requires_grad=True)
    z, log_det = layer(x)
    (z.square().sum(1) / 2 - log_det).mean().backward()
    w, delta, s = layer.weight.detach(), z.detach() / 8, (x @ layer.weight.T).detach()
    euclidean = delta.T @ x.detach() - torch.linalg.inv(w).T
    wanted = euclidean if rule == "exact" else delta.T @ s @ w - w
    torch.testing.assert_close(layer.weight.grad, wanted, rtol=1e-10, atol=1e-12)
    if rule == "relative":
        torch.testing.assert_close(layer.weight.grad, euclidean @ w.T @ w, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(x.grad, delta @ w, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(layer.bias.grad, delta.sum(0), rtol=1e-10, atol=1e-12)


def test_exact_log_det_has_second_derivatives():
    layer = Dense(3).eval()
    x = torch.randn(2, 3)

    def log_det(weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x,))[1].sum()

    weight = (torch.eye(3) + 0.3 * torch.randn(3, 3)).requires_grad_()
    torch.autograd.gradgradcheck(log_det, (weight,), atol=1e-6)


def test_singular_weight_is_named(layer_and_data):
    layer, x = layer_and_data
    set_by_copy(layer, torch.zeros_like(layer.weight))
    name = type(layer).__name__
    with pytest.raises(NotInvertibleError, match=f"{name}: expected an invertible weight, got a singular"):
        layer(x)
    set_by_copy(layer, torch.full_like(layer.weight, torch.nan))
    with pytest.raises(NotInvertibleError, match="non-finite"):
        layer.inverse(x)


@pytest.mark.parametrize("condition", [1e1, 1e4, 1e8])
def test_inverse_error_stays_within_the_condition_number(condition):
    layer = Dense(20).eval()
    u, v = (torch.linalg.qr(torch.randn(20, 20))[0] for _ in range(2))
    set_by_copy(layer, u @ torch.diag(torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), 20)) @ v)
    x = torch.randn(5, 20)
    error = (layer.inverse(layer(x)[0])[0] - x).abs().max()
    assert error <= 5 * condition * torch.finfo(torch.float64).eps * x.abs().max()


def with_condition(condition, size=20):
    u, v = (torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))[0] for _ in range(2))
    return u @ torch.diag(torch.logspace(0, -math.log10(condition), size, dtype=torch.float64)) @ v


def warnings_of(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    return result, [str(w.message) for w in caught if issubclass(w.category, NumericalWarning)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["exact", "refined"])
def test_an_inverse_is_accurate_or_warns(dtype, method):
    inaccurate = 0
    for exponent in range(1, 17):
        torch.manual_seed(exponent)
        weight = with_condition(10.0**exponent)
        layer = SelfNormalizingDense(20).to(dtype).eval()
        set_by_copy(layer, weight)
        if method == "refined":
            layer.inverse_weight.data.copy_(torch.linalg.inv(weight).T)
        x = torch.randn(5, 20, dtype=dtype)
        z = layer.encode(x)
        try:
            back, said = warnings_of(lambda layer=layer, z=z: layer.decode(z, inverse=method))
        except ConvergenceError:
            continue
        error = ((back - x).norm(dim=1) / x.norm(dim=1)).max()
        assert error <= 1e-2 or said, f"condition 1e{exponent}: off by {error:.1e} without a word"
        assert not said or exponent > (3 if dtype == torch.float32 else 12)
        assert warnings_of(lambda layer=layer, z=z: layer.decode(z, inverse=method))[1] == []  # once
        inaccurate += bool(error > 1e-2)
    assert inaccurate


@pytest.mark.parametrize("build", [TriangularLinear, LULinear, QRLinear, SVDLinear])
def test_factored_layers_that_are_ill_conditioned_warn_once_for_each_weight(build):
    torch.manual_seed(0)
    layer, z = build(6).float(), torch.randn(3, 6, dtype=torch.float32)
    assert warnings_of(lambda: layer.decode(z))[1] == []
    diagonal = layer.log_singular_values if build is SVDLinear else layer.log_diagonal
    with torch.no_grad():
        diagonal[2] -= 16
    assert len(warnings_of(lambda: layer.decode(z))[1]) == 1
    assert warnings_of(lambda: (layer.decode(z), layer.inverse(z)))[1] == []
    assert warnings_of(lambda: layer.double().decode(z.double()))[1] == []


def test_the_condition_number_is_estimated_within_a_factor_of_three():
    for condition in (1e0, 1e1, 1e4, 1e8, 1e12):
        found = LUFactor.of(with_condition(condition, 40), "test").accuracy.condition
        assert condition / 3 < found < 1.01 * condition


def test_a_weight_that_is_singular_up_to_rounding_warns():
    thin = torch.randn(10, 9)
    for dtype in (torch.float32, torch.float64):
        layer = Dense(10).to(dtype).eval()
        set_by_copy(layer, thin @ torch.randn(9, 10))
        with pytest.warns(NumericalWarning, match=r"Dense: the condition number .* singular up to rounding"):
            layer(torch.randn(2, 10, dtype=dtype))


def test_a_convolution_that_is_ill_conditioned_warns_by_rows_too():
    layer = Conv2d(1).float().eval()
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0, 1] = torch.tensor([-2.6, 1.0, 0.0])  # each row of the image: condition 2.6¹⁵ and more
    layer(torch.randn(1, 1, 16, 16, dtype=torch.float32))
    assert isinstance(layer._factor.of(layer.weight, (1, 16, 16)), RowFactor)
    with pytest.warns(NumericalWarning, match=r"Conv2d: the condition number .* fewer than two correct digits"):
        layer.decode(torch.randn(1, 1, 16, 16, dtype=torch.float32))


@pytest.mark.parametrize("method", ["exact", "refined"])
@pytest.mark.parametrize("build", [lambda: SelfNormalizingDense(5), lambda: SelfNormalizingConv2d(2)])
def test_inverses_have_the_gradients_of_the_inverse(build, method):
    layer = build().eval()
    with torch.no_grad():
        layer.weight += 0.03 * torch.randn_like(layer.weight)
    z = torch.randn(2, 5) if isinstance(layer, SelfNormalizingDense) else torch.randn(2, 2, 3, 3)
    torch.autograd.gradcheck(
        lambda v, *_: layer.inverse(v, inverse=method)[0], (z.requires_grad_(), layer.weight, layer.bias), atol=1e-6
    )


@pytest.mark.parametrize("build", [lambda: SelfNormalizingDense(5), lambda: SelfNormalizingConv2d(2)])
def test_learned_inverse_reports_the_log_det_of_the_map_that_it_applies(build):
    layer = build().eval()
    with torch.no_grad():
        layer.inverse_weight += 0.1 * torch.randn_like(layer.inverse_weight)
    z = torch.randn(2, 5) if isinstance(layer, SelfNormalizingDense) else torch.randn(2, 2, 3, 3)
    x, log_det = layer.inverse(z, inverse="learned")
    jacobian = torch.autograd.functional.jacobian(lambda v: layer.decode(v[None], inverse="learned")[0], z[0])
    torch.testing.assert_close(log_det[0], torch.linalg.slogdet(jacobian.reshape(z[0].numel(), -1))[1])
    operator = layer.operators.inverse
    torch.testing.assert_close(x, operator.product(layer.inverse_weight, z - layer._bias_like(z)))


def test_refined_needs_no_factorization_to_sample(monkeypatch):
    layer = SelfNormalizingDense(50).eval()
    x = torch.randn(3, 50)
    z = layer.operator.product(layer.weight, x)
    monkeypatch.setattr(torch.linalg, "lu_factor_ex", lambda *_: pytest.fail("factorized"))
    with torch.no_grad():
        torch.testing.assert_close(layer.decode(z, inverse="refined"), x, rtol=0, atol=1e-11)


def test_refined_stops_at_the_tolerance_that_is_asked_for():
    layer = SelfNormalizingDense(50).eval()
    with torch.no_grad():
        layer.inverse_weight.mul_(0.9)
    z = torch.randn(3, 50)
    with torch.no_grad():
        residual = {}
        for tolerance in (1e-2, 1e-6, None):
            layer.refine_tolerance = tolerance
            residual[tolerance] = ((layer(layer.decode(z, inverse="refined"))[0] - z).norm(dim=1) / z.norm(dim=1)).max()
    assert 1e-6 < residual[1e-2] <= 1e-2
    assert 1e-12 < residual[1e-6] <= 1e-6
    assert residual[None] < 1e-12


def test_refined_turns_to_a_krylov_space_when_the_learned_inverse_is_poor():
    layer = SelfNormalizingDense(20).eval()
    with torch.no_grad():
        layer.weight.copy_(torch.linalg.qr(torch.randn(20, 20))[0] @ torch.diag(torch.linspace(1, 3, 20)))
    x = torch.randn(6, 20)
    z = layer(x)[0]
    with torch.no_grad():
        torch.testing.assert_close(layer.decode(z, inverse="refined"), x, rtol=0, atol=1e-9)


def test_refined_says_when_it_does_not_converge():
    a = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    with pytest.raises(ConvergenceError, match=r"layer 3: expected a refined inverse .* got 2 of 2 rows above it"):
        refine(lambda x: x @ a.T, lambda u: u, torch.ones(2, 3), "layer 3")


def test_gmres_solves_each_row_on_its_own():
    a = torch.eye(30) + 0.4 * torch.randn(30, 30) / 30**0.5
    x = torch.randn(5, 30) * torch.logspace(-6, 6, 5)[:, None]
    y = x @ a.T
    solution = gmres(lambda v: v @ a.T, lambda u: u, y, 1e-13 * y.norm(dim=1), 100)
    torch.testing.assert_close(solution, x, rtol=1e-9, atol=0)


def test_gmres_keeps_its_basis_orthogonal_on_a_poorly_conditioned_operator():
    u, v = (torch.linalg.qr(torch.randn(40, 40))[0] for _ in range(2))
    a = u @ torch.diag(torch.logspace(0, -4, 40)) @ v
    y = torch.randn(4, 40) @ a.T
    x = gmres(lambda t: t @ a.T, lambda t: t, y, 1e-14 * y.norm(dim=1), 40)
    assert ((x @ a.T - y).norm(dim=1) <= 1e-13 * y.norm(dim=1)).all()


def test_the_inversion_method_reaches_every_layer_that_has_a_choice():
    inner = Chain([SmoothLeakyReLU(), SelfNormalizingDense(3)])
    chain = Chain([SelfNormalizingDense(3), Reversible(inner)])
    with torch.no_grad():
        for layer in (chain[0], inner[1]):
            layer.inverse_weight.mul_(1.1)
    assert chain.has_inversion_methods
    assert not Chain([SmoothLeakyReLU()]).has_inversion_methods
    z = torch.randn(4, 3)
    by_hand = chain[0].decode(inner[0].decode(inner[1].decode(z, inverse="learned")), inverse="learned")
    torch.testing.assert_close(chain.decode(z, inverse="learned"), by_hand)
    torch.testing.assert_close(chain.inverse(z, inverse="learned")[0], by_hand)
    assert not torch.allclose(chain.decode(z), by_hand)
    torch.testing.assert_close(chain.decode(z), chain.decode(z, inverse="exact"))
    with pytest.raises(ConfigError, match="did you mean 'learned'"):
        chain.decode(z, inverse="learnt")


def test_copies_do_not_carry_factorizations():
    layer = Dense(6).eval()
    layer(torch.randn(1, 6))
    twin = copy.deepcopy(layer)
    assert layer._factor._kept._entry is not None
    assert twin._factor._kept._entry is None
    set_by_copy(twin, 2 * twin.weight)
    assert layer(torch.randn(1, 6))[1] != twin(torch.randn(1, 6))[1]
    assert twin.log_det_value != layer.log_det_value


@pytest.mark.parametrize("build", [lambda: Conv2d(2), lambda: Dense(4), lambda: SelfNormalizingConv2d(2)])
def test_a_singular_map_encodes_and_has_no_density(build):
    layer = build().eval()
    torch.nn.init.zeros_(layer.weight)
    x = torch.randn(3, *((4,) if isinstance(layer, Dense) else (2, 4, 4)))
    torch.testing.assert_close(layer.encode(x), layer._bias_like(x).expand_as(x))
    for mode in (True, False):
        with pytest.raises(NotInvertibleError, match="a singular one"):
            layer.train(mode)(x)


def test_an_encoding_factorizes_nothing(layer_and_data, monkeypatch):
    layer, x = layer_and_data
    z = layer(x)[0]
    set_by_copy(layer, layer.weight.clone())
    monkeypatch.setattr(torch.linalg, "lu_factor_ex", lambda *_: pytest.fail("factorized"))
    monkeypatch.setattr(torch.linalg, "slogdet", lambda *_: pytest.fail("determinant computed"))
    for mode in (True, False):
        assert torch.equal(copy.deepcopy(layer).train(mode).encode(x), z)


@pytest.mark.parametrize("training", [True, False])
def test_threads_with_images_of_different_sizes_get_their_own_log_dets(training):
    layer = SelfNormalizingConv2d(1).train(training)
    set_by_copy(layer, layer.weight + 0.2 * torch.randn_like(layer.weight))
    images = [torch.randn(1, 1, size, size) for size in range(2, 10)]
    wanted = [true_log_det(layer, x).item() for x in images]

    def run(x):
        with torch.no_grad():
            return [layer(x)[1].item() for _ in range(20)]

    with ThreadPoolExecutor(len(images)) as pool:
        for found, value in zip(pool.map(run, images), wanted, strict=True):
            assert found == pytest.approx([value] * len(found), abs=1e-9)


def test_a_value_computed_in_inference_mode_serves_training():
    layer = SelfNormalizingConv2d(2).eval()
    x = torch.randn(2, 2, 3, 3)
    with torch.inference_mode():
        z = layer(x)[0]
    layer(x)[1].sum().backward()
    layer.decode(z.clone()).sum().backward()
    layer.train()(x)[1].sum().backward()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SelfNormalizingConv2d(2, 4), "SelfNormalizingConv2d: expected an odd kernel_size.*got 4; use 3 or 5"),
        (lambda: Conv2d(2, 0), "Conv2d: expected an odd kernel_size.*got 0"),
        (lambda: Dense(0), "Dense: expected features ≥ 1, got 0"),
        (lambda: Dense(3, log_det_rule="exakt"), "did you mean 'exact'"),
        (
            lambda: Conv2d(3, log_det_rule="relative"),
            "expected log_det_rule to be one of exact, exact_by_rows, got 'relative'",
        ),
        (lambda: SelfNormalizingDense(3, initialization="orthogonl"), "did you mean 'orthogonal'"),
        (lambda: Dense(64, False), "Dense: expected arguments of .*too many positional"),
        (lambda: Dense(3, log_det_rul="exact"), "did you mean 'log_det_rule'"),
        (lambda: Chain(Dense(3), SmoothLeakyReLU()), r"Chain\(Dense, SmoothLeakyReLU\); write Chain\(\[Dense"),
        (lambda: Chain(Dense(3)), r"got Chain\(Dense\); write Chain\(\[Dense\]\)"),
    ],
)
def test_wrong_arguments_are_named(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize(
    ("kernel", "shape"), [(1, (3, 4, 5)), (3, (2, 6, 5)), (3, (2, 4, 9)), (5, (1, 8, 4)), (3, (2, 2, 2))]
)
def test_a_convolution_trained_by_rows_is_the_one_trained_by_its_matrix(kernel, shape):
    """Images that are high, wide, and too small for rows."""
    whole = Conv2d(shape[0], kernel).double()
    with torch.no_grad():
        whole.weight.add_(0.1 * torch.randn_like(whole.weight))
    by_rows = Conv2d(shape[0], kernel, log_det_rule="exact_by_rows").double()
    by_rows.load_state_dict(whole.state_dict())
    x = torch.randn(3, *shape)
    found = []
    for layer in (whole, by_rows):
        z, log_det = layer.train()(x)
        gradients = torch.autograd.grad(
            z.square().sum() + (log_det * torch.arange(3.0)).sum(), list(layer.parameters())
        )
        found.append((z, log_det, *gradients))
    for wanted, got in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


def test_by_rows_the_matrix_is_never_built(monkeypatch):
    layer = Conv2d(1, log_det_rule="exact_by_rows")
    monkeypatch.setattr(ConvOperator, "block", lambda *_: pytest.fail("the whole matrix was built"))
    layer(torch.randn(2, 1, 12, 12))
    assert "log_det_rule='exact_by_rows'" in repr(layer)
