"""Flows on vectors: densities integrate to one and match samples; contexts, compilation, far points."""

import pytest
import torch

from snflow import (
    AffineTransformer,
    Autoregressive,
    BatchNorm,
    BlockAutoregressive,
    Coupling,
    Permutation,
    RationalQuadraticTransformer,
    flows,
    nets,
)
from snflow.bijections.coupling import alternating, checkerboard, halves
from snflow.errors import ConfigError, ShapeError

SMALL = {
    "maf": {"layers": 2, "width": 16},
    "iaf": {"layers": 2, "width": 16},
    "naf": {"layers": 2, "width": 16, "units": 4},
    "bnaf": {"layers": 2, "width": 6},
    "umnn": {"layers": 2, "width": 16, "integrand_width": 8, "nodes": 12},
    "sos": {"layers": 2, "width": 16},
    "neural_spline": {"layers": 2, "width": 16, "bins": 4},
    "realnvp": {"layers": 3, "width": 16, "batch_norm": False},
    "nice": {"layers": 3, "width": 16},
    "planar": {"layers": 3},
    "radial": {"layers": 3},
    "sylvester": {"layers": 2},
    "generalized_sylvester": {"layers": 2, "width": 16},
    "pair": {"width": 16, "depth": 1},
}
SPLINES = {
    f"neural_spline, {word}": {**SMALL["neural_spline"], "spline": word} for word in ("cubic", "quadratic", "linear")
}
EVERY = {
    **{name: (name, options) for name, options in SMALL.items()},
    **{name: ("neural_spline", options) for name, options in SPLINES.items()},
    "neural_spline, autoregressive": ("neural_spline", {**SMALL["neural_spline"], "kind": "autoregressive"}),
}


def made(name, features=2, scale=0.15, **more):
    """The flow with random weights, so that no network is zero."""
    function, options = EVERY[name]
    torch.manual_seed(1)
    flow = getattr(flows, function)(features, **options, **more)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return flow.eval()


def grid(count, low, high):
    centres = low + (high - low) * (torch.arange(count) + 0.5) / count
    return torch.cartesian_prod(centres, centres), ((high - low) / count) ** 2


@pytest.mark.parametrize("name", EVERY)
def test_a_density_in_the_plane_integrates_to_one(name):
    flow = made(name)
    with torch.no_grad():
        z = flow.sample(2000)
        low, high = float(z.min()) - 6, float(z.max()) + 6
        points, area = grid(500 if "spline" in name else 300, low, high)  # linear splines have steps
        mass = float(flow.log_prob(points).exp().sum() * area)
    assert abs(mass - 1) < 1e-3


@pytest.mark.parametrize("name", [n for n in EVERY if n != "pair"])
def test_a_density_on_the_line_integrates_to_one(name):
    flow = made(name, features=1)
    x = torch.linspace(-60, 60, 100_001)[:, None]
    with torch.no_grad():
        mass = float(torch.trapezoid(flow.log_prob(x).exp(), x[:, 0]))
    assert abs(mass - 1) < 1e-3


