"""The rational-quadratic spline: values, derivatives, edges; parameters shared by the batch or per sample."""

import math

import pytest
import torch
from torch.func import functional_call, jacrev, stack_module_state, vmap

from snflow.bijections.elementwise import rational_quadratic_spline
from snflow.errors import ConfigError, ShapeError
from snflow.numerics.splines import SplineKnots, inverse_spline, spline, spline_knots

BOUND = 3.0


def make_knots(*shape, bins=5, scale=1.0, dtype=torch.float64):
    widths, heights, slopes = (scale * torch.randn(*shape, n, dtype=dtype) for n in (bins, bins, bins - 1))
    return spline_knots(widths, heights, slopes, bound=BOUND)


def edges(bound, dtype):
    bounds = torch.tensor([-bound, bound], dtype=dtype)
    ulps = [bounds.nextafter(torch.full_like(bounds, side)) for side in (-math.inf, math.inf)]
    return torch.cat([bounds, *ulps, torch.zeros(1, dtype=dtype)])


class TestFunctions:
    @pytest.mark.parametrize("bins", [1, 2, 5, 16])
    @pytest.mark.parametrize("shape", [(6,), (2, 3)])
    def test_round_trip_in_both_directions(self, bins, shape):
        knots = make_knots(*shape, bins=bins)
        points = 2 * BOUND * torch.randn(200, *shape)
        z, log_forward = spline(points, knots)
        x, log_inverse = inverse_spline(z, knots)
        torch.testing.assert_close(x, points, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(log_forward, -log_inverse, rtol=0, atol=1e-8)
        x, _ = inverse_spline(points, knots)
        torch.testing.assert_close(spline(x, knots)[0], points, rtol=1e-9, atol=1e-10)

    def test_log_derivative_is_the_derivative(self):
        knots = make_knots(6)
        x = (2 * BOUND * torch.randn(100, 6)).requires_grad_()
        for function in (spline, inverse_spline):
            value, log_derivative = function(x, knots)
            (derivative,) = torch.autograd.grad(value.sum(), x)
            torch.testing.assert_close(log_derivative, derivative.log(), rtol=0, atol=1e-9)

    def test_passes_through_its_knots_with_its_slopes(self):
        knots = make_knots(4)
        z, log_derivative = spline(knots.x, knots)
        torch.testing.assert_close(z, knots.y)
        torch.testing.assert_close(log_derivative.exp(), knots.slopes)
        torch.testing.assert_close(inverse_spline(knots.y, knots)[0], knots.x)

    def test_zero_parameters_are_the_identity(self):
        knots = make_knots(3, scale=0.0)
        x = 5 * torch.randn(100, 3)
        for function in (spline, inverse_spline):
            value, log_derivative = function(x, knots)
            torch.testing.assert_close(value, x, rtol=1e-14, atol=1e-14)
            torch.testing.assert_close(log_derivative, torch.zeros_like(x), rtol=0, atol=1e-14)

    def test_minimum_sizes_hold(self):
        knots = make_knots(50, scale=300.0)
        assert knots.x.diff(dim=0).min() >= 2 * BOUND * 1e-3 * (1 - 1e-9)
        assert knots.y.diff(dim=0).min() >= 2 * BOUND * 1e-3 * (1 - 1e-9)
        assert knots.slopes.min() >= 1e-3

    def test_ends_are_exact(self):
        knots = make_knots(500, dtype=torch.float32)
        for ends in (knots.x[[0, -1]], knots.y[[0, -1]]):
            assert torch.equal(ends, BOUND * torch.tensor([[-1.0], [1.0]], dtype=torch.float32).expand(2, 500))

    def test_parameters_of_each_sample_agree_with_shared_ones(self):
        parameters = [torch.randn(2, 3, n) for n in (5, 5, 4)]
        shared = spline_knots(*parameters, bound=BOUND)
        each = spline_knots(*(p.expand(7, *p.shape) for p in parameters), bound=BOUND)
        x = 2 * torch.randn(7, 2, 3)
        for function in (spline, inverse_spline):
            for one, other in zip(function(x, shared), function(x, each), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)

    def test_parameters_of_each_sample_are_used_by_that_sample(self):
        parameters = [torch.randn(7, 3, n) for n in (5, 5, 4)]
        x = torch.randn(7, 3)
        z, log_derivative = spline(x, spline_knots(*parameters, bound=BOUND))
        for row in range(7):
            one, log_one = spline(x[row : row + 1], spline_knots(*(p[row] for p in parameters), bound=BOUND))
            torch.testing.assert_close(one[0], z[row], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(log_one[0], log_derivative[row], rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("function", [spline, inverse_spline])
    @pytest.mark.parametrize("per_sample", [False, True])
    def test_gradcheck(self, function, per_sample):
        lead = (4, 2) if per_sample else (2,)
        parameters = [torch.randn(*lead, n, requires_grad=True) for n in (4, 4, 3)]
        # two in the tails, two in the box
        x = torch.tensor([[-4.0, -1.3], [0.4, 5.0], [2.2, 0.1], [-2.9, 2.9]], requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda x, w, h, s: function(x, spline_knots(w, h, s, bound=BOUND)), (x, *parameters)
        )

    def test_density_integrates_to_one(self):
        knots = make_knots(4)
        x = torch.linspace(-12, 12, 100_001)[:, None].expand(-1, 4)
        z, log_derivative = spline(x, knots)
        density = (torch.distributions.Normal(0.0, 1.0).log_prob(z) + log_derivative).exp()
        torch.testing.assert_close(torch.trapezoid(density, x, dim=0), torch.ones(4), rtol=0, atol=1e-6)


class TestEdges:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("function", [spline, inverse_spline])
    def test_values_and_gradients_at_the_ends_of_the_box(self, function, dtype):
        x = edges(BOUND, dtype)[:, None].requires_grad_()
        parameters = [torch.randn(1, n, dtype=dtype).requires_grad_() for n in (5, 5, 4)]
        value, log_derivative = function(x, spline_knots(*parameters, bound=BOUND))
        at_end = x.abs() > 1
        tolerance = 1e-5 if dtype == torch.float32 else 1e-13
        torch.testing.assert_close(value[at_end], x[at_end], rtol=tolerance, atol=0)
        torch.testing.assert_close(
            log_derivative[at_end].exp(), torch.ones(6, dtype=dtype), rtol=10 * tolerance, atol=0
        )
        (value.sum() + log_derivative.sum()).backward()
        assert all(t.grad.isfinite().all() for t in (x, *parameters))

    @pytest.mark.parametrize("function", [spline, inverse_spline])
    def test_all_in_the_tails(self, function):
        x = torch.tensor([[-1e30, 1e30], [-1e300, 3.1], [-math.inf, math.inf]], requires_grad=True)
        parameters = [torch.randn(2, n, requires_grad=True) for n in (5, 5, 4)]
        value, log_derivative = function(x, spline_knots(*parameters, bound=BOUND))
        assert torch.equal(value, x)
        assert torch.equal(log_derivative, torch.zeros_like(x))
        (value.sum() + log_derivative.sum()).backward()
        assert torch.equal(x.grad, torch.ones_like(x))
        assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in parameters)

    @pytest.mark.parametrize("function", [spline, inverse_spline])
    def test_nan_stays_in_its_row(self, function):
        knots = make_knots(4)
        x = 2 * torch.randn(6, 4)
        bad = x.clone()
        bad[2] = math.nan
        for good_result, bad_result in zip(function(x, knots), function(bad, knots), strict=True):
            assert bad_result[2].isnan().all()
            keep = torch.arange(6) != 2
            assert torch.equal(good_result[keep], bad_result[keep])

    @pytest.mark.parametrize("size", [30.0, 1e3])
    def test_float32_with_extreme_parameters(self, size):
        parameters = [size * torch.randn(64, n, dtype=torch.float32) for n in (5, 5, 4)]
        exact = spline_knots(*(p.double() for p in parameters), bound=BOUND)
        x = torch.empty(256, 64, dtype=torch.float32).uniform_(-BOUND, BOUND)
        single = SplineKnots(*(t.float() for t in exact[:3]), BOUND)
        for function in (spline, inverse_spline):
            value, log_derivative = function(x, single)
            assert value.isfinite().all()
            assert log_derivative.isfinite().all()
            assert value.abs().max() <= BOUND * (1 + 1e-6)
        # backward error: the inverse is ill conditioned where the spline is flat, its image is not
        z = x.clamp(-0.999 * BOUND, 0.999 * BOUND)
        back = spline(inverse_spline(z, single)[0].double(), exact)[0]
        slope = spline(inverse_spline(z.double(), exact)[0], exact)[1].exp()
        assert ((back - z).abs() <= 4e-6 * (1 + slope)).double().mean() > 0.999

    def test_steep_right_end_does_not_cancel_in_float32(self):
        knots = SplineKnots(
            torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float32),
            torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float32),
            torch.tensor([[1.0], [1e5], [1.0]], dtype=torch.float32),
            1.0,
        )
        exact = SplineKnots(*(t.double() for t in knots[:3]), 1.0)
        z = torch.linspace(-0.999, -0.001, 101, dtype=torch.float32)[:, None]
        x, _ = inverse_spline(z, knots)
        torch.testing.assert_close(x.double(), inverse_spline(z.double(), exact)[0], rtol=0, atol=1e-6)

    def test_flat_ends_of_a_steep_bin_stay_in_the_bin_in_float32(self):
        # mean slope 500 between slopes of 1e-3: the discriminant is 1e-6, far below the rounding of its terms
        x = torch.tensor([[-1.0], [0.0], [2e-3], [1.0]], dtype=torch.float32)
        y = torch.tensor([[-1.0], [-0.99], [0.01], [1.0]], dtype=torch.float32)
        slopes = torch.tensor([[1.0], [1e-3], [1e-3], [1.0]], dtype=torch.float32)
        below_the_knot = 1e3 * torch.linspace(0, 3e-5, 2001, dtype=torch.float32)[1:].square()
        z = (0.01 - below_the_knot)[:, None].requires_grad_()
        back, log_derivative = inverse_spline(z, SplineKnots(x, y, slopes, 1.0))
        assert log_derivative.isfinite().all()
        inside = z < y[2]  # the others rounded to the knot, which opens the next bin
        assert inside.any()
        assert back[inside].max() <= x[2]
        back.sum().backward()
        assert z.grad.isfinite().all()


