"""zuko's own tests, for our flows and transformers, and zuko's flows beside ours.

Carried over: every flow evaluates, samples and is differentiated with and without a context, with the right shapes; a
gradient reaches every parameter; ``train()`` and ``eval()`` agree; both directions invert each other in single
precision, and their Jacobians are inverses; files and ``repr``; triangular Jacobians of autoregressive layers and
couplings; univariate maps on a line, with shared and with own parameters. zuko itself: its spline and its masked
autoregressive flow at equal parameters, and its layers under our checks.
"""

import math

import pytest
import torch

from foreign.ours import CONDITIONAL, VECTORS, flow, tolerance
from snflow import (
    AdditiveTransformer,
    AffineTransformer,
    Autoregressive,
    Chain,
    Coupling,
    CubicSplineTransformer,
    Flow,
    GatedTransformer,
    IntegralTransformer,
    LinearSplineTransformer,
    LogisticMixtureTransformer,
    Permutation,
    QuadraticSplineTransformer,
    RationalQuadraticTransformer,
    SigmoidalTransformer,
    StandardNormal,
    SumOfSquaresTransformer,
    TanhTransformer,
    Transformer,
)
from snflow.bijections.coupling import alternating, halves
from snflow.nets import MLP
from snflow.numerics.splines import SplineKnots, inverse_spline, spline
from snflow.testing import Case, ForeignLayer
from snflow.testing.checks import CHECKS

zuko = pytest.importorskip("zuko")

ESTIMATED = {"densenet", "pair", "residual"}
"""Flows that estimate a norm or a log-determinant in ``train()``, and compute it in ``eval()``."""

LEARNED = ("dense", "pair")
"""Flows whose learned inverse takes no part in densities and exact samples."""


def given(name, with_context, batch=256):
    density = flow(name, 3, 5 if with_context else None)
    return density, torch.randn(batch, 3), torch.randn(batch, 5) if with_context else None


CASES = [*((name, False) for name in VECTORS), *((name, True) for name in CONDITIONAL)]


@pytest.mark.parametrize(("name", "with_context"), CASES)
def test_a_density_reaches_every_parameter(name, with_context):
    density, x, context = given(name, with_context, 32)
    log_prob = density.log_prob(x, context)
    assert log_prob.shape == (32,)
    (-log_prob.mean()).backward()
    for key, parameter in density.named_parameters():
        assert parameter.grad is not None or name in LEARNED, key
        assert parameter.grad is None or bool(parameter.grad.isfinite().all()), key


@pytest.mark.parametrize(("name", "with_context"), [case for case in CASES if case[0] not in ESTIMATED])
def test_train_and_eval_agree(name, with_context):
    density, x, context = given(name, with_context, 8)
    density.train()
    density.log_prob(x, context)  # the values of data-dependent layers and of learned log-determinants
    once = density.log_prob(x, context)
    torch.testing.assert_close(
        density.eval().log_prob(x, context), once, rtol=0, atol=1e-6 if name != "ffjord" else 1e-2
    )


@pytest.mark.parametrize(("name", "with_context"), CASES)
def test_samples_have_the_shape_of_data_and_reach_every_parameter(name, with_context):
    density, _, context = given(name, with_context, 4)
    assert density.sample(3, context).shape == ((3, 4, 3) if with_context else (3, 3))
    density.rsample(3, context).square().sum().backward()
    for key, parameter in density.named_parameters():
        # the last layers of a stack do not see a shift of their log-scale; a learned inverse is not used
        assert parameter.grad is not None or name in LEARNED, key


@pytest.mark.parametrize(("name", "with_context"), CASES)
def test_a_round_trip_in_single_precision(name, with_context):
    density, x, context = (value.float() if value is not None else None for value in given(name, with_context))
    back = density.decode(density.encode(x, context), context)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("name", "with_context"), CASES)
def test_the_jacobians_of_the_two_directions_are_inverses(name, with_context):
    density, x, context = given(name, with_context, 1)
    layer = density.bijection
    z, log_det = layer(x, context)
    forward = torch.autograd.functional.jacobian(lambda v: layer.encode(v[None], context)[0], x[0])
    backward = torch.autograd.functional.jacobian(lambda v: layer.decode(v[None], context)[0], z[0].detach())
    bound = 1e3 * tolerance(name)
    torch.testing.assert_close(forward @ backward, torch.eye(3), rtol=0, atol=bound)
    torch.testing.assert_close(torch.linalg.slogdet(forward)[1], log_det[0], rtol=0, atol=bound)