@pytest.mark.parametrize("name", EVERY)
def test_samples_are_inverted(name):
    flow = made(name, features=3)
    with torch.no_grad():
        x = flow.sample(20)
        torch.testing.assert_close(flow.decode(flow.encode(x)), x, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", EVERY)
def test_a_context_changes_the_density_and_gets_a_gradient(name):
    flow = made(name, features=3, context_shape=2)
    x, context = torch.randn(5, 3), torch.randn(5, 2, requires_grad=True)
    log_prob = flow.log_prob(x, context)
    assert not torch.allclose(log_prob, flow.log_prob(x, context.flip(0)))
    (gradient,) = torch.autograd.grad(log_prob.sum(), context)
    assert bool((gradient.abs().sum(1) > 0).all())
    assert flow.sample(5, context.detach()).shape[-1] == 3


@pytest.mark.parametrize("name", EVERY)
def test_far_points_are_recovered_in_single_precision(name):
    flow = made(name, features=3, scale=0.1).float()
    x = 10 * torch.randn(50, 3, dtype=torch.float32)
    with torch.no_grad():
        back = flow.decode(flow.encode(x))
        assert bool(flow.log_prob(x).isfinite().all())
    torch.testing.assert_close(back, x, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("distance", [10, 30, 1000])
@pytest.mark.parametrize("build", [flows.maf, flows.iaf, flows.realnvp, flows.nice, lambda d: flows.naf(d, layers=1)])
def test_default_flows_recover_points_at_any_distance(build, distance):
    """Without a bound on the inputs of the networks, their scaling factors grow with the exponential of a distance."""
    flow = build(5).float().eval()
    x = distance * torch.randn(300, 5, dtype=torch.float32)
    with torch.no_grad():
        back = flow.decode(flow.encode(x))
    torch.testing.assert_close(back, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("distance", [30, 1000])
@pytest.mark.parametrize(
    "build",
    [
        lambda: flows.realnvp((1, 8, 8), width=16),
        lambda: flows.glow((1, 8, 8), layers=2, width=16),
    ],
)
def test_flows_on_images_recover_points_at_any_distance(build, distance):
    flow = build().float()
    with torch.no_grad():
        flow.log_prob(torch.randn(64, 1, 8, 8, dtype=torch.float32))  # initializes act-norms
        for parameter in flow.eval().parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
        x = distance * torch.randn(16, 1, 8, 8, dtype=torch.float32)
        back = flow.decode(flow.encode(x))
    # linear layers mix the pixels, so that an error is relative to the largest of them
    assert (back - x).abs().max() <= 1e-4 * x.abs().max()


def test_the_quadrature_of_umnn_is_exact_to_rounding():
    flow = flows.umnn(3, layers=2).eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    x = (2 * torch.randn(12, 3)).requires_grad_()
    z, log_det = flow.bijection(x)
    jacobian = torch.stack([torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in z.unbind(1)], 1)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian)[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["naf", "bnaf", "umnn", "sos"])
def test_exact_zeros_are_recovered(name):
    for seed in range(4):
        torch.manual_seed(seed)
        flow = getattr(flows, name)(2, **SMALL[name]).eval()
        x = torch.randn(6, 2)
        x[:3], x[:, 0] = 0, 0
        with torch.no_grad():
            torch.testing.assert_close(flow.decode(flow.encode(x)), x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["maf", "realnvp", "neural_spline"])
def test_whole_flows_compile(name):
    flow = made(name, features=4).float()
    x = torch.randn(6, 4, dtype=torch.float32)
    compiled = torch.compile(flow, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), flow(x), rtol=1e-5, atol=1e-5)
    compiled(x).mean().backward()
    own = {n: p.grad.clone() for n, p in flow.named_parameters()}
    flow.zero_grad()
    flow(x).mean().backward()
    for n, p in flow.named_parameters():
        torch.testing.assert_close(own[n], p.grad, rtol=1e-4, atol=1e-5)


def test_outputs_depend_on_earlier_inputs_only():
    torch.manual_seed(0)
    net = nets.MaskedMLP(5, 2, width=20, depth=3, residual=True, context_shape=3)
    torch.nn.init.normal_(net.last.weight)
    x, context = torch.randn(1, 5), torch.randn(1, 3)
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v, context)[0], x)[:, :, 0]
    seen = jacobian.abs().sum(0) > 0
    assert torch.equal(seen, torch.ones(5, 5).tril(-1).bool())


@pytest.mark.parametrize("context_shape", [None, 3])
@pytest.mark.parametrize(
    ("features", "width", "depth", "residual"), [(1, 4, 1, False), (5, 5, 2, True), (7, 30, 3, False)]
)
def test_steps_equal_the_whole_pass(features, width, depth, residual, context_shape):
    torch.manual_seed(0)
    net = nets.MaskedMLP(features, 3, width=width, depth=depth, context_shape=context_shape, residual=residual)
    torch.nn.init.normal_(net.last.weight)
    torch.nn.init.normal_(net.last.bias)
    x = torch.randn(4, features)
    context = torch.randn(4, context_shape) if context_shape else None
    steps = net.steps(context)
    outputs = torch.stack([steps.outputs(i, x[:, :i]) for i in range(features)], 2)
    torch.testing.assert_close(outputs, net(x, context), rtol=0, atol=1e-12)


