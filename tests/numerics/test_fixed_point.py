"""Fixed points: found to tolerance or refused, row by row, with the gradients of the exact solution."""

import pytest
import torch

from snflow import flows
from snflow.errors import ConvergenceError
from snflow.numerics.fixed_point import anderson, implicit_fixed_point, picard

SOLVERS = {"picard": picard, "anderson": anderson}


def contraction(features=6, lipschitz=0.9, seed=0):
    """x ↦ L/‖W‖ tanh(W x) + b: its Lipschitz constant is L at most."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(features, features, generator=generator, dtype=torch.float64)
    weight = weight * (lipschitz / torch.linalg.matrix_norm(weight, 2))
    bias = torch.randn(features, generator=generator, dtype=torch.float64)
    return weight, bias


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("lipschitz", [0.0, 0.5, 0.97])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contractions_converge(name, lipschitz, dtype):
    for seed in range(20):
        weight, bias = (part.to(dtype) for part in contraction(lipschitz=lipschitz, seed=seed))
        x = SOLVERS[name](lambda x, w=weight, b=bias: torch.tanh(x @ w.T) + b, torch.zeros(5, 6, dtype=dtype))
        error = (torch.tanh(x @ weight.T) + bias - x).abs().max()
        assert error <= 20 * torch.finfo(dtype).eps * x.abs().max().clamp_min(1)


def test_anderson_needs_far_fewer_evaluations():
    weight, bias = contraction(lipschitz=0.99)
    symmetric = (weight + weight.T) / 2
    symmetric = 0.99 * symmetric / torch.linalg.matrix_norm(symmetric, 2)
    counts = {}
    for name, solver in SOLVERS.items():
        count = 0

        def function(x):
            nonlocal count
            count += 1
            return x @ symmetric + bias

        solver(function, torch.zeros(3, 6), tolerance=1e-10, iterations=10_000)
        counts[name] = count
    assert counts["anderson"] < counts["picard"] / 20


@pytest.mark.parametrize("name", SOLVERS)
def test_a_row_does_not_depend_on_the_others(name):
    weight, bias = contraction()
    bias = bias + torch.randn(4, 6)

    def function(rows):
        # products a row, so that the arithmetic of a row is the same in any batch
        return lambda x: torch.tanh((x[:, None] * weight).sum(-1)) + bias[rows]

    together = SOLVERS[name](function(slice(0, 4)), torch.zeros(4, 6))
    alone = SOLVERS[name](function(slice(2, 3)), torch.zeros(1, 6))
    torch.testing.assert_close(together[2:3], alone, rtol=0, atol=0)


@pytest.mark.parametrize("name", SOLVERS)
def test_rows_that_are_not_finite_stay_and_do_not_affect_others(name):
    start = torch.zeros(3, 6)
    start[1, 2] = torch.nan
    weight, bias = contraction()
    x = SOLVERS[name](lambda x: torch.tanh(x @ weight.T) + bias, start)
    assert bool(x[1, 2].isnan())
    assert bool(x[[0, 2]].isfinite().all())


@pytest.mark.parametrize("name", SOLVERS)
def test_rows_that_do_not_converge_are_counted_in_an_error(name):
    def function(x):  # the first row contracts, the second has no fixed point
        return torch.cat([x[:1] / 2, x[1:] + 1])

    with pytest.raises(ConvergenceError, match=r"1 of 2 rows, .* up to "):
        SOLVERS[name](function, torch.ones(2, 3), iterations=50)


def test_anderson_converges_where_picard_diverges():
    x = anderson(lambda x: 3 - 2 * x, torch.zeros(2, 4))
    torch.testing.assert_close(x, torch.ones(2, 4))
    with pytest.raises(ConvergenceError):
        picard(lambda x: 3 - 2 * x, torch.zeros(2, 4), iterations=100)


def _lone_peaks(x):
    """A contraction by 0.9 in the 2-norm whose residuals may grow in the max-norm: turns by 45°, with kinks."""
    turn = torch.tensor([[0.7071067811865476, -0.7071067811865476], [0.7071067811865476, 0.7071067811865476]])
    return 0.9 * (x @ turn.to(x)).abs() * torch.tensor([1.0, -1.0]).to(x) + 0.5


def test_anderson_converges_for_contractions_in_the_two_norm():
    start = 30 * torch.randn(500, 2)
    x = anderson(_lone_peaks, start, iterations=700)
    assert (_lone_peaks(x) - x).abs().max() < 1e-13
    assert torch.allclose(x, picard(_lone_peaks, start), atol=1e-12)


def test_a_densenet_with_a_cycle_of_lost_steps_is_inverted():
    torch.manual_seed(0)
    flow = flows.densenet(2, layers=2, depth=1, growth=3)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    z = torch.tensor([[2.931878228244767, -1.667523881491696]])
    assert torch.allclose(flow.eval().encode(flow.decode(z)), z, atol=1e-12)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("shape", [(0, 6), (3, 0)])
def test_an_empty_batch_is_solved(name, shape):
    assert SOLVERS[name](lambda x: x + 1, torch.zeros(shape)).shape == shape


@pytest.mark.parametrize("name", SOLVERS)
def test_gradients_are_those_of_the_solution(name):
    weight, bias = contraction(3)
    weight.requires_grad_()
    z = torch.randn(2, 3, requires_grad=True)

    def solved(z, weight):
        return implicit_fixed_point(lambda x: z - 0.9 * torch.tanh(x @ weight.T), z, solver=SOLVERS[name])

    assert torch.autograd.gradcheck(solved, (z, weight))
    with torch.no_grad():
        assert not solved(z, weight).requires_grad
    assert bias.shape == (3,)


def test_a_row_that_no_longer_improves_is_accepted_or_refused():
    def rounded(x):
        return (x.cos() / 1e-6).round() * 1e-6 + 1e-7 * torch.rand_like(x)

    with pytest.raises(ConvergenceError):
        picard(rounded, torch.zeros(3, 1))
    x = picard(rounded, torch.zeros(3, 1), accepted=1e-5)
    torch.testing.assert_close(x, x.cos(), rtol=0, atol=1e-5)