@pytest.mark.parametrize("name", VECTORS)
def test_a_flow_is_saved_loaded_and_printed(name, tmp_path):
    density, x, _ = given(name, False, 4)
    torch.save(density, tmp_path / "flow.pt")
    again = torch.load(tmp_path / "flow.pt", weights_only=False)
    torch.testing.assert_close(again.log_prob(x), density.log_prob(x), rtol=0, atol=0)
    assert repr(density)


# Univariate maps

TRANSFORMERS = {
    "additive": AdditiveTransformer(),
    "affine": AffineTransformer(),
    "gated": GatedTransformer(),
    "tanh": TanhTransformer(3),
    "linear spline": LinearSplineTransformer(5),
    "quadratic spline": QuadraticSplineTransformer(5),
    "cubic spline": CubicSplineTransformer(5),
    "rational-quadratic spline": RationalQuadraticTransformer(5),
    "logistic mixture": LogisticMixtureTransformer(3),
    "sigmoidal": SigmoidalTransformer(4),
    "sum of squares": SumOfSquaresTransformer(2, 2),
    "integral": None,
}


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("name", sorted(TRANSFORMERS))
def test_a_univariate_map_on_a_line(name, batched):
    transformer = TRANSFORMERS[name] or IntegralTransformer(3, width=6)
    transformer = transformer.double()
    x = torch.linspace(-6, 6, 129)[:, None]
    h = torch.randn(transformer.parameters_per_element, len(x) if batched else 1, 1)
    z, log_slope = transformer(x, h)
    assert z.shape == log_slope.shape == x.shape
    back, inverse_log_slope = transformer.inverse(z, h)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-7)
    torch.testing.assert_close(inverse_log_slope, -log_slope, rtol=0, atol=1e-7)
    torch.testing.assert_close(transformer.decode(z, h), back, rtol=0, atol=1e-12)
    if not batched:
        assert bool((z.diff(dim=0) > 0).all())
    at = x.clone().requires_grad_()
    slope = torch.autograd.grad(transformer(at, h)[0].sum(), at)[0]
    torch.testing.assert_close(slope.log(), log_slope, rtol=0, atol=1e-7)
    at = z.detach().clone().requires_grad_()
    slope = torch.autograd.grad(transformer.inverse(at, h)[0].sum(), at)[0]
    torch.testing.assert_close(slope.log(), inverse_log_slope, rtol=0, atol=1e-7)


# Triangular maps


def triangular(kind, context_shape):
    if kind == "coupling":
        net = MLP(2, 6, width=8, context_shape=context_shape)
        return Coupling(halves(5), AffineTransformer(), net, context_shape=context_shape), None
    if kind == "alternating coupling":
        net = MLP(3, 4, width=8, context_shape=context_shape)
        return Coupling(alternating(5), AffineTransformer(), net, context_shape=context_shape), [0, 2, 4, 1, 3]
    solver = kind.split()[-1]
    layer = Autoregressive(5, AffineTransformer(), width=12, context_shape=context_shape, solver=solver)
    if kind.startswith("reversed"):
        reverse = [4, 3, 2, 1, 0]
        return Chain([Permutation(reverse), layer, Permutation(reverse)]), reverse
    return layer, None


@pytest.mark.parametrize("context_shape", [None, 7])
@pytest.mark.parametrize(
    "kind", ["coupling", "alternating coupling", "in order, steps", "in order, jacobi", "reversed order, steps"]
)
def test_triangular_maps(kind, context_shape):
    layer, order = triangular(kind, context_shape)
    order = list(range(5)) if order is None else order
    x, context = torch.randn(64, 5), None if context_shape is None else torch.randn(64, 7)
    z, log_det = layer(x, context)
    assert z.requires_grad
    torch.testing.assert_close(layer.decode(z, context), x)
    row = None if context is None else context[:1]
    jacobian = torch.autograd.functional.jacobian(lambda v: layer.encode(v[None], row)[0], x[0])[order][:, order]
    assert not bool(jacobian.triu(1).any())
    torch.testing.assert_close(jacobian.diagonal().log().sum(), log_det[0])