def test_jacobi_iteration_equals_the_inverse_by_steps_and_so_do_its_gradients():
    torch.manual_seed(0)
    layer = Autoregressive(6, AffineTransformer(), width=24)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    z = torch.randn(5, 6)
    found = []
    for way in ("steps", "jacobi"):
        layer.solver = way
        start = z.clone().requires_grad_()
        x, log_det = layer.inverse(start)
        (x.square().sum() + log_det.sum()).backward()
        found.append((x.detach(), log_det.detach(), start.grad, layer.net.first.weight.grad.clone()))
        layer.zero_grad()
        with torch.no_grad():
            torch.testing.assert_close(layer.inverse(z)[0], x.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("context_shape", [None, 3])
def test_passes_that_converge_equal_the_steps(context_shape):
    torch.manual_seed(0)
    shaping = {"context_shape": context_shape, "residual": True, "input_bound": 2.0}
    layer = Autoregressive(40, AffineTransformer(), width=40, depth=3, **shaping)
    z, context = torch.randn(7, 40), torch.randn(7, 3) if context_shape else None
    calls = counted(layer)
    with torch.no_grad():
        by_passes = layer.inverse(z, context)
        assert (calls["frozen"], calls["walk"]) == (1, 0)
        layer.solver = "steps"
        by_steps = layer.inverse(z, context)
    assert (calls["frozen"], calls["walk"]) == (1, 1)
    torch.testing.assert_close(by_passes, by_steps, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [AffineTransformer, RationalQuadraticTransformer])
def test_passes_are_as_accurate_as_the_steps_in_single_precision(kind):
    torch.manual_seed(0)
    layer = Autoregressive(40, kind(), width=40, input_bound=5.0).float()
    x = torch.randn(20, 40, dtype=torch.float32)
    with torch.no_grad():
        z = layer(x)[0]
        by_passes = layer.decode(z)
        layer.solver = "steps"
        by_steps = layer.decode(z)
    torch.testing.assert_close(by_passes, x, rtol=0, atol=1e-4)
    torch.testing.assert_close(by_passes, by_steps, rtol=0, atol=1e-4)


def test_passes_that_do_not_converge_are_replaced_by_the_steps():
    torch.manual_seed(0)
    layer = Autoregressive(40, AffineTransformer(), width=40)
    # Each element depends on the one before it: a pass gets one more element right.
    chained = lambda x: torch.stack([0 * x, torch.cat([0 * x[:, :1], 5 * x[:, :-1]], 1)], 1)  # noqa: E731
    layer.net.frozen = lambda context: chained
    with torch.no_grad():
        assert not layer._settled(torch.randn(4, 40), None, 39)[1]
        assert layer._settled(torch.randn(4, 40), None, 41)[1]
    calls = counted(layer)
    with torch.no_grad():
        layer.inverse(torch.randn(4, 40))
    assert calls["walk"] == 1


def test_wide_networks_few_elements_and_gradients_use_the_steps():
    for layer, rows in (
        (Autoregressive(40, AffineTransformer(), width=400), 100),
        (Autoregressive(12, AffineTransformer(), width=16), 5),
    ):
        calls = counted(layer)
        with torch.no_grad():
            layer.inverse(torch.randn(rows, layer.features))
        assert (calls["frozen"], calls["walk"]) == (0, 1)
    layer = Autoregressive(40, AffineTransformer(), width=40)
    calls = counted(layer)
    assert layer.inverse(torch.randn(5, 40))[0].requires_grad
    assert (calls["frozen"], calls["walk"]) == (0, 0)


def counted(layer):
    """The number of passes and walks that the layer's network is asked for from now on."""
    calls = {"frozen": 0, "walk": 0}

    def counting(name, original):
        def call(*args):
            calls[name] += 1
            return original(*args)

        return call

    for name in calls:
        setattr(layer.net, name, counting(name, getattr(layer.net, name)))
    return calls


def test_a_coupling_keeps_the_masked_elements():
    x = torch.randn(3, 4, 6, 6)
    for mask, net in [
        (halves(4, 1), nets.ConvNet(2, 4, width=8)),
        (checkerboard(6, 6, 1), nets.ConvNet(4, 8, width=8)),
    ]:
        layer = Coupling(mask, AffineTransformer(), net, image=mask.dim() == 1)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        z, _ = layer(x)
        kept = (mask if mask.dim() == 3 else mask[:, None, None]).expand(4, 6, 6)
        assert torch.equal(z[:, kept], x[:, kept])
        assert not bool((z[:, ~kept] == x[:, ~kept]).any())


def test_a_mask_or_network_that_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="keeps some elements but not all"):
        Coupling(torch.ones(3, dtype=torch.bool), AffineTransformer(), nets.MLP(3, 2))
    with pytest.raises(ConfigError, match="a boolean mask"):
        Coupling(torch.ones(3), AffineTransformer(), nets.MLP(3, 2))
    layer = Coupling(alternating(4), RationalQuadraticTransformer(4), nets.MLP(2, 5))
    with pytest.raises(ShapeError, match=r"returns shape \(3, 22\), got \(3, 5\)"):
        layer(torch.randn(3, 4))
    with pytest.raises(ConfigError, match="each index"):
        Permutation([0, 2, 2])
    with pytest.raises(ConfigError, match="two layers or more"):
        flows.circular_spline(2, layers=1)


