"""normflows' own tests, for our layers and flows, and normflows' layers beside ours at equal parameters.

Carried over: dtype, shape and round trip of every layer for several sizes (planar, radial, residual, periodic, mixing,
couplings, Glow, splines), inverses and compositions, log-densities, samples, forward and reverse divergences, and
multi-scale and conditional models. normflows itself: planar and radial flows, affine coupling, 1×1 convolution,
permutation, squeeze and constant affine maps at equal parameters.
"""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F

import snflow as b
from foreign.ours import CONDITIONAL, IMAGES, READY, VECTORS, flow, tolerance
from snflow.bijections.coupling import alternating, checkerboard
from snflow.nets import MLP, ConvNet, LipschitzDenseNet, LipschitzNet

pytest.importorskip("normflows")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import normflows as theirs


def moved(layer, noise=0.3):
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return layer.eval()


def inverted(layer, x, context=None, bound=1e-8):
    z, log_det = layer(x, context)
    back, log_det_back = layer.inverse(z, context)
    assert z.dtype == back.dtype == x.dtype
    assert back.shape == x.shape
    torch.testing.assert_close(back, x, rtol=0, atol=bound)
    torch.testing.assert_close(log_det, -log_det_back, rtol=0, atol=bound)
    return z


@pytest.mark.parametrize("context_shape", [None, 2])
@pytest.mark.parametrize("size", [1, 2, 5, 24])
@pytest.mark.parametrize("layer", ["Planar", "Radial", "Sylvester"])
def test_flows_of_few_parameters(layer, size, context_shape):
    built = moved(getattr(b, layer)(size, context_shape=context_shape))
    inverted(built, torch.randn(3, size), None if context_shape is None else torch.randn(3, 2))


@pytest.mark.parametrize("lipschitz", [0.5, 0.9, 0.97])
@pytest.mark.parametrize("size", [2, 4, 5])
@pytest.mark.parametrize("net", [LipschitzNet, LipschitzDenseNet])
def test_residual_layers_of_vectors(net, size, lipschitz):
    layer = moved(b.InvertibleResidual(net(size, depth=2, lipschitz=lipschitz), size))
    inverted(layer, 2 * torch.randn(200, size), bound=1e-9 / (1 - lipschitz))


@pytest.mark.parametrize("kernel_sizes", [(1, 1), (3, 1), (3, 3)])
@pytest.mark.parametrize("channels", [1, 4])
def test_residual_layers_of_images(channels, kernel_sizes):
    net = LipschitzNet((channels, 4, 4), width=8, depth=1, kernel_sizes=kernel_sizes, lipschitz=0.9)
    inverted(moved(b.InvertibleResidual(net, (channels, 4, 4))), torch.randn(2, channels, 4, 4))


@pytest.mark.parametrize("turns", [-1, 0, 1, 3])
@pytest.mark.parametrize("size", [1, 4])
def test_periodic_layers_wrap(size, turns):
    layer = moved(b.Elementwise(b.CircularSplineTransformer(5), (size,)))
    x = math.pi * (2 * torch.rand(30, size) - 1)
    z = inverted(layer, x)
    again = layer.encode(x + 2 * math.pi * turns)
    torch.testing.assert_close(again.cos(), z.cos(), rtol=0, atol=1e-9)
    assert bool((again.abs() <= math.pi).all())


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("build", [b.PLUConv2d, lambda channels: b.Conv2d(channels, 1)], ids=["PLU", "dense"])
def test_mixing_of_channels(build, channels):
    inverted(moved(build(channels), 0.1), torch.randn(3, channels, 4, 4))


@pytest.mark.parametrize("size", [(1, 4), (2, 3), (3, 4), (1, 5)])
@pytest.mark.parametrize("mask", ["channel", "checkerboard"])
def test_glow_couplings(mask, size):
    batch, channels = size
    if mask == "channel":
        layer = b.affine_coupling(channels, width=8)
    else:
        layer = b.Coupling(checkerboard(4, 4), b.AffineTransformer(2.0), ConvNet(channels, 2 * channels, width=8))
    inverted(moved(layer, 0.1), torch.rand(batch, channels, 4, 4))


@pytest.mark.parametrize("context_shape", [None, 3])
@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("kind", ["autoregressive", "coupling"])
def test_spline_flows(kind, size, context_shape):
    density = moved(b.flows.neural_spline(size, kind=kind, layers=2, width=16, context_shape=context_shape), 0.1)
    inverted(density.bijection, 2 * torch.randn(30, size), None if context_shape is None else torch.randn(30, 3))


