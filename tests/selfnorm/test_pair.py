"""Any pair of networks: the surrogate's gradient, its bias, the ways back, the estimates."""

import math

import pytest
import torch
from torch import nn

from snflow import Flow, SelfNormalizing, StandardNormal, flows, layer_diagnostics
from snflow.errors import ConfigError, ConvergenceError, ShapeError
from snflow.nets import ResidualMLP
from snflow.numerics.jacobian import jacobian, jacobian_log_det, lanczos_log_det
from snflow.numerics.probes import draw_probes
from snflow.selfnorm.pair import surrogate


class Sinh(nn.Module):
    """z = sinh(a x), with an inverse in closed form."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(a)

    def forward(self, x):
        return torch.sinh(x @ self.a.T)


class Asinh(nn.Module):
    """The inverse of Sinh, up to ``error``."""

    def __init__(self, a, error=0.0, direction=None):
        super().__init__()
        self.inverse, self.error = torch.linalg.inv(a), error
        self.direction = torch.zeros_like(a) if direction is None else direction

    def forward(self, z):
        y = torch.asinh(z)
        return y @ self.inverse.T + self.error * torch.sin(y @ self.direction.T)


def exact_gradients(net, x):
    return torch.autograd.grad(jacobian_log_det(net, x).sum(), [net.a, x])


def surrogate_gradients(net, inverse, x, probes):
    s = surrogate(net, inverse, x, probes, with_jacobian=False)
    return torch.autograd.grad(s.log_det.sum(), [net.a, x])


def all_units(x):
    """Probes for which E ννᵀ = I holds exactly: the mean over them is the trace."""
    size = x[0].numel()
    return math.sqrt(size) * torch.eye(size)[:, None].expand(size, *x.shape)


@pytest.mark.parametrize("kind", ["rademacher", "gaussian", "orthogonal"])
def test_the_gradient_is_unbiased_when_g_is_the_inverse(kind):
    a = torch.eye(3) + 0.3 * torch.randn(3, 3)
    net, inverse, x = Sinh(a), Asinh(a), 0.5 * torch.randn(2, 3)
    x.requires_grad_()
    wanted = exact_gradients(net, x)
    rows = 3000
    wide = x.detach().repeat(rows, 1).requires_grad_()
    probes = draw_probes(kind, 1, wide)
    # One gradient a repetition, by hand: ∂/∂a and ∂/∂x of νᵀ J_g J_f ν for each copy of the batch.
    s = surrogate(net, inverse, wide, probes, with_jacobian=False)
    (by_x,) = torch.autograd.grad(s.log_det.sum(), wide, retain_graph=True)
    samples = by_x.view(rows, 2, 3)
    error = (samples.mean(0) - wanted[1]).abs() / (samples.std(0) / math.sqrt(rows))
    assert error.max() < 4.5
    halves = [torch.autograd.grad(part.sum(), net.a, retain_graph=True)[0] for part in s.log_det.view(50, -1)]
    by_a = torch.stack(halves) / (rows / 50)
    error = (by_a.mean(0) - wanted[0]).abs() / (by_a.std(0) / math.sqrt(50))
    assert error.max() < 4.5


def test_with_all_unit_vectors_the_gradient_is_exact():
    a = torch.eye(4) + 0.2 * torch.randn(4, 4)
    net, x = Sinh(a), torch.randn(3, 4, requires_grad=True)
    for got, wanted in zip(surrogate_gradients(net, Asinh(a), x, all_units(x)), exact_gradients(net, x), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_the_bias_falls_linearly_with_the_error_of_the_inverse():
    a, direction = torch.eye(3) + 0.2 * torch.randn(3, 3), torch.randn(3, 3)
    net, x = Sinh(a), torch.randn(4, 3, requires_grad=True)
    wanted = exact_gradients(net, x)[0]
    bias, distance = {}, {}
    for error in (1e-2, 1e-3):
        inverse = Asinh(a, error, direction)
        bias[error] = float((surrogate_gradients(net, inverse, x, all_units(x))[0] - wanted).norm())
        distance[error] = float((inverse(net(x)) - x).norm().detach())
    assert bias[1e-2] / bias[1e-3] == pytest.approx(10, rel=1e-3)
    assert distance[1e-2] / distance[1e-3] == pytest.approx(10, rel=1e-3)


def small_pair(**options):
    torch.manual_seed(5)
    f, g = ResidualMLP(3, width=8, blocks=1), ResidualMLP(3, width=8, blocks=1)
    with torch.no_grad():
        for p in [*f.parameters(), *g.parameters()]:
            p.add_(0.05 * torch.randn_like(p))
    return SelfNormalizing(f, g, (3,), **options)


@pytest.mark.parametrize("scaling", [1.0, 1 / 3, 1024.0])
@pytest.mark.parametrize("input_needs_gradient", [True, False])
def test_the_update_is_the_formula_written_out_with_dense_jacobians(scaling, input_needs_gradient):
    layer = small_pair(penalty_weight=3.0, jacobian_penalty=0.7, probes=2)
    x, weights = torch.randn(4, 3), torch.linspace(0.5, 2, 4)
    f, g = layer.forward_net, layer.inverse_net
    weights[0] *= -1  # a row whose likelihood is minimized; its penalties are minimized all the same
    torch.manual_seed(7)
    start = x.clone().requires_grad_(input_needs_gradient)
    z, log_det = layer(start)
    parameters = [*f.parameters(), *g.parameters(), *([start] if input_needs_gradient else [])]
    got = torch.autograd.grad(scaling * (weights * (z.square().sum(1) - log_det)).sum(), parameters)

    torch.manual_seed(7)
    probes = draw_probes("rademacher", 2, x)
    leaf = x.clone().requires_grad_(input_needs_gradient)
    j_f = jacobian(f, leaf)
    j_g = jacobian(g, f(x)).detach()
    trace = torch.einsum("pbi,bij,bjk,pbk->b", probes, j_g, j_f, probes) / 2
    back, fixed = g(f(x)), jacobian(lambda v: g(f(v)), x)
    cycle = (torch.einsum("bij,pbj->pbi", fixed, probes) - probes).square().sum(2).mean(0)
    penalty = 3.0 * (back - x).square().sum(1) + 0.7 * cycle
    loss = scaling * (weights * (f(leaf).square().sum(1) - trace) + weights.abs() * penalty).sum()
    wanted = torch.autograd.grad(loss, [*f.parameters(), *g.parameters(), *([leaf] if input_needs_gradient else [])])
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9 * scaling)


def test_the_value_in_training_is_the_last_exact_mean():
    layer = small_pair().eval()
    _, exact = layer(torch.randn(5, 3))
    _, log_det = layer.train()(torch.randn(4, 3))
    torch.testing.assert_close(log_det, exact.mean().expand(4))


def test_the_penalty_does_not_move_what_comes_before():
    layer = small_pair(penalty_weight=1e6)
    x = torch.randn(3, 3, requires_grad=True)
    torch.manual_seed(1)
    with_penalty = torch.autograd.grad(layer(x)[1].sum(), x)[0]
    layer.penalty_weight.zero_()
    torch.manual_seed(1)
    torch.testing.assert_close(torch.autograd.grad(layer(x)[1].sum(), x)[0], with_penalty, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["exact", "refined"])
@pytest.mark.parametrize("exact_dimensions", [512, 1])
def test_inversion_methods(method, exact_dimensions):
    layer = small_pair(exact_dimensions=exact_dimensions).eval()
    x = torch.randn(6, 3)
    torch.testing.assert_close(layer.decode(layer(x)[0], inverse=method), x, rtol=0, atol=1e-9)


def test_the_learned_inverse_is_g_with_its_own_log_det():
    layer = small_pair().eval()
    z = torch.randn(4, 3)
    x, log_det = layer.inverse(z, inverse="learned")
    torch.testing.assert_close(x, layer.inverse_net(z))
    torch.testing.assert_close(log_det, jacobian_log_det(layer.inverse_net, z))


def test_a_large_layer_estimates_and_says_so():
    small, large = small_pair().eval(), small_pair(exact_dimensions=2).eval()
    assert (small.log_det_kind, large.log_det_kind) == ("exact", "estimate")
    x = torch.randn(3, 3)
    many = large(x.repeat(300, 1))[1].view(300, 3)  # each row has its own probes
    error = (many.mean(0) - small(x)[1]).abs() / (many.std(0) / math.sqrt(300))
    assert error.max() < 4.5


def test_lanczos_with_all_unit_vectors_is_exact():
    net, x = Sinh(torch.eye(5) + 0.3 * torch.randn(5, 5)), torch.randn(3, 5)
    estimate = lanczos_log_det(net, x, all_units(x), steps=5)
    torch.testing.assert_close(estimate, jacobian_log_det(net, x), rtol=0, atol=1e-8)


def test_gradients_of_the_way_back_without_a_matrix():
    layer = small_pair(exact_dimensions=1).eval()
    z = torch.randn(2, 3, requires_grad=True)
    assert torch.autograd.gradcheck(layer.decode, (z,), atol=1e-6)


def test_a_context_reaches_both_networks():
    f, g = (ResidualMLP(2, width=8, blocks=1, context_shape=3) for _ in range(2))
    layer = SelfNormalizing(f, g, (2,), context_shape=(3,))
    x, context = torch.randn(5, 2), torch.randn(5, 3)
    z, log_det = layer(x, context)
    (z.sum() - log_det.sum()).backward()
    assert all(p.grad is not None for p in layer.parameters())
    layer.eval()
    torch.testing.assert_close(layer.decode(layer(x, context)[0], context), x)
    assert not torch.equal(layer(x, context)[0], layer(x, -context)[0])


def test_a_map_that_does_not_reach_a_point_raises():
    layer = SelfNormalizing(nn.Tanh(), nn.Identity(), (2,)).eval()
    with pytest.raises(ConvergenceError, match="none for 1 of 2 rows"):
        layer.decode(torch.tensor([[0.5, 0.5], [2.0, 0.5]]))


def test_networks_must_keep_the_shape():
    with pytest.raises(ShapeError, match="a network that keeps the shape"):
        SelfNormalizing(nn.Linear(2, 3), nn.Linear(3, 2), (2,))(torch.randn(4, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty_weight": -1.0}, "penalty_weight ≥ 0"),
        ({"probe": "sobol"}, "probe to be one of"),
        ({"probes": 0}, "probes ≥ 1"),
        ({"exact_dimensions": 0}, "exact_dimensions ≥ 1"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        SelfNormalizing(nn.Identity(), nn.Identity(), (2,), **options)


@pytest.mark.parametrize("kind", ["rademacher", "gaussian", "orthogonal"])
def test_probes_have_the_identity_for_their_second_moment(kind):
    probes = draw_probes(kind, 5, torch.zeros(2000, 3)).flatten(0, 1)
    assert (probes.T @ probes / len(probes) - torch.eye(3)).abs().max() < 0.06


def test_training_a_pair_finds_a_density_and_an_inverse():
    """A banana: y = x² + noise. A few hundred steps come near its entropy, and g follows f."""
    torch.manual_seed(0)
    width = 32
    layer = SelfNormalizing(
        ResidualMLP(2, width=width), ResidualMLP(2, width=width), (2,), penalty_weight=10.0, probe="orthogonal"
    )
    flow = Flow(layer, StandardNormal((2,)))
    optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 400)
        x = torch.randn(200, 2)
        x = torch.stack([x[:, 0], 0.5 * x[:, 0].square() + 0.5 * x[:, 1]], 1)
        optimizer.zero_grad()
        (-flow.log_prob(x)).mean().backward()
        optimizer.step()
    entropy = 1 + math.log(2 * math.pi) + math.log(0.5)
    x = torch.randn(2000, 2)
    x = torch.stack([x[:, 0], 0.5 * x[:, 0].square() + 0.5 * x[:, 1]], 1)
    flow.eval()
    assert -flow.log_prob(x).mean().item() < entropy + 0.15
    assert float(layer.reconstruction_error) < 0.02


def test_the_penalty_can_hold_around_the_data_too():
    """Half of it at x, half of it at x + noise; nothing else changes."""
    net, inverse = ResidualMLP(2, width=8, blocks=1), ResidualMLP(2, width=8, blocks=1)
    with torch.no_grad():
        for parameter in [*net.parameters(), *inverse.parameters()]:
            parameter.copy_(0.3 * torch.randn_like(parameter))
    x, noise = torch.randn(5, 2), torch.randn(5, 2)
    probes = draw_probes("rademacher", 1, x)
    plain, spread = (surrogate(net, inverse, x, probes, with_jacobian=False, noise=n) for n in (None, noise))
    here, beside = ((inverse(net(at)) - at).square().sum(1) for at in (x, x + noise))
    torch.testing.assert_close(plain.reconstruction, here)
    torch.testing.assert_close(spread.reconstruction, (here + beside) / 2)
    torch.testing.assert_close(spread.log_det, plain.log_det)
    layer = SelfNormalizing(net, inverse, (2,), penalty_spread=0.5)
    layer(x)
    assert float(layer.reconstruction_error) != pytest.approx(float(here.mean().detach()), rel=1e-3)


def test_the_diagnostics_have_pairs_too():
    flow = flows.pair((2,), width=8, depth=1, penalty_weight=3.0)
    flow(torch.randn(5, 2))
    ((name, found),) = layer_diagnostics(flow).items()
    assert isinstance(flow.get_submodule(name), SelfNormalizing)
    assert found.reconstruction_error == float(flow.get_submodule(name).reconstruction_error)
    assert (found.inverse_residual, found.penalty_weight, found.repairs) == (None, 3.0, 0)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_encode_pays_for_no_log_determinant(training, monkeypatch):
    layer = SelfNormalizing(ResidualMLP(3, width=8), ResidualMLP(3, width=8), (3,)).train(training)
    x = torch.randn(5, 3)
    wanted = layer(x)[0]
    monkeypatch.setattr("snflow.selfnorm.pair.surrogate", None)
    monkeypatch.setattr(SelfNormalizing, "_log_det", None)
    torch.testing.assert_close(layer.encode(x), wanted, rtol=0, atol=0)
