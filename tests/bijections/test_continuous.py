"""Continuous flows: the adjoint's gradient, estimates without bias, rows, penalties, and failures."""

import math

import pytest
import torch

import snflow
from snflow import ContinuousFlow, flows
from snflow.bijections.continuous import solve
from snflow.errors import ConfigError, ConvergenceError, GradientError
from snflow.nets import VelocityNet


def layer(**options):
    torch.manual_seed(0)
    net = VelocityNet((3,), width=8, context_shape=2 if "context_shape" in options else None)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return ContinuousFlow(net, (3,), **options)


class Linear(torch.nn.Module):
    """dx/dt = A x, solved by the exponential."""

    def __init__(self):
        super().__init__()
        self.matrix = torch.nn.Parameter(0.5 * torch.randn(3, 3))

    def forward(self, x, t):
        return x @ self.matrix.T


@pytest.mark.parametrize("solver", ["dopri5", "dopri8", "bosh3", "adaptive_heun", "rk4"])
def test_a_linear_velocity_is_the_matrix_exponential(solver):
    torch.manual_seed(1)
    flow = ContinuousFlow(Linear(), (3,), solver=solver, tolerance=1e-7, steps=100).eval()
    x = torch.randn(5, 3)
    z, log_det = flow(x)
    matrix = flow.net.matrix
    torch.testing.assert_close(z, x @ torch.linalg.matrix_exp(matrix).T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(log_det, matrix.trace().expand(5), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", ["dopri5", "rk4"])
def test_the_adjoint_has_the_gradient_of_backpropagation_through_all_steps(solver):
    x, context = torch.randn(4, 3), torch.randn(4, 2)
    found = []
    for adjoint in (True, False):
        flow = layer(context_shape=(2,), solver=solver, tolerance=1e-9, steps=60, adjoint=adjoint).eval()
        at, given = x.clone().requires_grad_(), context.clone().requires_grad_()
        z, log_det = flow(at, given)
        loss = (z.square().sum(1) - log_det).mean()
        found.append(torch.autograd.grad(loss, [at, given, *flow.parameters()]))
    for mine, plain in zip(*found, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("training", [True, False])
def test_the_adjoint_refuses_second_derivatives(training):
    flow, x = layer(solver="rk4", steps=4).train(training), torch.randn(4, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(flow(x)[1].sum(), x, create_graph=True)
    with pytest.raises(GradientError, match="use adjoint=False"):
        slope.square().sum().backward()
    with pytest.raises(GradientError, match="use adjoint=False"):
        torch.autograd.functional.hessian(lambda at: flow(at)[1].sum(), x)
    flow.adjoint = False
    (slope,) = torch.autograd.grad(flow(x)[1].sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert float(flow.net.maps[0].weight.grad.abs().max()) > 1e-6


@pytest.mark.parametrize("adjoint", [True, False])
def test_an_assertion_of_the_velocity_remains_one(adjoint):
    class Asserting(torch.nn.Module):
        allowed = 2

        def forward(self, x, t):
            assert self.allowed > 0, "of the velocity"
            self.allowed -= 1
            return x

    flow, x = ContinuousFlow(Asserting(), (3,), adjoint=adjoint), torch.randn(2, 3, requires_grad=True)
    with pytest.raises(AssertionError, match="of the velocity"):
        flow(x)
    flow.net.allowed = 10_000
    z, _ = flow(x)
    flow.net.allowed = 0
    if adjoint:
        with pytest.raises(AssertionError, match="of the velocity"):
            z.sum().backward()


def test_hutchinsons_estimate_has_the_mean_of_the_exact_trace():
    x = torch.randn(4, 3)
    exact = layer(trace="exact", solver="rk4", steps=10).eval()
    value = exact(x)[1].detach()
    estimated = layer(trace="hutchinson", solver="rk4", steps=10).train()
    with torch.no_grad():
        drawn = torch.stack([estimated(x)[1] for _ in range(150)])
    error = (drawn.mean(0) - value) / (drawn.std(0) / math.sqrt(150))
    assert float(drawn.std(0).min()) > 0
    assert float(error.abs().max()) < 4


def test_evaluation_is_exact_to_a_millionth_at_the_default_tolerances():
    flow, x = flows.ffjord(2, width=16).eval(), torch.randn(50, 2)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        z, log_det = flow.bijection(x)
        back, log_det_back = flow.bijection.inverse(z)
        log_prob = flow.log_prob(x)
        for part in flow.bijection:
            part.tolerance = 1e-11
        torch.testing.assert_close(log_prob, flow.log_prob(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-6)
    torch.testing.assert_close(log_det_back, -log_det, rtol=0, atol=1e-6)


def test_a_row_is_as_accurate_in_a_batch_as_alone_and_nan_stays_in_its_row():
    flow = layer(tolerance=1e-6).eval()
    x = torch.cat([torch.randn(30, 3), 20 * torch.randn(2, 3)])
    z, log_det = flow(x)
    alone = flow(x[-1:])
    torch.testing.assert_close(z[-1:], alone[0], rtol=1e-4, atol=1e-4)
    x[3] = torch.nan
    damaged, log_det_damaged = flow(x)
    assert damaged[3].isnan().all()
    assert log_det_damaged[3].isnan()
    torch.testing.assert_close(damaged[:3], z[:3], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(log_det_damaged[4:], log_det[4:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["kinetic_weight", "jacobian_weight"])
def test_a_penalty_changes_the_gradient_and_not_the_value(kind):
    x = torch.randn(6, 3)
    plain = layer(trace="exact", solver="rk4").train()
    weighed = layer(trace="exact", solver="rk4", **{kind: 2.0}).train()
    torch.testing.assert_close(weighed(x)[1], plain(x)[1])

    def gradient(flow):
        return torch.cat([g.flatten() for g in torch.autograd.grad(flow(x)[1].sum(), list(flow.parameters())[:6])])

    # against the integral along the path of the plain layer, by the same solver
    def derivative(t, state):
        at = state[0]
        v = plain.net(at, t)
        if kind == "kinetic_weight":
            return v, v.square().sum(1)
        rows = [torch.autograd.grad(v[:, i].sum(), at, create_graph=True)[0] for i in range(3)]
        return v, sum(row.square().sum(1) for row in rows)

    at = x.clone().requires_grad_()
    options = {"solver": "rk4", "tolerance": 1e-6, "steps": 20, "adjoint": None, "where": "test"}
    penalty = solve(derivative, (at, torch.zeros(6)), 0.0, 1.0, **options)[1]
    wanted = torch.cat([g.flatten() for g in torch.autograd.grad(2 * penalty.sum(), list(plain.parameters())[:6])])
    torch.testing.assert_close(gradient(plain) - gradient(weighed), wanted, rtol=1e-4, atol=1e-6)


def test_a_velocity_that_explodes_is_an_error_with_advice():
    class Explosive(torch.nn.Module):
        def forward(self, x, t):
            return x**3

    flow = ContinuousFlow(Explosive(), (2,)).eval()
    with pytest.raises(ConvergenceError, match="the velocity has become too steep"):
        flow(torch.full((3, 2), 5.0))


def test_bad_options_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'dopri8'"):
        ContinuousFlow(Linear(), (3,), solver="dopri")
    with pytest.raises(ConfigError, match="0 < tolerance < 1"):
        ContinuousFlow(Linear(), (3,), tolerance=0.0)


def test_the_ready_flow_takes_vectors_images_and_contexts():
    vectors = flows.ffjord(3, context_shape=2, width=8).eval()
    assert vectors.log_prob(torch.randn(4, 3), torch.randn(4, 2)).shape == (4,)
    images = snflow.dequantized(flows.ffjord((1, 4, 4), scales=2, width=4), 17).eval()
    x = torch.randint(17, (2, 1, 4, 4))
    assert images.log_prob(x).shape == (2,)
    assert torch.equal(images.decode(images.encode(x)), x)


def test_a_velocity_begins_at_full_strength():
    """At t = 0 every gain is one: half-open gates would make three layers an eighth as strong."""
    net, x = VelocityNet((3,), width=8), torch.randn(5, 3)
    with torch.no_grad():
        net.maps[-1].weight.normal_()
        plain = net.maps[2](torch.tanh(net.maps[1](torch.tanh(net.maps[0](x)))))
    torch.testing.assert_close(net(x, torch.tensor(0.0)), plain)
