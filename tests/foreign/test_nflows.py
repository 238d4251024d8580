"""nflows' own tests, for our layers, and nflows' transforms beside ours at equal parameters.

Carried over: results of the right shapes, finite, with consistent directions, for linear layers, couplings, masked
networks, splines inside and outside their box, normalization, permutations, reshaping, logits and multi-scale chains;
couplings leave the kept elements alone; masked networks see earlier inputs only; samples and their log-densities, with
and without a context. nflows itself: the four splines, LU and Householder maps, affine couplings and the masked affine
autoregressive transform, at equal parameters.
"""

import pytest
import torch
import torch.nn.functional as F

import snflow as b
from foreign.ours import CONDITIONAL, VECTORS, flow, tolerance
from snflow.bijections.coupling import halves
from snflow.nets import MLP, ConvNet, MaskedMLP
from snflow.numerics.splines import cubic_spline, piecewise_linear, piecewise_quadratic, spline, spline_knots

pytest.importorskip("nflows")
from nflows.transforms import autoregressive, lu, orthogonal, splines
from nflows.transforms.coupling import AffineCouplingTransform


def consistent(layer, x, bound=1e-8, context=None):
    z, log_det = layer(x, context)
    back, log_det_back = layer.inverse(z, context)
    for value, shape in ((back, x.shape), (log_det, x.shape[:1]), (log_det_back, x.shape[:1])):
        assert value.shape == shape
        assert bool(value.isfinite().all())
    torch.testing.assert_close(back, x, rtol=0, atol=bound)
    torch.testing.assert_close(log_det + log_det_back, torch.zeros(len(x)), rtol=0, atol=bound)
    return z, log_det


LINEAR = {
    "dense": b.Dense,
    "LU": b.LULinear,
    "QR": b.QRLinear,
    "SVD": b.SVDLinear,
    "Householder": b.HouseholderLinear,
    "orthogonal": b.OrthogonalLinear,
    "triangular": b.TriangularLinear,
    "learned inverse": b.SelfNormalizingDense,
}


def linear(name, features):
    layer = LINEAR[name](features).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return layer


@pytest.mark.parametrize("features", [1, 5, 20])
@pytest.mark.parametrize("name", sorted(LINEAR))
def test_a_linear_layer_is_its_matrix(name, features):
    layer, x = linear(name, features), torch.randn(10, features)
    z, log_det = consistent(layer, x)
    bias = layer.encode(torch.zeros(1, features))
    matrix = (layer.encode(torch.eye(features)) - bias).T
    torch.testing.assert_close(z, x @ matrix.T + bias)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(matrix)[1].expand(10))
    if name in ("Householder", "orthogonal"):
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(features), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", sorted(LINEAR))
def test_a_linear_layer_sees_a_new_weight_after_its_inverse_is_kept(name):
    layer, x = linear(name, 4), torch.randn(3, 4)
    consistent(layer, x)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    consistent(layer, x)
    layer.train()
    layer(x)
    consistent(layer.eval(), x)


MAPS = {
    "affine": lambda: b.AffineTransformer(),
    "additive": lambda: b.AdditiveTransformer(),
    "linear": lambda: b.LinearSplineTransformer(tail_bound=1.0),
    "quadratic": lambda: b.QuadraticSplineTransformer(tail_bound=1.0),
    "cubic": lambda: b.CubicSplineTransformer(tail_bound=1.0),
    "rational-quadratic": lambda: b.RationalQuadraticTransformer(tail_bound=1.0),
}


def coupling(name, shape):
    transformer = MAPS[name]()
    kept = shape[0] // 2
    count = transformer.parameters_per_element * (shape[0] - kept)
    net = MLP(kept, count, width=30) if len(shape) == 1 else ConvNet(kept, count, width=8)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return b.Coupling(halves(shape[0]), transformer, net, image=len(shape) > 1)


@pytest.mark.parametrize("scale", [0.3, 3.0])
@pytest.mark.parametrize("shape", [(20,), (2, 4, 4)])
@pytest.mark.parametrize("name", sorted(MAPS))
def test_a_coupling_leaves_the_kept_elements_alone(name, shape, scale):
    layer, x = coupling(name, shape), scale * torch.randn(10, *shape)
    z, log_det = consistent(layer, x, 1e-7)
    kept = halves(shape[0])
    assert torch.equal(z[:, kept], x[:, kept])
    assert not torch.equal(z[:, ~kept], x[:, ~kept])
    assert torch.equal(layer.inverse(z)[0][:, kept], x[:, kept])
    if name == "additive":
        assert not bool(log_det.any())


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("scale", [0.3, 3.0])
@pytest.mark.parametrize("name", sorted(MAPS))
def test_an_autoregressive_layer_is_consistent(name, scale, residual):
    layer = b.Autoregressive(8, MAPS[name](), width=30, depth=3, residual=residual)
    consistent(layer, scale * torch.randn(10, 8), 1e-7)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("context_shape", [None, 6])