# zuko's own code at equal parameters


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("bound", [1.0, 5.0])
def test_the_spline_equals_zukos_at_equal_knots(batched, bound):
    batch = (200,) if batched else ()
    theirs = zuko.transforms.MonotonicRQSTransform(
        3 * torch.randn(*batch, 8), 3 * torch.randn(*batch, 8), 3 * torch.randn(*batch, 7), bound=bound
    )
    tables = (theirs.horizontal, theirs.vertical, theirs.derivatives)
    ours = SplineKnots(*(table.movedim(-1, 0) for table in tables), bound)
    x = torch.linspace(-1.5 * bound, 1.5 * bound, 200)
    ours = ours if batched else SplineKnots(*(table[:, None].expand(-1, 200) for table in ours[:3]), bound)
    z, log_slope = (part[0] for part in spline(x[None], SplineKnots(*(t[:, None] for t in ours[:3]), bound)))
    wanted, wanted_log_slope = theirs.call_and_ladj(x)
    torch.testing.assert_close(z, wanted, rtol=0, atol=1e-9)
    torch.testing.assert_close(log_slope, wanted_log_slope, rtol=0, atol=1e-9)
    back = inverse_spline(z[None], SplineKnots(*(t[:, None] for t in ours[:3]), bound))[0][0]
    torch.testing.assert_close(back, theirs.inv(z), rtol=0, atol=1e-7)


class Softclipped(Transformer):
    """z = x exp(s) + t, s = a/(1 + |a/log 1000|), with zuko's order of parameters."""

    parameters_per_element = 2

    def forward(self, x, h):
        s = self._log_scale(h)
        return x * s.exp() + h[0], s.expand_as(x)

    def inverse(self, z, h):
        s = self._log_scale(h)
        return (z - h[0]) * (-s).exp(), -s.expand_as(z)

    def _log_scale(self, h):
        return h[1] / (1 + (h[1] / math.log(1000)).abs())


def as_ours(theirs, features, context, flipped):
    """Our layer with the weights of a masked autoregressive transform of zuko, for features in the order of its net."""
    layer = Autoregressive(features, Softclipped(), width=16, depth=2, context_shape=context or None, solver="jacobi")
    first, middle, last = (part for part in theirs.hyper if hasattr(part, "mask"))
    ends = [(first, layer.net.first), (middle, layer.net.hidden[0]), (last, layer.net.last)]
    with torch.no_grad():
        for source, target in ends:
            weight, mask, bias = source.weight, source.mask.to(source.weight.dtype), source.bias
            if source is first:
                if context:
                    layer.net.context.weight.copy_((weight * mask)[:, features:])
                weight, mask = weight[:, :features], mask[:, :features]
                if flipped:
                    weight, mask = weight.flip(1), mask.flip(1)
            if source is last and flipped:
                weight, mask, bias = (t.unflatten(0, (features, 2)).flip(0).flatten(0, 1) for t in (weight, mask, bias))
            target.weight.copy_(weight)
            target.mask.copy_(mask)
            target.bias.copy_(bias)
    if not flipped:
        return [layer]
    reverse = Permutation(list(range(features))[::-1])
    return [reverse, layer, Permutation(list(range(features))[::-1])]


@pytest.mark.parametrize("context", [0, 4])
@pytest.mark.parametrize("features", [2, 5])
def test_a_masked_autoregressive_flow_equals_zukos_at_equal_weights(features, context):
    theirs = zuko.flows.MAF(features, context, transforms=3, hidden_features=(16, 16))
    layers = [
        part
        for number, transform in enumerate(theirs.transform.transforms)
        for part in as_ours(transform, features, context, flipped=number % 2 == 1)
    ]
    ours = Flow(Chain(layers), StandardNormal(features))
    x, c = 2 * torch.randn(50, features), torch.randn(50, context) if context else None
    torch.testing.assert_close(ours.log_prob(x, c), theirs(c).log_prob(x))
    z = torch.randn(50, features)
    torch.testing.assert_close(ours.decode(z, c), theirs(c).transform.inv(z))
    theirs(c).log_prob(x).sum().backward()
    gradient = theirs.transform.transforms[0].hyper[-1].weight.grad
    ours.log_prob(x, c).sum().backward()
    torch.testing.assert_close(layers[0].net.last.weight.grad, gradient * layers[0].net.last.mask)


FOREIGN = {
    "NICE": zuko.flows.NICE,
    "MAF": zuko.flows.MAF,
    "NSF": zuko.flows.NSF,
    "SOSPF": zuko.flows.SOSPF,
    "NAF": zuko.flows.NAF,
    "BPF": zuko.flows.BPF,
}


@pytest.mark.parametrize("check", ["round_trip", "log_det", "rows"])
@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_zukos_flows_pass_our_checks(name, check):
    def build():
        torch.manual_seed(0)
        theirs = FOREIGN[name](3, transforms=2)
        return ForeignLayer(
            theirs,
            lambda module, x, _: module().transform.call_and_ladj(x),
            lambda module, z, _: module().transform.inv.call_and_ladj(z),
            3,
        )

    # zuko inverts monotone networks by a bisection to 1e-6
    CHECKS[check](Case(build, (3,), round_trip=1e-4, log_det=1e-4, rows=1e-9))
