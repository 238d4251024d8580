"""Leaky ReLUs, logit, affine layers and CDFs: values, edges of the support, extremes of float32."""

import functools
import math

import pytest
import torch

from snflow.bijections import elementwise as smooth_leaky_relu
from snflow.bijections.elementwise import CDF, Affine, LeakyReLU, Logit, SmoothLeakyReLU
from snflow.bijections.transformers.monotone import LogisticMixtureTransformer, SigmoidalTransformer
from snflow.distributions.base import Uniform
from snflow.distributions.flow import Flow
from snflow.errors import ConfigError, DataError, ShapeError


@pytest.mark.parametrize("make", [LeakyReLU, SmoothLeakyReLU, Logit, lambda: Affine(0.5, -2.0)])
def test_a_row_may_be_a_single_number(make):
    value, log_det = make()(torch.tensor([0.25, 0.75]))
    assert value.shape == log_det.shape == (2,)


@pytest.mark.parametrize("make", [LeakyReLU, SmoothLeakyReLU, Logit, lambda: Affine(0.5, -2.0)])
def test_nan_stays_in_its_row_on_inversion(make):
    layer, z = make(), torch.randn(6, 2, 3)
    bad = z.clone()
    bad[2] = math.nan
    keep = torch.arange(6) != 2
    value, log_det = layer.inverse(z)
    bad_value, bad_log_det = layer.inverse(bad)
    assert bad_value[2].isnan().all()
    assert torch.equal(value[keep], bad_value[keep])
    assert torch.equal(log_det[keep], bad_log_det[keep])


def test_leaky_relu_values():
    z, log_det = LeakyReLU(0.25)(torch.tensor([[-4.0, -2.0, 3.0, 0.0]]))
    assert torch.equal(z, torch.tensor([[-1.0, -0.5, 3.0, 0.0]]))
    torch.testing.assert_close(log_det, torch.tensor([2 * math.log(0.25)]))


@pytest.mark.parametrize("alpha", [0.0, -0.3, math.inf, math.nan])
def test_leaky_relu_with_a_wrong_slope(alpha):
    with pytest.raises(ConfigError, match="LeakyReLU: expected alpha > 0"):
        LeakyReLU(alpha)


class TestSmoothLeakyReLU:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_asymptotes(self, dtype):
        largest = torch.finfo(dtype).max
        x = torch.tensor([[50.0], [1e3], [1e30], [largest]], dtype=dtype)
        layer, eps = SmoothLeakyReLU(0.3), torch.finfo(dtype).eps
        for points, slope in ((x, 1.0), (-x, 0.3)):
            z, log_det = layer(points)
            torch.testing.assert_close(z, slope * points, rtol=2 * eps, atol=0)
            torch.testing.assert_close(log_det, torch.full((4,), math.log(slope), dtype=dtype), rtol=2 * eps, atol=eps)
            back, _ = layer.inverse(z[:3])
            torch.testing.assert_close(back, points[:3], rtol=4 * eps, atol=0)

    def test_formula(self):
        x = torch.linspace(-30, 30, 1001)[:, None]
        torch.testing.assert_close(
            SmoothLeakyReLU(0.3)(x)[0], 0.3 * x + 0.7 * torch.log1p(x.exp()), rtol=1e-14, atol=1e-14
        )

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_inverse_is_accurate_everywhere(self, dtype):
        exponents = torch.linspace(-9, 6, 2000, dtype=dtype)
        x = torch.cat([10**exponents, -(10**exponents), torch.zeros(1, dtype=dtype)])[:, None]
        layer = SmoothLeakyReLU(0.3)
        back = layer.decode(layer(x)[0])
        # z is near 0.5 at zero, so that x has an absolute error there
        assert ((back - x).abs() <= 16 * torch.finfo(dtype).eps * x.abs().clamp(min=1)).all()

    def test_its_bracket_holds_and_newton_is_quick(self, monkeypatch):
        quick = functools.partial(smooth_leaky_relu.invert_increasing, expansions=0, iterations=9)
        monkeypatch.setattr(smooth_leaky_relu, "invert_increasing", quick)
        x = torch.linspace(-30, 30, 1001)[:, None]
        layer = SmoothLeakyReLU(0.3)
        torch.testing.assert_close(layer.decode(layer(x)[0]), x)

    def test_infinities_give_themselves_and_no_nan_in_the_gradient(self):
        z = torch.tensor([[math.inf], [-math.inf], [1.0]], requires_grad=True)
        x, log_det = SmoothLeakyReLU(0.3).inverse(z)
        assert torch.equal(x[:2], z[:2])
        (x[2] + log_det.sum()).sum().backward()
        assert z.grad.isfinite().all()

    @pytest.mark.parametrize("alpha", [0.0, 1.5, -1.0, math.nan])
    def test_wrong_slope(self, alpha):
        with pytest.raises(ConfigError, match="SmoothLeakyReLU: expected 0 < alpha ≤ 1"):
            SmoothLeakyReLU(alpha)


