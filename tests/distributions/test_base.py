"""Base densities: they integrate to one, agree with other libraries, are sampled correctly, and refuse misuse."""

import math
from collections.abc import Callable

import pytest
import scipy.stats
import torch
from torch.distributions import Independent, Normal

from snflow.distributions.base import (
    BaseDensity,
    DiagonalNormal,
    FoldedDensity,
    Logistic,
    NormalMixture,
    StandardNormal,
    Uniform,
)
from snflow.errors import ConfigError, DtypeError, ShapeError

Build = Callable[[tuple[int, ...]], BaseDensity]


def learned_normal(event_shape: tuple[int, ...]) -> DiagonalNormal:
    base = DiagonalNormal(event_shape)
    with torch.no_grad():
        base.mean.fill_(0.7)
        base.raw_log_scale.fill_(-0.4)
    return base


def uniform(event_shape: tuple[int, ...]) -> Uniform:
    return Uniform(event_shape, low=-1.0, high=3.0)


# each with its reference for one element
BASES = {
    "standard_normal": (StandardNormal, scipy.stats.norm()),
    "diagonal_normal": (learned_normal, scipy.stats.norm(0.7, math.exp(7 * math.tanh(-0.4 / 7)))),
    "logistic": (Logistic, scipy.stats.logistic()),
    "uniform": (uniform, scipy.stats.uniform(-1, 4)),
}
every_base = pytest.mark.parametrize(("build", "reference"), BASES.values(), ids=BASES)


@every_base
def test_integrates_to_one_on_the_line(build: Build, reference):
    # midpoints of cells of 0.001, whose edges fall on those of the uniform density
    z = torch.arange(-40_000, 40_000) / 1000 + 0.0005
    assert build((1,)).log_prob(z[:, None]).exp().sum().item() / 1000 == pytest.approx(1, abs=1e-6)


@every_base
def test_integrates_to_one_in_the_plane(build: Build, reference):
    axis = torch.arange(-300, 300) / 20 + 0.025
    points = torch.cartesian_prod(axis, axis)
    assert build((2,)).log_prob(points).exp().sum().item() / 400 == pytest.approx(1, abs=1e-5)


@every_base
def test_agrees_with_scipy(build: Build, reference):
    z = torch.linspace(-0.9, 2.9, 60).reshape(10, 2, 3)
    expected = torch.from_numpy(reference.logpdf(z.numpy())).sum((1, 2))
    torch.testing.assert_close(build((2, 3)).log_prob(z), expected, rtol=1e-12, atol=1e-12)


def test_agrees_with_torch():
    base = learned_normal((4,))
    theirs = Independent(Normal(base.mean, base.log_scale.exp()), 1)
    z = torch.randn(20, 4)
    torch.testing.assert_close(base.log_prob(z), theirs.log_prob(z), rtol=1e-12, atol=1e-12)


@every_base
def test_samples_follow_the_density(build: Build, reference):
    z = build((5,)).sample(4000)
    assert scipy.stats.kstest(z.flatten().numpy(), reference.cdf).pvalue > 1e-3


@every_base
def test_temperature_scales_the_spread_about_the_mean(build: Build, reference):
    base, generator = build((3,)), torch.Generator()
    full = base.sample(50, generator=generator.manual_seed(1))
    half = base.sample(50, temperature=0.5, generator=generator.manual_seed(1))
    torch.testing.assert_close(half - reference.mean(), 0.5 * (full - reference.mean()))
    torch.testing.assert_close(base.sample(2, temperature=0.0), torch.full((2, 3), reference.mean()))


@every_base
def test_shapes_and_dtype(build: Build, reference):
    base = build((2, 3)).to(torch.float32)
    assert base.sample(4).shape == (4, 2, 3)
    assert base.sample(0).shape == (0, 2, 3)
    assert base.log_prob(base.sample(0)).shape == (0,)
    assert base.sample(1).dtype == torch.float32
    assert build(()).log_prob(build(()).sample(6)).shape == (6,)


