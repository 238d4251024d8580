"""The transforms of torch.func: ensembles, per-sample gradients, scores, forward-mode derivatives."""

import copy

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, stack_module_state, vmap

import snflow
from snflow import flows
from snflow.errors import ConfigError
from snflow.numerics.root_finding import bisect, chandrupatla, invert_increasing
from snflow.selfnorm.gradient import GradientRule

MODELS = {
    "dense, penalty": lambda: flows.dense((4,)),
    "dense, newton": lambda: flows.dense((4,), tracking=snflow.Newton()),
    "dense, exact": lambda: flows.dense((4,), log_det_rule="exact"),
    "dense, relative": lambda: flows.dense((4,), log_det_rule="relative"),
    "conv, penalty": lambda: flows.conv((2, 4, 4), scales=1, layers=2),
    "conv, exact": lambda: flows.conv((2, 4, 4), scales=1, layers=2, log_det_rule="exact"),
    "glow": lambda: flows.glow((2, 4, 4), scales=1, layers=1, width=4),
    "spline": lambda: flows.neural_spline(4, layers=1, width=8),
    "gaussianization": lambda: flows.gaussianization(4, layers=2, bins=4),
}


def members(name, count=3):
    """Flows of one kind with different parameters, evaluated once, so that each knows its own log-determinant."""
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(MODELS[name]().double().eval())
    shape = (2, 4, 4) if name.startswith(("conv", "glow")) else (4,)
    x = torch.randn(5, *shape)
    for flow in made:
        flow.train().log_prob(torch.randn(30, *shape))  # the first batch, for layers that set themselves by it
        flow.eval().log_prob(x)
    return made, x


def plain_gradients(flow, x):
    flow.zero_grad()
    flow.log_prob(x).sum().backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in flow.named_parameters()}


def log_prob(flow, parameters, buffers, x):
    return functional_call(flow, (parameters, buffers), (x,))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", MODELS)
def test_an_ensemble_is_its_members(name, training):
    made, x = members(name)
    parameters, buffers = stack_module_state(made)
    model = copy.deepcopy(made[0]).train(training)
    wanted = []
    for flow in made:
        flow.train(training)
        wanted.append((flow.log_prob(x).detach(), plain_gradients(flow, x)))
    together = vmap(lambda p, b: log_prob(model, p, b, x))(parameters, buffers)
    gradients = vmap(grad(lambda p, b: log_prob(model, p, b, x).sum()))(parameters, buffers)
    for number, (values, by_name) in enumerate(wanted):
        torch.testing.assert_close(together[number], values, rtol=1e-10, atol=1e-10)
        for key, gradient in by_name.items():
            torch.testing.assert_close(gradients[key][number], gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["dense, penalty", "conv, penalty"])
