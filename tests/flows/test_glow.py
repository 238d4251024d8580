"""Act-norm, coupling, split and the ready Glow."""

import copy
import pickle

import pytest
import torch

import snflow
from snflow import (
    ActNorm,
    Chain,
    Conv2d,
    Coupling,
    PLUConv2d,
    SelfNormalizingConv2d,
    Split,
    Squeeze,
    affine_coupling,
    flows,
)
from snflow.errors import ConfigError, ShapeError


def batch(n=50):
    return torch.tensor([1.0, -20.0, 300.0])[:, None, None] * torch.randn(n, 3, 4, 5) + torch.tensor(7.0)


def test_actnorm_gives_the_first_batch_zero_mean_and_unit_variance():
    z, log_det = ActNorm(3)(batch())
    moments = z.movedim(1, 0).flatten(1)
    torch.testing.assert_close(moments.mean(1), torch.zeros(3))
    torch.testing.assert_close(moments.std(1, correction=0), torch.ones(3))
    assert torch.isfinite(log_det).all()


def test_actnorm_is_initialized_once():
    layer = ActNorm(3)
    layer(batch())
    before = copy.deepcopy(layer.state_dict())
    layer(5 * batch())
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])


def test_actnorm_is_never_initialized_in_evaluation():
    layer = ActNorm(3).eval()
    x = batch()
    assert torch.equal(layer(x)[0], x)
    assert not layer.initialized
    layer.train()(x)
    assert layer.initialized


@pytest.mark.parametrize("way", ["load_state_dict", "deepcopy", "pickle"])
def test_actnorm_is_not_initialized_again_after_loading(way):
    layer = ActNorm(3)
    layer(batch())
    if way == "load_state_dict":
        twin = ActNorm(3)
        twin.load_state_dict(layer.state_dict())
    else:
        twin = copy.deepcopy(layer) if way == "deepcopy" else pickle.loads(pickle.dumps(layer))
    x = 9 * batch() - 2
    torch.testing.assert_close(twin.train()(x)[0], layer(x)[0], rtol=0, atol=0)


def test_loading_an_uninitialized_layer_lets_it_be_initialized():
    fresh = ActNorm(3).state_dict()
    layer = ActNorm(3)
    layer(batch())
    layer.load_state_dict(fresh)
    z = layer(batch())[0]
    torch.testing.assert_close(z.movedim(1, 0).flatten(1).std(1, correction=0), torch.ones(3))


def test_a_constant_channel_keeps_its_scale():
    x = torch.cat([torch.full((4, 1, 3, 3), 2.0), torch.randn(4, 1, 3, 3)], 1)
    layer = ActNorm(2)
    z, _ = layer(x)
    assert z[:, 0].abs().max() < 1e-6
    assert layer.log_scale[0] == 0
    assert layer.log_scale[1] != 0
    assert layer.initialized


@pytest.mark.parametrize("level", [0.0, 0.1, -1e4])
def test_a_channel_of_rounding_noise_is_constant_and_a_small_one_is_not(level):
    noise = torch.full((500,), level).float() + 1e-8 * abs(level) * torch.randn(500)
    small = 1e-4 * max(abs(level), 1e-9) * torch.randn(500) + level
    layer = ActNorm(2, vectors=True)
    layer(torch.stack([noise.double(), small], 1))
    assert layer.log_scale[0] == 0
    z = layer(torch.stack([noise.double(), small], 1))[0].detach()
    assert z[:, 1].std(correction=0) == pytest.approx(1)


def test_one_row_of_vectors_does_not_initialize_an_actnorm():
    """A first call on one row, to check the shapes, must not use up the initialization."""
    layer, x = ActNorm(3, vectors=True), 5 + 2 * torch.randn(50, 3)
    assert torch.equal(layer(x[:1])[0], x[:1])
    assert not layer.initialized
    assert layer(x)[0].std(0, correction=0).allclose(torch.ones(3))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_an_empty_or_non_finite_first_batch_does_not_initialize(bad):
    layer, x = ActNorm(3), batch()
    damaged = x.clone()
    damaged[0, 0, 0, 0] = bad
    layer(damaged)
    layer(x[:0])
    assert not layer.initialized
    assert not layer.bias.any()
    layer(x)
    assert layer.initialized


def test_actnorm_on_vectors_and_in_single_precision():
    layer = ActNorm(4, vectors=True).float()
    x = (1e4 + torch.randn(1000, 4)).float()
    z = layer(x)[0]
    assert z.dtype == torch.float32
    assert z.mean(0).abs().max() < 1e-2
    assert (z.std(0) - 1).abs().max() < 1e-2


def test_affine_coupling_is_glows():
    layer = affine_coupling(5, width=7)
    kernels = [m.kernel_size for m in layer.conditioner.layers if isinstance(m, torch.nn.Conv2d)]
    assert kernels == [(3, 3), (1, 1), (3, 3)]
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.2 * torch.randn_like(p))
    x = torch.randn(3, 5, 4, 4)
    z, log_det = layer(x)
    h, t = layer.conditioner(x[:, :2]).chunk(2, 1)
    s = 2 * torch.tanh(h / 2)
    torch.testing.assert_close(z, torch.cat([x[:, :2], s.exp() * x[:, 2:] + t], 1))
    torch.testing.assert_close(log_det, s.sum((1, 2, 3)))


def test_glow_keeps_width_512_by_default():
    assert affine_coupling(4).conditioner.layers[0].out_channels == 512