@every_base
def test_a_bad_row_stays_in_its_row(build: Build, reference):
    base = build((3,))
    z = base.sample(8)
    before = base.log_prob(z)
    z[2, 1] = math.nan
    after = base.log_prob(z)
    assert after[2].isnan()
    kept = torch.arange(8) != 2
    assert torch.equal(after[kept], before[kept])


@every_base
def test_gradient(build: Build, reference):
    z = (build((3,)).sample(5) * 0.9).requires_grad_()
    assert torch.autograd.gradcheck(build((3,)).log_prob, z)
    # second derivatives at 0, where a logistic written with |z| has none
    zero = torch.zeros(1, 3, requires_grad=True)
    assert torch.autograd.gradgradcheck(build((3,)).log_prob, zero)


@every_base
def test_an_integer_is_the_shape_of_a_vector(build: Build, reference):
    assert build(3).event_shape == (3,)
    assert build([2, 3]).event_shape == (2, 3)
    assert build(()).event_shape == ()


def test_a_misspelt_keyword_is_also_a_type_error():
    with pytest.raises(TypeError, match="did you mean 'event_shape'"):
        StandardNormal(evnt_shape=3)


def test_state_holds_parameters_only():
    assert not StandardNormal((2,)).state_dict()
    assert set(DiagonalNormal((2,)).state_dict()) == {"mean", "raw_log_scale"}


def test_diagonal_normal_draws_are_differentiable():
    base = learned_normal((3,))
    base.rsample(10).sum().backward()
    torch.testing.assert_close(base.mean.grad, torch.full((3,), 10.0))
    assert base.raw_log_scale.grad.abs().min() > 0
    assert not base.sample(2).requires_grad


def test_diagonal_normal_scale_is_bounded_and_keeps_its_gradient():
    base = DiagonalNormal((2,), log_scale_bound=3.0)
    with torch.no_grad():
        base.raw_log_scale.copy_(torch.tensor([1e6, -6.0]))
    assert base.log_scale[0] <= 3
    base.log_scale.sum().backward()
    assert base.raw_log_scale.grad[1] > 0


def test_logistic_tails():
    z = torch.tensor([[-1e4], [1e4], [-math.inf], [math.inf]])
    assert Logistic((1,)).log_prob(z).tolist() == [-1e4, -1e4, -math.inf, -math.inf]


def test_uniform_edges():
    base = Uniform((2,), low=-1.0, high=3.0)
    inside, edge = [0.0, 0.0], [-1.0, 3.0]
    below, above = [math.nextafter(-1.0, -2.0), 0.0], [0.0, math.nextafter(3.0, 4.0)]
    z = torch.tensor([inside, edge, below, above, [math.inf, 0.0]], requires_grad=True)
    log_prob = base.log_prob(z)
    assert log_prob.tolist() == [-2 * math.log(4)] * 2 + [-math.inf] * 3
    log_prob[:2].sum().backward()
    assert torch.equal(z.grad, torch.zeros_like(z))


def moved(density, scale=0.5):
    with torch.no_grad():
        for parameter in density.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return density


@pytest.mark.parametrize(
    "build",
    [lambda: NormalMixture(2, components=4), lambda: FoldedDensity(StandardNormal(2))],
    ids=["mixture", "folded"],
)
def test_densities_with_branches_integrate_to_one_and_samples_follow_them(build):
    torch.manual_seed(0)
    density = moved(build())
    side = torch.linspace(-12, 12, 1201)
    points = torch.cartesian_prod(side, side)
    with torch.no_grad():
        mass = density.log_prob(points).exp() * (side[1] - side[0]) ** 2
        assert abs(float(mass.sum()) - 1) < 1e-3
        samples = density.sample(40_000)
        for inside in (lambda x: x[:, 0] > 0.3, lambda x: x.norm(dim=1) < 1, lambda x: x[:, 1] > x[:, 0] ** 2):
            assert abs(float(inside(samples).double().mean()) - float(mass[inside(points)].sum())) < 0.01


