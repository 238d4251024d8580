"""Safeguarded Newton: hard functions, brackets that must grow, and failures."""

import math

import pytest
import torch

from snflow.errors import ConvergenceError
from snflow.numerics.root_finding import bisect, chandrupatla, implicit_inverse, invert_increasing


def cubic(x):
    return x**3 + 1e-3 * x, 3 * x**2 + 1e-3


def arctan_like(x):
    """Newton alone diverges: nearly flat on both sides."""
    return torch.atan(5 * x) + 1e-6 * x, 5 / (1 + 25 * x**2) + 1e-6


def kink(x):
    return torch.where(x < 0, 1e-4 * x, 1e4 * x), torch.where(x < 0, 1e-4, 1e4).to(x.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [cubic, arctan_like, kink])
def test_finds_the_root(function, dtype):
    root = 3 * torch.randn(500, dtype=dtype)
    z = function(root)[0]
    x = invert_increasing(function, z, torch.full_like(z, -20), torch.full_like(z, 20))
    value, slope = function(x)
    eps = torch.finfo(dtype).eps
    assert ((value - z).abs() <= 8 * eps * (z.abs() + (slope * x).abs() + slope * root.abs())).all()
    assert x.dtype == dtype


def test_steps_are_few_near_the_root():
    calls = []

    def counted(x):
        calls.append(1)
        return cubic(x)

    invert_increasing(counted, torch.tensor([8.0, 1.0]), torch.tensor([1.5, 0.5]), torch.tensor([2.5, 1.5]))
    assert len(calls) < 12


def test_bad_bracket_grows_on_either_side():
    z = torch.tensor([1e6, -1e6, 0.5])
    x = invert_increasing(cubic, z, torch.zeros(3), torch.ones(3))
    torch.testing.assert_close(cubic(x)[0], z)


def test_bracket_of_no_width_grows():
    z = torch.tensor([8.0])
    x = invert_increasing(lambda x: (x, torch.ones_like(x)), z, z * (1 + 1e-15), z * (1 + 1e-15))
    torch.testing.assert_close(x, z)


@pytest.mark.parametrize("start", [1.0, 1e9])
def test_never_leaves_the_bracket(start):
    """Newton's first step for the logarithm ends where it is not defined."""

    def logarithm(x):
        assert ((x >= 1e-8) & (x <= 100)).all()
        return x.log(), 1 / x

    z = torch.tensor([1e-6]).log()
    x = invert_increasing(logarithm, z, torch.full((1,), 1e-8), torch.full((1,), 100.0), start=torch.tensor([start]))
    torch.testing.assert_close(x, torch.tensor([1e-6]))


def test_slow_newton_falls_back_to_bisection():
    """Near a root of nine fold Newton's steps shrink by an eighth only."""

    def flat(x):
        return (x - 1) ** 9 + 1e-30 * x, 9 * (x - 1) ** 8 + 1e-30

    x = invert_increasing(flat, torch.tensor([1e-30]), torch.tensor([-999.0]), torch.tensor([3000.0]))
    torch.testing.assert_close(x, torch.ones(1))


def test_jump_is_located():
    def jump(x):
        return torch.where(x < 1, x, x + 1), torch.ones_like(x)

    x = invert_increasing(jump, torch.tensor([1.5]), torch.tensor([-3.0]), torch.tensor([5.0]))
    torch.testing.assert_close(x, torch.ones(1))


def test_non_finite_values_stay_in_their_place():
    z = torch.tensor([1.0, math.nan, math.inf, -math.inf, -1.0])
    x = invert_increasing(cubic, z, torch.full((5,), -2.0), torch.full((5,), 2.0))
    good = invert_increasing(cubic, z[[0, 4]], torch.full((2,), -2.0), torch.full((2,), 2.0))
    assert torch.equal(x[[0, 4]], good)
    assert x[1].isnan()
    assert torch.equal(x[2:4], z[2:4])


def test_a_row_does_not_depend_on_the_batch():
    z = torch.randn(50) ** 3
    lower, upper = torch.full((50,), -0.1), torch.full((50,), 0.1)
    together = invert_increasing(cubic, z, lower, upper)
    for row in range(50):
        one = slice(row, row + 1)
        assert torch.equal(together[one], invert_increasing(cubic, z[one], lower[one], upper[one]))