def test_a_masked_network_sees_earlier_inputs_only(residual, outputs, context_shape):
    net = MaskedMLP(10, outputs, width=64, depth=5, context_shape=context_shape, residual=residual, activation="tanh")
    context = None if context_shape is None else torch.randn(1, 6)
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v[None], context)[0], torch.randn(10))
    assert jacobian.shape == (outputs, 10, 10)
    seen = jacobian != 0
    assert not bool(seen.triu().any())
    assert bool((seen | ~torch.ones(10, 10).tril(-1).bool()).all())  # and all of them
    if context is not None:
        reach = torch.autograd.functional.jacobian(lambda c: net(torch.randn(1, 10), c)[0], context)
        assert bool((reach != 0).all())


@pytest.mark.parametrize("shape", [(100,), (32, 8, 8)])
def test_activation_normalization_is_set_once_and_loaded(shape):
    x = 5 + 3 * torch.randn(50, *shape)
    layer = b.ActNorm(shape[0], vectors=len(shape) == 1)
    z, log_det = consistent(layer, x)
    by_channel = z.movedim(1, 0).flatten(1)
    torch.testing.assert_close(by_channel.mean(1), torch.zeros(shape[0]))
    torch.testing.assert_close(by_channel.std(1, correction=0), torch.ones(shape[0]))
    twin = b.ActNorm(shape[0], vectors=len(shape) == 1)
    twin.load_state_dict(layer.state_dict())
    twin(torch.randn_like(x))
    torch.testing.assert_close(twin(x)[0], z, rtol=0, atol=0)
    torch.testing.assert_close(twin(x)[1], log_det, rtol=0, atol=0)


def test_batch_normalization_uses_the_moments_of_the_batch_and_inverts_in_eval_only():
    layer, x = b.BatchNorm(100), 2 + 3 * torch.randn(50, 100)
    z, log_det = layer(x)
    variance = x.var(0, correction=0) + layer.eps
    torch.testing.assert_close(z, (x - x.mean(0)) / variance.sqrt())
    torch.testing.assert_close(log_det, -0.5 * variance.log().sum().expand(50))
    with pytest.raises(b.errors.NotInvertibleError):
        layer.inverse(z)
    consistent(layer.eval(), x)


@pytest.mark.parametrize("features", [1, 2, 100])
def test_a_permutation_moves_and_does_not_scale(features):
    order, x = torch.randperm(features), torch.randn(10, features)
    z, log_det = consistent(b.Permutation(order.tolist()), x, 0.0)
    assert torch.equal(z, x[:, order])
    assert not bool(log_det.any())


@pytest.mark.parametrize("alpha", [1e-6, 0.05])
def test_a_logit_is_finite_at_both_ends(alpha):
    x = torch.cat([torch.zeros(5, 4), torch.ones(5, 4), torch.rand(5, 4)])
    consistent(b.Logit(alpha), x, 1e-9)


SPLINES = ["linear", "quadratic", "cubic", "rational-quadratic"]


@pytest.mark.parametrize("end", [-1.0, 1.0])
@pytest.mark.parametrize("name", SPLINES)
def test_a_spline_keeps_the_ends_of_its_box(name, end):
    transformer = MAPS[name]()
    h = torch.randn(transformer.parameters_per_element, 1, 6)
    x = torch.full((1, 6), end)
    torch.testing.assert_close(transformer(x, h)[0], x, rtol=0, atol=1e-12)
    torch.testing.assert_close(transformer.inverse(x, h)[0], x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [2, 4])