class TestLayer:
    def test_log_det_against_the_jacobian(self):
        layer = rational_quadratic_spline((2, 3), bins=4, tail_bound=BOUND)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.normal_()
        x = 2 * torch.randn(10, 2, 3)
        for method, points in ((layer.__call__, x), (layer.inverse, x)):
            value, log_det = method(points)
            assert value.shape == x.shape
            for row in range(10):
                jacobian = jacrev(lambda one, method=method: method(one[None])[0][0])(points[row]).reshape(6, 6)
                torch.testing.assert_close(log_det[row], jacobian.slogdet().logabsdet, rtol=0, atol=1e-8)

    def test_gradients_reach_every_parameter(self):
        layer = rational_quadratic_spline((3,))
        z, log_det = layer(4 * torch.randn(100, 3))
        (z.square().sum() - log_det.sum()).backward()
        assert all(parameter.grad.abs().min() > 0 for parameter in layer.parameters())

    def test_starts_near_the_identity(self):
        layer = rational_quadratic_spline((5,))
        assert all(0 < p.abs().max() < 0.06 for p in layer.parameters_of_elements)
        x = 4 * torch.randn(50, 5)
        assert (layer(x)[0] - x).abs().max() < 0.3

    @pytest.mark.parametrize("inverse", [False, True])
    def test_compiles_as_one_graph(self, inverse):
        layer = rational_quadratic_spline((3, 2))
        parameters = list(layer.parameters())
        function = layer.inverse if inverse else layer.forward
        compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
        for size in (1.0, 100.0):  # both sides of the box, then nothing but tails
            x = size * (1 + torch.rand(4, 3, 2))
            for one, other in zip(compiled(x), function(x), strict=True):
                torch.testing.assert_close(one, other)
            gradients = [torch.autograd.grad(f(x)[0].sum() + f(x)[1].sum(), parameters) for f in (compiled, function)]
            for one, other in zip(*gradients, strict=True):
                torch.testing.assert_close(one, other)

    def test_empty_batch(self):
        layer = rational_quadratic_spline((3,))
        for value, log_det in (layer(torch.empty(0, 3)), layer.inverse(torch.empty(0, 3))):
            assert value.shape == (0, 3)
            assert log_det.shape == (0,)

    def test_wrong_event(self):
        with pytest.raises(ShapeError, match=r"expected event shape \(3,\), got \(4,\)"):
            rational_quadratic_spline((3,))(torch.zeros(2, 4))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"bins": 0}, "expected bins ≥ 1, got 0"),
            ({"tail_bound": -1.0}, "expected tail_bound > 0"),
            ({"tail_bound": math.nan}, "expected tail_bound > 0"),
            ({"bins": 10, "min_bin_width": 0.1}, "between 0 and 1/bins = 0.1"),
            ({"min_bin_height": 0.0}, "min_bin_width and min_bin_height"),
            ({"min_derivative": 1.0}, "0 < min_derivative < 1"),
        ],
    )
    def test_wrong_options(self, options, message):
        with pytest.raises(ConfigError, match=message):
            rational_quadratic_spline((3,), **options)