def test_no_bracket_is_an_error_that_counts():
    z = torch.tensor([0.5, 2.0, 3.0])
    with pytest.raises(ConvergenceError, match=r"test: expected a bracket .* none for 2 of 3 elements, .* up to 2"):
        invert_increasing(
            lambda x: (x.tanh(), 1 - x.tanh() ** 2), z, -torch.ones(3), torch.ones(3), where="test", expansions=20
        )


def test_too_few_steps_is_an_error_that_counts():
    z = torch.tensor([8.0, 0.0])
    with pytest.raises(ConvergenceError, match="expected a root within 3 steps, got none for 1 of 2 elements"):
        invert_increasing(cubic, z, torch.full((2,), -100.0), torch.full((2,), 100.0), iterations=3)


def test_a_function_that_returns_nan_is_an_error():
    with pytest.raises(ConvergenceError, match="1 of 1"):
        invert_increasing(
            lambda x: (x * math.nan, torch.ones_like(x)), torch.ones(1), -torch.ones(1), torch.ones(1), iterations=5
        )


def test_carries_no_gradient():
    z = torch.ones(2, requires_grad=True)
    assert not invert_increasing(cubic, z, -torch.ones(2), 2 * torch.ones(2)).requires_grad


def test_empty():
    assert invert_increasing(cubic, torch.empty(0, 3), torch.empty(0, 3), torch.empty(0, 3)).shape == (0, 3)


def newton(function, z, lower, upper):
    """The safeguarded Newton iteration, its slopes by autodiff."""

    def value_and_slope(x):
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            value = function(at)
            return value.detach(), torch.autograd.grad(value.sum(), at)[0]

    return invert_increasing(value_and_slope, z, lower, upper)


SOLVERS = {"newton": newton, "bisection": bisect, "chandrupatla": chandrupatla}