class TestLogit:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_both_ends_are_finite_and_symmetric(self, dtype):
        layer = Logit(1e-6)
        x = torch.tensor([[0.0], [1.0]], dtype=dtype)
        z, log_det = layer(x)
        torch.testing.assert_close(z, torch.tensor([[-1.0], [1.0]], dtype=dtype) * math.log((1 - 1e-6) / 1e-6))
        expected = math.log1p(-2e-6) - math.log(1e-6) - math.log1p(-1e-6)
        torch.testing.assert_close(log_det, torch.full((2,), expected, dtype=dtype))
        assert torch.equal(layer.decode(z).round(), x)
        assert layer(layer.decode(z))[1].isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_one_ulp_on_either_side_of_the_support(self, dtype):
        inside = torch.tensor([[0.0], [1.0]], dtype=dtype)
        outward = inside.nextafter(torch.tensor([[-1.0], [2.0]], dtype=dtype))
        inward = inside.nextafter(torch.full_like(inside, 0.5))
        assert Logit()(inside)[1].isfinite().all()
        assert Logit()(inward)[1].isfinite().all()
        z, log_det = Logit()(outward)
        assert torch.equal(log_det, torch.full((2,), -math.inf, dtype=dtype))
        assert torch.equal(z, Logit()(inside)[0])

    def test_outside_has_no_density_and_finite_gradients(self):
        x = torch.tensor([[0.5, 1.5], [0.2, 0.3], [-math.inf, 0.1], [0.4, 1e30]], requires_grad=True)
        z, log_det = Logit()(x)
        assert z.isfinite().all()
        assert log_det.isneginf().tolist() == [True, False, True, True]
        (z.square().sum() - log_det.sum()).backward()
        assert x.grad.isfinite().all()
        assert x.grad[1].abs().min() > 0

    def test_float32_agrees_with_float64(self):
        exponents = torch.linspace(-7, -0.31, 200, dtype=torch.float32)
        x = torch.cat([10**exponents, 1 - 10**exponents])[:, None]
        z, log_det = Logit()(x)
        exact, exact_log_det = Logit()(x.double())
        torch.testing.assert_close(z.double(), exact, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(log_det.double(), exact_log_det, rtol=1e-6, atol=1e-6)

    def test_nan_is_not_taken_for_outside(self):
        assert Logit()(torch.tensor([[math.nan]]))[1].isnan().all()

    def test_inverse_log_det_has_all_its_digits(self):
        _, log_det = Logit().inverse(torch.tensor([[25.0]]))
        expected = -25 - 2 * math.log1p(math.exp(-25)) - math.log1p(-2e-6)
        torch.testing.assert_close(log_det, torch.tensor([expected]), rtol=0, atol=1e-13)

    def test_far_latents(self):
        z = torch.tensor([[-1e4], [1e4], [30.0]])
        x, log_det = Logit().inverse(z)
        assert torch.equal(x, torch.tensor([[0.0], [1.0], [1.0]]))
        torch.testing.assert_close(log_det, -z.abs()[:, 0] - math.log1p(-2e-6), rtol=1e-10, atol=1e-10)

    def test_density_integrates_to_one(self):
        x = torch.linspace(0, 1, 200_001)[:, None]
        z, log_det = Logit(0.01)(x)
        # a density of z that lives on the image of [0, 1]
        edge = math.log(0.99 / 0.01)
        density = log_det.exp() * (z[:, 0] / edge * math.pi / 2).cos() * math.pi / (4 * edge)
        torch.testing.assert_close(torch.trapezoid(density, x[:, 0]), torch.tensor(1.0), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("alpha", [0.0, 0.5, -1e-6, math.nan])
    def test_wrong_alpha(self, alpha):
        with pytest.raises(ConfigError, match=r"Logit: expected 0 < alpha < 0\.5"):
            Logit(alpha)


class TestAffine:
    def test_standardizing(self):
        data = 3 + 5 * torch.randn(1000, 4)
        z, _ = Affine.standardizing(data)(data)
        torch.testing.assert_close(z.mean(0), torch.zeros(4), rtol=0, atol=1e-12)
        torch.testing.assert_close(z.std(0, correction=0), torch.ones(4))

    def test_constant_features_keep_their_scale(self):
        data = torch.randn(50, 4, dtype=torch.float32)
        data[:, 1] = 0.1
        data[:, 2] = 0.0
        layer = Affine.standardizing(data)
        assert layer.scale[1:3].tolist() == [1.0, 1.0]
        assert layer.shift[1] == data[0, 1]
        assert layer.scale.dtype == torch.float32
        assert layer(data)[0].abs().max() < 10

    def test_rounding_noise_counts_as_constant(self):
        data = 0.1 + 1e-9 * torch.randn(50, 1)
        assert Affine.standardizing(data).scale.item() == 1.0
        assert Affine.standardizing(data, floor=1e-12).scale.item() < 1e-8

    @pytest.mark.parametrize("size", [1e-200, 1e-30, 1e30, 1e200])
    def test_any_unit(self, size):
        data = torch.randn(500, 2)
        layer = Affine.standardizing(size * data)
        torch.testing.assert_close(layer(size * data)[0], Affine.standardizing(data)(data)[0])

    def test_one_row_and_integers(self):
        layer = Affine.standardizing(torch.tensor([[3, 255]], dtype=torch.uint8))
        assert layer.shift.tolist() == [3.0, 255.0]
        assert layer.scale.tolist() == [1.0, 1.0]
        assert layer.shift.dtype == torch.get_default_dtype()

    def test_is_saved(self):
        layer = Affine(torch.zeros(3), torch.ones(3))
        layer.load_state_dict(Affine(torch.ones(3), 2 * torch.ones(3)).state_dict())
        assert torch.equal(layer(torch.full((1, 3), 3.0))[0], torch.ones(1, 3))
        assert not list(layer.parameters())

    def test_does_not_share_memory_with_its_arguments(self):
        scale = torch.ones(3)
        layer = Affine(0.0, scale)
        scale.zero_()
        assert torch.equal(layer.scale, torch.ones(3))

    def test_checks_its_event(self):
        layer = Affine(torch.zeros(2, 1), torch.ones(2, 1))
        assert layer(torch.zeros(5, 2, 7))[1].shape == (5,)
        with pytest.raises(ShapeError, match=r"expected event shape \(2, any\), got \(3, 7\)"):
            layer(torch.zeros(5, 3, 7))

    @pytest.mark.parametrize("scale", [0.0, math.inf, math.nan])
    def test_wrong_scale(self, scale):
        with pytest.raises(ConfigError, match=r"expected a finite scale that is not zero, got .* in 1 of 2 elements"):
            Affine(0.0, torch.tensor([1.0, scale]))

    def test_wrong_shift_and_shapes(self):
        with pytest.raises(ConfigError, match="expected a finite shift, got nan"):
            Affine(math.nan, 1.0)
        with pytest.raises(ConfigError, match=r"of broadcastable shapes, got \(2,\) and \(3,\)"):
            Affine(torch.zeros(2), torch.ones(3))

    def test_standardizing_bad_data(self):
        with pytest.raises(DataError, match=r"with at least one row, got \(0, 3\)"):
            Affine.standardizing(torch.empty(0, 3))
        data = torch.zeros(5, 3)
        data[3, 1] = math.nan
        with pytest.raises(DataError, match="1 rows with NaN or infinity, the first is 3"):
            Affine.standardizing(data)


def test_a_cdf_before_a_uniform_base_is_the_density_itself():
    normal = torch.distributions.Normal(torch.tensor([0.5, -1.0]), 2.0)
    flow = Flow(CDF(torch.distributions.Normal, loc=normal.loc, scale=2.0), Uniform((2,)))
    x = torch.randn(10, 2)
    torch.testing.assert_close(flow.log_prob(x), normal.log_prob(x).sum(1))
    samples = flow.sample(20_000)
    torch.testing.assert_close(samples.mean(0), normal.loc, rtol=0, atol=0.06)


def test_a_distribution_without_quantiles_is_refused():
    with pytest.raises(ConfigError, match="with cdf and icdf"):
        CDF(torch.distributions.Beta, concentration1=1.0, concentration0=2.0)
    with pytest.raises(ConfigError, match="with cdf and icdf"):
        CDF(torch.distributions.Normal, mean=1.0)
    with pytest.raises(ConfigError, match="an instance of a distribution, or a class"):
        CDF(torch.distributions.Normal(0.0, 1.0), loc=1.0)


def test_a_cdf_of_an_instance_is_that_of_its_class_and_parameters():
    loc, x = torch.tensor([0.5, -1.0]), torch.randn(4, 2)
    given, built = CDF(torch.distributions.Laplace(loc, 2.0)), CDF(torch.distributions.Laplace, loc=loc, scale=2.0)
    for one, other in zip(given(x), built(x), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("far", [1e3, 1e15, 1e30, 1e200])
@pytest.mark.parametrize("kind", [LogisticMixtureTransformer, SigmoidalTransformer])
def test_both_tails_of_a_mixture_have_the_slope_that_autograd_finds(kind, far):
    """The log-slope is not the difference of two numbers of size |x|, of which nothing remains."""
    transformer = kind(5)
    h = 0.5 * torch.randn(transformer.parameters_per_element, 6, 1)
    x = torch.tensor([[far], [-far], [2 * far], [-2 * far], [far / 3], [0.0]], requires_grad=True)
    z, log_slope = transformer(x, h)
    (slope,) = torch.autograd.grad(z.sum(), x)
    torch.testing.assert_close(log_slope, slope.log(), rtol=0, atol=1e-9)
    back, log_slope_back = transformer.inverse(z.detach(), h)
    torch.testing.assert_close(back, x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_slope_back, -log_slope, rtol=0, atol=1e-9)