def test_the_gate_of_a_fold_chooses_only_branches_that_contain_z():
    torch.manual_seed(0)
    density = moved(FoldedDensity(StandardNormal((1,))), 0.3)
    a = float(torch.nn.functional.softplus(density.raw_fold.detach()))
    z = torch.tensor([[-a - 0.5], [0.2 * a], [a + 0.5]])
    gate = density._log_gate(z, torch.tensor([a])).exp()[:, :, 0]
    torch.testing.assert_close(gate.sum(1), torch.ones(3))
    assert torch.equal(gate > 0, torch.tensor([[True, False, False], [True, True, True], [False, False, True]]))
    x = torch.tensor([[0.2 * a - 2 * a], [-0.2 * a], [0.2 * a + 2 * a]])
    each = density.log_prob(x) - StandardNormal((1,)).log_prob(z[1:2].expand(3, 1))
    torch.testing.assert_close(each.exp(), gate[1], rtol=0, atol=1e-12)


def test_every_parameter_of_a_density_with_branches_learns():
    torch.manual_seed(0)
    for density in (moved(NormalMixture((2,), components=3)), moved(FoldedDensity(StandardNormal((2,))))):
        density.log_prob(2 * torch.randn(50, 2)).sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in density.parameters())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda base: base.log_prob(torch.zeros(3, 2)),
            ShapeError,
            r"StandardNormal: expected latents with shape \(batch, 4\), got \(3, 2\)",
        ),
        (lambda base: base.log_prob(torch.zeros(4)), ShapeError, r"got \(4,\); add a batch dimension"),
        (lambda base: base.log_prob(torch.zeros(3, 4, dtype=torch.float32)), DtypeError, "float64, got torch.float32"),
        (lambda base: base.sample(-1), ConfigError, "n ≥ 0, a number of samples, got -1"),
        (lambda base: base.sample(2.0), ConfigError, "n ≥ 0, a number of samples, got 2.0"),
        (lambda base: base.log_prob(torch.zeros(3, 4).numpy()), DtypeError, "a torch.Tensor, got ndarray"),
        (lambda base: base.sample(2, temperature=-0.5), ConfigError, "temperature ≥ 0 and finite, got -0.5"),
        (lambda base: base.sample(2, temperature=math.nan), ConfigError, "temperature ≥ 0 and finite, got nan"),
        (lambda base: base.sample(2, temperature="hot"), ConfigError, "temperature ≥ 0 and finite, got 'hot'; use 1"),
        (lambda base: StandardNormal(0), ConfigError, "a tuple of positive integers, got 0"),
        (lambda base: StandardNormal((0,)), ConfigError, r"a tuple of positive integers, got \(0,\)"),
        (lambda base: Uniform(1, low=2.0, high=2.0), ConfigError, "low < high, got low=2.0, high=2.0"),
        (lambda base: Uniform(1, low="0"), ConfigError, "low < high, got low='0', high=1.0"),
        (lambda base: Uniform(1, lo=0.0), ConfigError, "Uniform: .* got lo=; did you mean 'low'"),
        (lambda base: DiagonalNormal(1, log_scale_bound=0.0), ConfigError, "log_scale_bound > 0 and finite, got 0.0"),
        (lambda base: NormalMixture(1, components=0), ConfigError, "NormalMixture: expected components ≥ 1, got 0"),
        (
            lambda base: FoldedDensity(StandardNormal((1, 2))),
            ConfigError,
            r"density of vectors, got event shape \(1, 2\)",
        ),
        (lambda base: FoldedDensity(3), ConfigError, "base to be a BaseDensity, got int"),
    ],
)
def test_misuse(call, error, message):
    with pytest.raises(error, match=message):
        call(StandardNormal((4,)))


@pytest.mark.parametrize(
    "base",
    [StandardNormal(2), Logistic(2), uniform((2,)), FoldedDensity(StandardNormal(2)), FoldedDensity(uniform((2,)))],
    ids=["normal", "logistic", "uniform", "folded", "folded uniform"],
)
def test_the_support_is_where_the_density_is_positive(base):
    base, z = base.double(), 4 * torch.randn(500, 2)
    inside = base.support.check(z).expand(500, 2).all(1)
    assert torch.equal(inside, base.log_prob(z) > -math.inf)
    assert bool(base.support.check(base.sample(100)).all())