def test_batch_norm_in_training_normalizes_and_updates_its_moments():
    layer = BatchNorm(3, momentum=0.5)
    x = 5 + 3 * torch.randn(400, 3)
    z, log_det = layer.train()(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), rtol=0, atol=1e-9)
    torch.testing.assert_close(z.var(0, correction=0), torch.ones(3), rtol=0, atol=1e-4)
    wanted = -0.5 * (x.var(0, correction=0) + layer.eps).log().sum()
    torch.testing.assert_close(log_det, wanted.expand(400), rtol=0, atol=1e-9)
    torch.testing.assert_close(layer.running_mean, 0.5 * x.mean(0), rtol=0, atol=1e-9)


def test_a_density_on_a_circle_has_no_seam():
    torch.manual_seed(0)
    for features in (1, 3):
        flow = flows.circular_spline(features, width=16, bins=4, context_shape=None)
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
            near = torch.full((1, features), torch.pi - 1e-9)
            torch.testing.assert_close(flow.log_prob(near), flow.log_prob(-near), rtol=0, atol=1e-5)
            assert bool(
                flow.log_prob(torch.linspace(-torch.pi, torch.pi, 101)[:, None].expand(-1, features)).isfinite().all()
            )
            if features == 1:
                x = torch.linspace(-torch.pi, torch.pi, 20_001)[:, None]
                assert abs(float(torch.trapezoid(flow.log_prob(x).exp(), x[:, 0])) - 1) < 1e-3


def test_real_nvp_on_images_has_the_papers_parts():
    flow = flows.realnvp((3, 8, 8), scales=2, width=8, depth=1)
    names = [type(layer).__name__ for layer in flow.bijection]
    assert names == ["Coupling", "BatchNorm"] * 3 + ["Squeeze"] + ["Coupling", "BatchNorm"] * 3 + ["Split"]
    flow = flow.eval()
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(flow.decode(flow.encode(x)), x, rtol=0, atol=1e-9)


def test_hidden_units_of_a_block_differ_initially():
    """With equal slopes and biases they would stay equal in training."""
    first, second, last = BlockAutoregressive(1, block=64, depth=2).layers
    for hidden in (first, second):
        slopes = hidden.log_norm.exp()
        assert slopes.max() / slopes.min() > 10
        assert hidden.bias.max() - hidden.bias.min() > 4
    assert not last.log_norm.any()


@pytest.mark.parametrize("name", ["planar", "radial"])
def test_residual_flows_of_simple_maps_begin_near_the_identity(name):
    x = torch.randn(500, 2)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1).mean()
    assert (getattr(flows, name)(2).log_prob(x).mean() - normal).abs() < 0.1