def test_squeezing_keeps_every_value(factor):
    x = torch.randn(10, 3, 8, 8)
    z, log_det = consistent(b.Squeeze(factor), x, 0.0)
    assert z.shape == (10, 3 * factor**2, 8 // factor, 8 // factor)
    assert torch.equal(z.flatten().sort()[0], x.flatten().sort()[0])
    assert not bool(log_det.any())


@pytest.mark.parametrize("shape", [(4, 4, 4), (5, 2, 2)])
def test_a_split_passes_one_part_on(shape):
    layer = b.Split(shape, b.LeakyReLU(0.5))
    consistent(layer, torch.randn(6, *shape))


@pytest.mark.parametrize("name", VECTORS)
def test_samples_come_with_their_log_density(name):
    density = flow(name, 3)
    x, log_prob = density.rsample_and_log_prob(10)
    assert (x.shape, log_prob.shape) == ((10, 3), (10,))
    torch.testing.assert_close(log_prob, density.log_prob(x), rtol=0, atol=1e3 * tolerance(name))
    assert density.encode(x).shape == (10, 3)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_samples_with_a_context_come_with_their_log_density(name):
    density, context = flow(name, 3, 4), torch.randn(5, 4)
    x, log_prob = density.rsample_and_log_prob(10, context)
    assert (x.shape, log_prob.shape) == ((10, 5, 3), (10, 5))
    rows = x.flatten(0, 1), context.repeat(10, 1)
    torch.testing.assert_close(log_prob.flatten(), density.log_prob(*rows), rtol=0, atol=1e3 * tolerance(name))
    assert density.encode(*rows).shape == (50, 3)


@pytest.mark.parametrize("shape", [(6,), (2, 3, 4)])
def test_base_densities(shape):
    for base in (b.StandardNormal(shape), b.DiagonalNormal(shape), b.Logistic(shape), b.Uniform(shape)):
        z = base.sample(10)
        assert z.shape == (10, *shape)
        assert base.log_prob(z).shape == (10,)
        assert bool(base.log_prob(z).isfinite().all())


# nflows' own code at equal parameters

BINS = 7


def parameters(count):
    return 2 * torch.randn(count, 40, 5)


def theirs_last(h):
    return h.movedim(0, -1)


def points(bound):
    return 1.5 * bound * (2 * torch.rand(40, 5) - 1)


@pytest.mark.parametrize("bound", [1.0, 4.0])
def test_the_rational_quadratic_spline_equals_nflows(bound):
    w, h, s, x = parameters(BINS), parameters(BINS), parameters(BINS - 1), points(bound)
    offset = torch.expm1(torch.tensor(1 - 1e-3)).log()
    arguments = {
        "unnormalized_widths": theirs_last(w),
        "unnormalized_heights": theirs_last(h),
        "unnormalized_derivatives": theirs_last(s) + offset,
        "tail_bound": bound,
    }
    wanted, wanted_log_slope = splines.unconstrained_rational_quadratic_spline(x, **arguments)
    knots = spline_knots(*map(theirs_last, (w, h, s)), bound=bound)
    z, log_slope = spline(x, knots)
    torch.testing.assert_close(z, wanted, rtol=0, atol=1e-9)
    torch.testing.assert_close(log_slope, wanted_log_slope, rtol=0, atol=1e-9)
    transformer = b.RationalQuadraticTransformer(BINS, tail_bound=bound)
    torch.testing.assert_close(transformer(x, torch.cat([w, h, s]))[0], wanted, rtol=0, atol=1e-9)
    back = splines.unconstrained_rational_quadratic_spline(z, **arguments, inverse=True)[0]
    torch.testing.assert_close(transformer.inverse(z, torch.cat([w, h, s]))[0], back, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bound", [1.0, 4.0])
def test_the_linear_spline_equals_nflows(bound):
    h, x = parameters(BINS), points(bound)
    shares = 1e-3 + (1 - BINS * 1e-3) * theirs_last(h).softmax(-1)
    wanted, log_slope = splines.unconstrained_linear_spline(x, shares.log(), tail_bound=bound)
    ours = piecewise_linear(x, h, bound=bound)
    torch.testing.assert_close(ours[0], wanted, rtol=0, atol=1e-9)
    torch.testing.assert_close(ours[1], log_slope, rtol=0, atol=1e-9)


@pytest.mark.parametrize("bound", [1.0, 4.0])
def test_the_quadratic_spline_equals_nflows(bound):
    w, s, x = parameters(BINS), parameters(BINS + 1), points(bound).clamp(-bound, bound)
    wanted, log_slope = splines.quadratic_spline(
        x, theirs_last(w), theirs_last(s), left=-bound, right=bound, bottom=-bound, top=bound, min_bin_height=0.0
    )
    ours = piecewise_quadratic(x, w, s, bound=bound)
    torch.testing.assert_close(ours[0], wanted, rtol=0, atol=1e-9)
    torch.testing.assert_close(ours[1], log_slope, rtol=0, atol=1e-9)


@pytest.mark.parametrize("bound", [1.0, 4.0])
def test_the_cubic_spline_equals_nflows(bound):
    w, h, ends, x = parameters(BINS), parameters(BINS), parameters(2), points(bound)
    left, right = (theirs_last(ends) - torch.tensor(2.0).log()).split(1, -1)
    wanted, log_slope = splines.unconstrained_cubic_spline(
        x, theirs_last(w), theirs_last(h), left, right, tail_bound=bound
    )
    ours = cubic_spline(x, w, h, ends, bound=bound)
    torch.testing.assert_close(ours[0], wanted, rtol=0, atol=1e-9)
    torch.testing.assert_close(ours[1], log_slope, rtol=0, atol=1e-7)


def test_the_lu_layer_equals_nflows():
    theirs, ours = lu.LULinear(5, identity_init=False), b.LULinear(5, identity=True)
    lower, upper = (matrix.detach() for matrix in theirs._create_lower_upper())
    with torch.no_grad():
        ours.lower.copy_(lower.tril(-1))
        ours.upper.copy_(upper.triu(1))
        ours.log_diagonal.copy_(upper.diagonal().log())
        ours.bias.copy_(theirs.bias)
    x = torch.randn(10, 5)
    for value, wanted in zip(ours(x), theirs(x), strict=True):
        torch.testing.assert_close(value, wanted)


@pytest.mark.parametrize("reflections", [1, 2, 5])
def test_the_householder_layer_equals_nflows(reflections):
    theirs = orthogonal.HouseholderSequence(5, reflections)
    ours = b.HouseholderLinear(5, reflections=reflections, bias=False)
    vectors = torch.randn(reflections, 5)
    with torch.no_grad():
        theirs.q_vectors.copy_(vectors)
        next(iter(ours.parameters())).copy_(vectors)
    x = torch.randn(10, 5)
    found = ours.encode(x)
    # the order of the reflections is a convention
    options = [theirs(x)[0], theirs.inverse(x)[0]]
    assert any(torch.allclose(found, option) for option in options)


class Positive(b.Transformer):
    """z = σ x + t with the positive map σ of an nflows transform."""

    parameters_per_element = 2

    def __init__(self, positive, shift):
        super().__init__()
        self.positive, self.shift = positive, shift

    def forward(self, x, h):
        scale = self.positive(h[1 - self.shift])
        return scale * x + h[self.shift], scale.log()

    def inverse(self, z, h):
        scale = self.positive(h[1 - self.shift])
        return (z - h[self.shift]) / scale, -scale.log()


@pytest.mark.parametrize("shape", [(6,), (4, 3, 3)])
def test_the_affine_coupling_equals_nflows(shape):
    kept = shape[0] // 2
    net = MLP(kept, 2 * kept, width=12) if len(shape) == 1 else ConvNet(kept, 2 * kept, width=8)
    theirs = AffineCouplingTransform((~halves(shape[0])).double(), lambda *_: lambda v, context: net(v))
    # nflows orders scales after shifts
    transformer = Positive(lambda raw: torch.sigmoid(raw + 2) + 1e-3, shift=0)
    ours = b.Coupling(halves(shape[0]), transformer, net, image=len(shape) > 1)
    x = torch.randn(10, *shape)
    z, log_det = ours(x)
    wanted = theirs(x)
    torch.testing.assert_close(z, wanted[0])
    torch.testing.assert_close(log_det, wanted[1])
    torch.testing.assert_close(ours.decode(z), theirs.inverse(z)[0])


@pytest.mark.parametrize("features", [2, 5])
def test_the_masked_affine_transform_equals_nflows_at_equal_weights(features):
    theirs = autoregressive.MaskedAffineAutoregressiveTransform(
        features, hidden_features=16, num_blocks=2, use_residual_blocks=False
    )
    transformer = Positive(lambda raw: F.softplus(raw) + 1e-3, shift=1)
    ours = b.Autoregressive(features, transformer, width=16, depth=3, solver="jacobi")
    net = theirs.autoregressive_net
    sources = [net.initial_layer, *(block.linear for block in net.blocks), net.final_layer]
    with torch.no_grad():
        for source, target in zip(sources, [ours.net.first, *ours.net.hidden, ours.net.last], strict=True):
            target.weight.copy_(source.weight)
            target.mask.copy_(source.mask)
            target.bias.copy_(source.bias)
    x = torch.randn(20, features)
    z, log_det = ours(x)
    wanted = theirs(x)
    torch.testing.assert_close(z, wanted[0])
    torch.testing.assert_close(log_det, wanted[1])
    torch.testing.assert_close(ours.decode(z), theirs.inverse(z)[0])