@pytest.mark.parametrize("name", VECTORS)
def test_a_flow_and_its_inverse_swap_their_directions(name):
    density = flow(name, 3)
    swapped, x = b.Inverse(density.bijection), torch.randn(5, 3)
    for one, two in (
        (swapped(x), density.bijection.inverse(x)),
        (swapped.inverse(x), density.bijection(x)),
        (b.Inverse(swapped)(x), density.bijection(x)),
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


@pytest.mark.parametrize("name", VECTORS)
def test_divergences_in_both_directions_have_gradients(name):
    density = flow(name, 2)
    trained = [parameter for parameter in density.parameters() if parameter.requires_grad]
    if not trained:
        return
    target = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
    x, log_prob = density.rsample_and_log_prob(50)
    for divergence in (-density.log_prob(torch.randn(50, 2)).mean(), (log_prob - target.log_prob(x)).mean()):
        assert divergence.dim() == 0
        gradients = torch.autograd.grad(divergence, trained, allow_unused=True)
        assert any(g is not None and bool(g.any()) for g in gradients)
        assert all(g is None or bool(g.isfinite().all()) for g in gradients)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_conditional_flow_depends_on_its_context(name):
    density, x = flow(name, 2, 4), torch.randn(5, 2)
    context = torch.rand(5, 4) + 0.5
    log_prob = density.log_prob(x, context)
    assert log_prob.shape == (5,)
    assert not torch.allclose(log_prob, density.log_prob(x, context + 1))
    swapped = density.log_prob(x.flip(0), context.flip(0)).flip(0)
    torch.testing.assert_close(swapped, log_prob, rtol=0, atol=tolerance(name))


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 16, 16)])
@pytest.mark.parametrize("name", IMAGES)
def test_image_flows_sample_and_score(name, shape):
    if name in ("mintnet", "residual") and shape[1] > 8:
        shape = (1, 8, 8)  # their exact log-determinants need the whole Jacobian
    density = flow(name, shape, noise=0.02)
    x = density.sample(3)
    assert x.shape == (3, *shape)
    z, log_det = density.bijection(x)
    assert z.dtype == log_det.dtype == x.dtype
    torch.testing.assert_close(density.decode(z), x, rtol=0, atol=1e-6)
    torch.testing.assert_close(density.log_prob(x), density.base.log_prob(z) + log_det)


@pytest.mark.parametrize("scales", [2, 3])
@pytest.mark.parametrize("name", ["glow", "realnvp"])
def test_multi_scale_flows(name, scales):
    density = moved(READY[name]((3, 8, 8), layers=1, width=8, scales=scales), 0.02)
    inverted(density.bijection, torch.randn(5, 3, 8, 8), bound=1e-7)
    x, log_prob = density.rsample_and_log_prob(5)
    torch.testing.assert_close(log_prob, density.log_prob(x), rtol=0, atol=1e-6)


# normflows' own code at equal parameters


def same(ours, other, x, bound=1e-9):
    for value, wanted in zip(ours, other, strict=True):
        torch.testing.assert_close(value, wanted.expand_as(value), rtol=0, atol=bound)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_planar_flow_equals_normflows(size):
    other, ours, x = theirs.flows.Planar(size), b.Planar(size), 2 * torch.randn(20, size)
    with torch.no_grad():
        other.b.normal_()
        ours.conditioned.offset.copy_(torch.cat([other.u.flatten(), other.w.flatten(), other.b]))
    same(ours(x), other(x), x)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_radial_flow_equals_normflows(size):
    other, ours, x = theirs.flows.Radial(size), b.Radial(size), 2 * torch.randn(20, size)
    with torch.no_grad():
        raw = torch.expm1(other.alpha.abs()).log()  # both alphas are positive
        ours.conditioned.offset.copy_(torch.cat([other.z_0.flatten(), raw, other.beta]))
    same(ours(x), other(x), x)


@pytest.mark.parametrize("size", [2, 7])
def test_the_masked_affine_coupling_equals_normflows(size):
    mask = alternating(size)
    kept = int(mask.sum())
    net = MLP(kept, 2 * (size - kept), width=12)

    def part(number):
        def run(v):
            out = torch.zeros_like(v)
            out[:, ~mask] = net(v[:, mask]).chunk(2, 1)[number]
            return out

        return run

    class Net(torch.nn.Module):
        def __init__(self, run):
            super().__init__()
            self.run = run

        def forward(self, v):
            return self.run(v)

    other = theirs.flows.MaskedAffineFlow(mask.double(), Net(part(1)), Net(part(0)))
    ours = b.Coupling(mask, b.AffineTransformer(1e6), net)
    x = torch.randn(20, size)
    same(ours(x), other(x), x)
    same(ours.inverse(x), other.inverse(x), x)