def family(kind, count):
    """Random increasing functions, one an element."""
    a, b, c = torch.randn(3, count)
    steepness = (3 * torch.randn(count)).exp()
    if kind == "mixed":  # a line, a bend and a cubic
        return lambda x: steepness * x + 5 * torch.tanh(3 * b * (x - c)) * b.sign() + a.square() * x**3
    if kind == "flat":  # slopes from 1e-9 upwards, a plateau in the middle
        return lambda x: 1e-9 * x + torch.sign(x - c) * ((x - c).abs() - 1).clamp_min(0) ** 3
    if kind == "steep":  # slopes up to 1e8, and a power of nine
        return lambda x: 1e8 * torch.tanh(1e3 * (x - c)) + (x - a) ** 9
    if kind == "kinked":
        return lambda x: torch.where(x < c, 1e-4 * (x - c), 1e4 * (x - c)) + a
    return lambda x: torch.exp((0.3 * steepness).clamp_max(3) * x) - torch.exp(-x) + a  # both tails explode


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("kind", ["mixed", "flat", "steep", "kinked", "exponential"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_thousand_random_functions_are_inverted_or_refused(solver, kind, far):
    """The bracket may lie anywhere; f just below and just above the root is on either side of z."""
    torch.manual_seed(7)
    count = 1000
    function = family(kind, count)
    z = function(2 * torch.randn(count))
    lower = 20 * torch.randn(count) if far else torch.full((count,), -15.0)
    upper = lower + (torch.rand(count) if far else 30.0)
    x = SOLVERS[solver](function, z, lower, upper)
    width = 1e-12 * x.abs().clamp_min(1e-3)
    near = (function(x) - z).abs() <= 1e-12 * z.abs().clamp_min(1e-6)
    around = (function(x - width) <= z) & (z <= function(x + width))
    assert bool((near | around).all())


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_is_not_reached_is_an_error_and_not_a_number(solver):
    z = torch.tensor([0.5, 3.0, -0.2, -7.0])
    ends = torch.full((4,), -1.0), torch.full((4,), 1.0)
    with pytest.raises(ConvergenceError, match=r"none for 2 of 4 elements, \|f\(x\) - z\| up to 6"):
        SOLVERS[solver](torch.tanh, z, *ends)
    with pytest.raises(ConvergenceError, match="none for 4 of 4 elements"):
        SOLVERS[solver](lambda x: -x, z + 20, *ends)  # it decreases
    with pytest.raises(ConvergenceError, match="elements"):
        SOLVERS[solver](lambda x: x * torch.nan, z, *ends)


@pytest.mark.parametrize("solver", SOLVERS)
def test_elements_are_independent_and_infinities_stay(solver):
    def function(x):
        return x**3 + x

    z = torch.tensor([10.0, torch.nan, torch.inf, -3.0, 0.0])
    ends = torch.full((5,), -1.0), torch.full((5,), 1.0)
    x = SOLVERS[solver](function, z, *ends)
    alone = SOLVERS[solver](function, z[3:4], ends[0][3:4], ends[1][3:4])
    assert torch.equal(x[3:4], alone)
    assert torch.isnan(x[1])
    assert float(x[2]) == math.inf
    torch.testing.assert_close(function(x)[[0, 3, 4]], z[[0, 3, 4]])


@pytest.mark.parametrize("solver", ["newton", "bisection", "chandrupatla"])
def test_gradients_of_the_root_are_those_of_the_inverse(solver):
    scale = torch.tensor(1.5, requires_grad=True)
    z = torch.randn(6, requires_grad=True)

    def inverse(z, scale):
        def function(x):
            return scale * x + torch.tanh(x), (scale + 1 - torch.tanh(x) ** 2).log()

        x, log_slope = implicit_inverse(function, z, z - 1, z + 1, where="test", solver=solver)
        return torch.stack([x, log_slope])

    assert torch.autograd.gradcheck(inverse, (z, scale))


def test_chandrupatla_needs_few_evaluations_where_the_function_is_smooth():
    counts = {}
    for name, solver in (("bisection", bisect), ("chandrupatla", chandrupatla)):
        calls = []

        def counted(x, calls=calls):
            calls.append(1)
            return x**3 + x

        solver(counted, torch.tensor([10.0, 0.3]), torch.zeros(2), torch.full((2,), 4.0))
        counts[name] = len(calls)
    assert counts["chandrupatla"] < 20 < 45 < counts["bisection"]


@pytest.mark.parametrize("shift", [1.0, 1 / 3, 1e3])
def test_a_root_at_zero_is_found_although_rounding_exceeds_the_target(shift):
    """Inside f a shift cancels, so that no x near zero reproduces a target near zero."""

    def cancelling(x):
        return (3.0 * x + shift) - shift + 1e-17, torch.full_like(x, 3.0)

    z = torch.tensor([0.0, 1e-18, -1e-20, 2.0])
    x = invert_increasing(cancelling, z, z - 1, z + 1)
    eps = torch.finfo(x.dtype).eps
    assert (x - z / 3).abs().max() <= 4 * eps * 2 + eps * shift  # the width of the bracket is 2


def test_a_bracket_grows_to_the_largest_numbers():
    z = torch.tensor([1e-300, 1e30, -1e300])
    x = invert_increasing(lambda x: (1e-6 * x, torch.full_like(x, 1e-6)), z, z - 1, z + 1)
    torch.testing.assert_close(x, 1e6 * z, rtol=1e-14, atol=1e-300)


def test_second_derivatives_of_an_inverse_are_exact():
    z = torch.tensor([0.5, 8.0, 30.0], requires_grad=True)
    x, log_slope = implicit_inverse(lambda x: (x**3 + x, (3 * x**2 + 1).log()), z, 0 * z, z, where="test")
    (slope,) = torch.autograd.grad((x + log_slope).sum(), z, create_graph=True)
    wanted = _closed_form(z)
    torch.testing.assert_close(slope, wanted)
    second, expected = (torch.autograd.grad(v.sum(), z)[0] for v in (slope, wanted))
    torch.testing.assert_close(second, expected)


def _closed_form(z):
    """d/dz (x − log f'(x)) at the root of x³ + x = z, by Cardano's formula."""
    root = (z / 2 + (z.square() / 4 + 1 / 27).sqrt()) ** (1 / 3)
    x = root - 1 / (3 * root)
    return 1 / (3 * x**2 + 1) - 6 * x / (3 * x**2 + 1) ** 2


@pytest.mark.parametrize("solver", ["newton", "bisection", "chandrupatla"])
def test_a_root_at_which_the_function_is_flat_is_found(solver):
    """The steps that carry the derivatives divide by the slope, which is zero here or overflows the dtype."""
    z = torch.zeros(3)
    x, _ = implicit_inverse(lambda x: (x**3, (3 * x**2).log()), z, z - 1, z + 1, where="cube", solver=solver)
    torch.testing.assert_close(x, z)