def test_kept_knots_follow_every_change_of_the_parameters():
    torch.manual_seed(0)
    layer = rational_quadratic_spline((3,)).eval()
    z = torch.randn(5, 3)
    with torch.no_grad():
        layer.decode(z)
        for parameter in layer.parameters():
            parameter.data.add_(torch.randn_like(parameter))  # what no version counter sees
        fresh = rational_quadratic_spline((3,)).eval()
        fresh.load_state_dict(layer.state_dict())
        assert torch.equal(layer.decode(z), fresh.decode(z))
        assert torch.equal(layer(z)[0], fresh(z)[0])
        assert torch.equal(layer.float().decode(z.float()), fresh.float().decode(z.float()))
    assert layer(z.float())[0].requires_grad


def test_decode_is_the_inverse_without_its_log_det():
    torch.manual_seed(0)
    layer = rational_quadratic_spline((3,)).eval()
    z = 8 * torch.randn(50, 3)
    assert torch.equal(layer.decode(z), layer.inverse(z)[0])


def test_many_splines_at_once_leave_no_knots_behind():
    layers = [rational_quadratic_spline((3,)).eval() for _ in range(2)]
    parameters, buffers = stack_module_state(layers)
    x = torch.randn(4, 3)
    with torch.no_grad():
        for _ in range(2):
            whole = vmap(lambda p, b: functional_call(layers[0], (p, b), (x,))[0])(parameters, buffers)
            assert torch.allclose(whole, torch.stack([layer(x)[0] for layer in layers]), atol=1e-12)