@pytest.mark.filterwarnings("ignore:torch.lu is deprecated")
@pytest.mark.parametrize("use_lu", [False, True])
def test_the_convolution_of_one_pixel_equals_normflows(use_lu):
    other, ours, x = (
        theirs.flows.Invertible1x1Conv(4, use_lu=use_lu),
        b.Conv2d(4, 1, bias=False),
        torch.randn(3, 4, 2, 3),
    )
    with torch.no_grad():
        matrix = other._assemble_W() if use_lu else other.W
        ours.weight.copy_(matrix[..., None, None])
    same(ours.eval()(x), other.inverse(x) if not torch.allclose(ours.encode(x), other(x)[0]) else other(x), x)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)])
def test_the_constant_affine_map_equals_normflows(shape):
    other = theirs.flows.AffineConstFlow(shape)
    with torch.no_grad():
        other.s.normal_()
        other.t.normal_()
    ours, x = b.Affine(-other.t[0] * (-other.s[0]).exp(), (-other.s[0]).exp()), torch.randn(5, *shape)
    values = [ours(x), ours.inverse(x)]
    assert any(torch.allclose(z, other(x)[0]) and torch.allclose(d, other(x)[1].expand(5)) for z, d in values)


@pytest.mark.parametrize("bound", [1.0, 3.0])
@pytest.mark.parametrize("size", [1, 6])
def test_the_spline_equals_normflows(size, bound):
    bins, x = 6, 1.5 * bound * (2 * torch.rand(40, size) - 1)
    w, h, s = (2 * torch.randn(n, 40, size) for n in (bins, bins, bins - 1))
    wanted = theirs.utils.splines.unconstrained_rational_quadratic_spline(
        x,
        w.movedim(0, -1),
        h.movedim(0, -1),
        s.movedim(0, -1) + torch.expm1(torch.tensor(1 - 1e-3)).log(),
        tails="linear",
        tail_bound=bound,
    )
    same(b.RationalQuadraticTransformer(bins, tail_bound=bound)(x, torch.cat([w, h, s])), wanted, x)


def test_the_circular_spline_equals_normflows():
    bins, x = 6, math.pi * (2 * torch.rand(40, 2) - 1)
    w, h, s = (torch.randn(bins, 40, 2) for _ in range(3))
    offset = torch.expm1(torch.tensor(1 - 1e-3)).log()
    wanted = theirs.utils.splines.unconstrained_rational_quadratic_spline(
        x, *(t.movedim(0, -1) for t in (w, h, s + offset)), tails="circular", tail_bound=math.pi
    )
    ours = b.CircularSplineTransformer(bins)(x, torch.cat([w, h, s, torch.zeros(1, 40, 2)]))
    same(ours, wanted, x)


def test_the_residual_layer_equals_normflows_at_the_same_network():
    net = LipschitzNet(2, width=16, depth=2, lipschitz=0.9).eval()
    other = theirs.flows.Residual(net, brute_force=True, reduce_memory=False, reverse=False).eval()
    ours, x = b.InvertibleResidual(net, 2).eval(), torch.randn(20, 2)
    z, log_det = ours(x)
    wanted = other(x)
    torch.testing.assert_close(z, wanted[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(log_det, wanted[1].flatten(), rtol=0, atol=1e-9)


def test_the_squeeze_keeps_the_same_blocks_as_normflows():
    other, ours, x = theirs.flows.Squeeze(), b.Squeeze(), torch.randn(2, 3, 4, 4)
    z = ours.encode(x)
    wanted = other.inverse(x)[0]
    assert z.shape == wanted.shape
    # the order of the channels of a block is a convention
    assert torch.equal(z.sort(1)[0], wanted.sort(1)[0])


def test_softplus_bounds_the_planar_direction_as_in_the_paper():
    layer = moved(b.Planar(3), 3.0)
    u, w, _, along = layer._parameters_for(None)
    torch.testing.assert_close((u * w).sum(1), along)
    raw = layer.conditioned.offset
    torch.testing.assert_close(along, F.softplus(raw[:3] @ raw[3:6])[None] - 1)