def test_a_conditioner_of_the_wrong_size_is_named():
    with pytest.raises(ShapeError, match="a conditioner that returns shape"):
        affine_coupling(4, conditioner=torch.nn.Conv2d(2, 3, 1))(torch.randn(2, 4, 3, 3))
    with pytest.raises(ShapeError, match="a prior that returns shape"):
        Split((4, 3, 3), Chain([]), prior=torch.nn.Conv2d(2, 3, 1))(torch.randn(2, 4, 3, 3))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: affine_coupling(1), "at least two channels, got 1"),
        (lambda: Split((1, 4, 4), Chain([])), "at least two channels"),
        (lambda: flows.glow((1, 8, 8), scales=0), "scales ≥ 1"),
        (lambda: flows.glow((1, 8, 8), mixing="fre"), "did you mean 'free'"),
        (lambda: flows.glow((1, 8, 8), log_det_rule="relative"), "log_det_rule to be one of"),
    ],
)
def test_wrong_options_are_named(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_glow_takes_images_whose_sides_halve():
    with pytest.raises(ShapeError, match="Squeeze"):
        flows.glow((1, 7, 7))
    with pytest.raises(ShapeError, match=r"use flows\.dense"):
        flows.glow((64,))


def test_split_is_the_learned_prior_of_glow():
    """log N(ε; 0, 1) − Σ log σ = log N(c; μ(a), σ(a))."""
    layer = Split((4, 2, 3), Chain([]))
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.3 * torch.randn_like(p))
    x = torch.randn(5, 4, 2, 3)
    z, log_det = layer(x)
    a, c = x.chunk(2, 1)
    h, mean = layer.prior(a).chunk(2, 1)
    prior = torch.distributions.Normal(mean, (2 * torch.tanh(h / 2)).exp())
    standard = torch.distributions.Normal(0.0, 1.0)
    wanted = prior.log_prob(c).sum((1, 2, 3)) + standard.log_prob(a).sum((1, 2, 3))
    torch.testing.assert_close(standard.log_prob(z).sum(1) + log_det, wanted)


MIXINGS = ["free", "plu", "emerging", "exponential", "periodic", "woodbury"]


def trained(**options):
    """A Glow after a few steps of training."""
    torch.manual_seed(0)
    flow = snflow.dequantized(flows.glow((1, 8, 8), scales=2, layers=2, width=8, **options), 17)
    optimizer = torch.optim.Adam(flow.parameters(), lr=2e-3)
    for _ in range(5):
        optimizer.zero_grad()
        (-flow(torch.randint(17, (20, 1, 8, 8))).mean()).backward()
        optimizer.step()
    return flow


@pytest.mark.parametrize("rule", ["self_normalized", "exact"])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("mixing", MIXINGS)
def test_glow_trains_is_inverted_and_keeps_every_latent(mixing, kernel, rule):
    if mixing != "free" and rule == "exact":
        return  # the rule is that of a free convolution
    flow = trained(mixing=mixing, kernel_size=kernel, log_det_rule=rule)
    assert not [n for n, p in flow.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    flow.eval()
    x = torch.randint(17, (4, 1, 8, 8))
    latent = flow.bijection(x + 0.5)[0]
    assert latent.shape == (4, 64)
    torch.testing.assert_close(flow.bijection.decode(latent), x + 0.5, rtol=0, atol=1e-7)
    assert torch.isfinite(flow(x)).all()


def test_both_inverses_give_the_same_image():
    flow = trained(kernel_size=3, tracking=snflow.Newton(), inverse_kernel_size=7)
    flow.eval()
    latent = flow.bijection(torch.rand(4, 1, 8, 8) * 16)[0]
    images = {}
    for method in ("exact", "learned", "refined"):
        images[method] = flow.bijection.decode(latent, inverse=method)
    torch.testing.assert_close(images["refined"], images["exact"], rtol=0, atol=1e-6)
    assert (images["learned"] - images["exact"]).abs().mean() < 1.0


def test_glow_of_the_paper_has_its_layers():
    flow = flows.glow((1, 28, 28), width=4)
    kinds = [type(m) for m in flow.modules()]
    assert kinds.count(ActNorm) == kinds.count(Coupling) == kinds.count(SelfNormalizingConv2d) == 32
    assert kinds.count(Split) == 1
    assert kinds.count(Squeeze) == 2
    assert flow.base.event_shape == (784,)
    exact = flows.glow((3, 32, 32), scales=3, layers=1, width=4, log_det_rule="exact")
    assert [type(m) for m in exact.modules()].count(Conv2d) == 3


# torch's own tracer instantiates the autograd functions that it traces
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_step_of_glow_compiles_as_one_graph_once_initialized():
    chain = Chain([Squeeze(), ActNorm(4), PLUConv2d(4), SelfNormalizingConv2d(4, 1), affine_coupling(4, width=8)])
    x = torch.randn(3, 1, 4, 4)
    chain(x)
    wanted = chain(x)
    got = torch.compile(chain, backend="aot_eager", fullgraph=True)(x)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_log_dets_of_a_glow_are_never_stale():
    flow = trained(kernel_size=3).eval()
    x = torch.randint(17, (3, 1, 8, 8))
    generator = torch.Generator()
    before = flow(x, generator=generator.manual_seed(0))
    state = copy.deepcopy(flow.state_dict())
    with torch.no_grad():
        for p in flow.parameters():
            p.data = p.data * 1.01
    assert not torch.allclose(flow(x, generator=generator.manual_seed(0)), before)
    flow.load_state_dict(state)
    torch.testing.assert_close(flow(x, generator=generator.manual_seed(0)), before, rtol=0, atol=1e-9)
    continuous = x + 0.5
    z, log_det = flow.bijection(continuous)
    z32, log_det32 = flow.float().bijection(continuous.float())
    torch.testing.assert_close(z32.double(), z, rtol=0, atol=1e-2)
    torch.testing.assert_close(log_det32.double(), log_det, rtol=1e-4, atol=1e-2)