def test_a_functional_call_uses_the_buffers_that_it_gets(name):
    (first, second), x = members(name, 2)
    first.train(), second.train()
    first.log_prob(x)
    state = second.state_dict()
    torch.testing.assert_close(functional_call(first, state, (x,)), second.log_prob(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_each_sample(name, training):
    (flow,), x = members(name, 1)
    flow.train(training)
    parameters, buffers = dict(flow.named_parameters()), dict(flow.named_buffers())
    one = grad(lambda p, row: log_prob(flow, p, buffers, row[None])[0])
    each = vmap(one, in_dims=(None, 0))(parameters, x)
    for row in range(len(x)):
        for key, gradient in plain_gradients(flow, x[row : row + 1]).items():
            torch.testing.assert_close(each[key][row], gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("method", ["exact", "learned"])
def test_an_ensemble_is_sampled_together(method):
    for name in ("dense, penalty", "conv, penalty"):
        made, x = members(name)
        parameters, buffers = stack_module_state(made)
        model = copy.deepcopy(made[0])
        z = torch.randn_like(made[0].encode(x))

        def decode(p, b, z=z, model=model):
            return functional_call(_Decoder(model, method), ({f"flow.{n}": t for n, t in {**p, **b}.items()},), (z,))

        together = vmap(decode)(parameters, buffers)
        for number, flow in enumerate(made):
            torch.testing.assert_close(together[number], flow.decode(z, inverse=method), rtol=1e-8, atol=1e-8)


class _Decoder(torch.nn.Module):
    def __init__(self, flow, method):
        super().__init__()
        self.flow, self.method = flow, method

    def forward(self, z):
        return self.flow.decode(z, inverse=self.method)


@pytest.mark.parametrize("name", ["dense, penalty", "conv, penalty"])
def test_a_score_straight_after_a_step_keeps_what_a_plain_evaluation_would(name):
    """A factorization computed inside the transform is kept as plain tensors."""
    (flow,), x = members(name, 1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(1.01)
    twin = copy.deepcopy(flow)
    score = vmap(grad(lambda row: flow.log_prob(row[None])[0]))(x)
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(score, torch.autograd.grad(twin.log_prob(leaf).sum(), leaf)[0])
    torch.testing.assert_close(flow.log_prob(x), twin.log_prob(x), rtol=0, atol=0)
    kept, wanted = flow.state_dict(), twin.state_dict()
    for key in wanted:
        assert torch.equal(kept[key], wanted[key]), key


@pytest.mark.parametrize("name", ["dense, penalty", "conv, penalty", "conv, exact"])
def test_forward_derivatives_by_the_weights_include_the_log_determinant(name):
    """A kept value has no tangent: it must not stand in where the weight has one."""
    (flow,), x = members(name, 1)
    parameters = {key: value.detach() for key, value in flow.named_parameters()}
    tangents = {key: torch.randn_like(value) for key, value in parameters.items()}
    wanted = sum((plain_gradients(flow, x)[key] * tangents[key]).sum() for key in tangents)
    along = jvp(lambda p: functional_call(flow, p, (x,)).sum(), (parameters,), (tangents,))[1]
    torch.testing.assert_close(along, wanted)
    with forward_ad.dual_level():
        duals = {key: forward_ad.make_dual(parameters[key], tangents[key]) for key in parameters}
        dual = forward_ad.unpack_dual(functional_call(flow, duals, (x,)).sum()).tangent
    torch.testing.assert_close(dual, wanted)


@pytest.mark.parametrize("rule", [GradientRule(), GradientRule(symmetric=True), GradientRule(1.0, 0.0, False, False)])
def test_the_hand_written_gradient_is_the_same_under_a_transform(rule):
    layer = snflow.SelfNormalizingDense(3).double()
    layer.rule = rule
    x = torch.randn(4, 3)
    parameters = dict(layer.named_parameters())

    def objective(given):
        z, log_det = functional_call(layer, given, (x,))
        return (z.square().sum(1) * torch.arange(1.0, 5.0)).sum() + (log_det * torch.arange(4.0)).sum()

    plain = torch.autograd.grad(objective(parameters), list(parameters.values()), allow_unused=True)
    for got, wanted in zip(grad(objective)(parameters).values(), plain, strict=True):
        torch.testing.assert_close(got, torch.zeros_like(got) if wanted is None else wanted)


def test_roots_under_vmap_and_nan_where_there_is_none():
    z = torch.tensor([[0.5, -3.0], [2.0, torch.nan], [torch.inf, 1e-3]])
    lower, upper = -torch.ones(2), torch.ones(2)
    for solve, function in (
        (invert_increasing, lambda x: (x**3 + x, 3 * x**2 + 1)),
        (bisect, lambda x: x**3 + x),
        (chandrupatla, lambda x: x**3 + x),
    ):
        together = vmap(lambda row, solve=solve, function=function: solve(function, row, lower, upper))(z)
        apart = torch.stack([solve(function, row, lower, upper) for row in z])
        torch.testing.assert_close(together, apart, equal_nan=True)
    for solve, bounded in (
        (invert_increasing, lambda x: (torch.tanh(x), 1 - torch.tanh(x) ** 2)),
        (bisect, torch.tanh),
        (chandrupatla, torch.tanh),
    ):
        found = vmap(lambda row, solve=solve, bounded=bounded: solve(bounded, row, -torch.ones(()), torch.ones(())))(
            torch.tensor([0.3, 2.0])
        )
        assert found[0].item() == pytest.approx(torch.atanh(torch.tensor(0.3)).item())
        assert found[1].isnan()


def test_solvers_with_fixed_steps_are_differentiated_and_others_refused():
    x = torch.randn(4, 2)

    def flow(**options):
        torch.manual_seed(0)
        return snflow.ContinuousFlow(snflow.nets.VelocityNet((2,)), (2,), **options).double().eval()

    def objective(layer):
        return lambda x: sum(out.square().sum() for out in layer(x))

    fixed = flow(solver="rk4")
    leaf = x.clone().requires_grad_()
    wanted = torch.autograd.grad(objective(flow(solver="rk4", adjoint=False))(leaf), leaf)[0]
    torch.testing.assert_close(grad(objective(fixed))(x), wanted)
    with pytest.raises(ConfigError, match="fixed-step solver"):
        grad(objective(flow()))(x)


@pytest.mark.parametrize("make", [lambda: snflow.ActNorm(2, vectors=True), lambda: snflow.Gaussianization(2)])
def test_a_first_batch_under_a_transform_is_refused_and_a_later_one_is_not(make):
    layer, x = make().double(), torch.randn(50, 2)
    with pytest.raises(ConfigError, match="outside the transform"):
        grad(lambda x: layer(x)[0].sum())(x)
    z = layer(x)[0]
    torch.testing.assert_close(jvp(lambda x: layer(x)[0], (x,), (x,))[0], z)


def test_an_ensemble_of_lipschitz_networks_is_refused():
    made = [flows.residual((3,), layers=1).double().eval() for _ in range(2)]
    parameters, buffers = stack_module_state(made)
    with pytest.raises(ConfigError, match="one by one"):
        vmap(lambda p, b: log_prob(made[0], p, b, torch.ones(2, 3)))(parameters, buffers)


@pytest.mark.parametrize("name", ["dense, penalty", "conv, penalty", "glow", "gaussianization"])
def test_an_ensemble_around_a_model_that_was_loaded(name):
    """After a load a layer does not know by heart what its buffers say, and under vmap it cannot read them."""
    made, x = members(name)
    parameters, buffers = stack_module_state(made)
    model = MODELS[name]().double()
    model.load_state_dict(made[0].state_dict())
    together = vmap(lambda p, b: log_prob(model.train(), p, b, x))(parameters, buffers)
    for number, flow in enumerate(made):
        torch.testing.assert_close(together[number], flow.train().log_prob(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("make", [lambda: flows.pair((3,)), lambda: flows.residual((3,), layers=2, log_det="unbiased")])
def test_networks_of_free_form_are_trained_by_grad(make, training):
    torch.manual_seed(0)
    flow, x = make().double(), torch.randn(20, 3)
    flow.log_prob(x)
    flow.train(training)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(1.1)  # so that what is known of the weights is no longer true
    twin = copy.deepcopy(flow)
    parameters = {key: value.detach() for key, value in flow.named_parameters()}
    torch.manual_seed(1)
    gradients = grad(lambda p: functional_call(flow, p, (x,)).sum())(parameters)
    torch.manual_seed(1)
    for key, gradient in plain_gradients(twin, x).items():
        torch.testing.assert_close(gradients[key], gradient, rtol=1e-8, atol=1e-8)
    for own, others in zip(flow.modules(), twin.modules(), strict=True):
        for mode, known in getattr(others, "_known", {}).items():
            assert not any(map(torch._C._functorch.is_functorch_wrapped_tensor, own._known[mode]))
            torch.testing.assert_close(own._known[mode], known, rtol=0, atol=0)
