"""flowjax's own tests, for every layer of the catalogue and every flow, without jax: its formulas in NumPy.

Carried over: both log-determinants of every layer against automatic differentiation, with and without a context; shapes
of single samples and of batches of contexts; data of a wrong size are refused; triangular Jacobians; the identity of a
new spline; permutations, chains and inverses; a density of a bounded layer; fits by maximum likelihood and by the
reverse divergence. In NumPy: triangular affine, planar and spline maps at equal parameters.
"""

import numpy as np
import pytest
import torch

import snflow as b
from foreign.ours import CONDITIONAL, VECTORS, flow, tolerance
from snflow.numerics.splines import spline, spline_knots
from snflow.testing.cases import CATALOGUE


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_both_log_determinants_are_those_of_the_jacobian(name):
    case = CATALOGUE[name]
    layer, x, context = case.layer(), case.data(1), case.context(1)
    z, log_det = layer(x, context)
    for direction, at, claimed in ((layer.encode, x, log_det), (layer.decode, z, -log_det)):

        def flat(v, direction=direction, shape=at.shape):
            return direction(v.reshape(shape), context).flatten()

        jacobian = torch.autograd.functional.jacobian(flat, at.detach().flatten())
        bound = max(1e2 * case.log_det, case.round_trip)
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], claimed[0], rtol=0, atol=bound)


@pytest.mark.parametrize("name", VECTORS)
def test_single_samples_and_densities(name):
    distribution = flow(name, 3).distribution()
    x = distribution.sample()
    assert (x.shape, distribution.log_prob(x).shape) == ((3,), ())
    many = distribution.sample((4,))
    assert not torch.equal(many[0], many[1])


@pytest.mark.parametrize("name", CONDITIONAL)
def test_contexts_broadcast_with_data(name):
    density = flow(name, 3, 2)
    one, many, grid = torch.randn(2), torch.randn(5, 2), torch.randn(4, 1, 2)
    assert density.distribution(one).log_prob(torch.randn(3)).shape == ()
    assert density.distribution(one).log_prob(torch.randn(5, 3)).shape == (5,)
    assert density.distribution(many).log_prob(torch.randn(3)).shape == (5,)
    x = torch.randn(5, 3)
    table = density.distribution(grid).log_prob(x)
    assert table.shape == (4, 5)
    single = density.log_prob(x[2:3], grid[1])
    torch.testing.assert_close(table[1, 2], single[0], rtol=0, atol=tolerance(name))
    assert density.distribution(many).sample((2,)).shape == (2, 5, 3)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("name", VECTORS)
def test_data_of_a_wrong_size_are_refused(name, size):
    density = flow(name, 3)
    for call in (density.log_prob, density.encode, density.decode, density.distribution().log_prob):
        with pytest.raises(b.errors.ShapeError):
            call(torch.ones(2, size))


@pytest.mark.parametrize("context_shape", [None, 2])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("block", [1, 4])
def test_a_block_autoregressive_network_is_triangular_and_increasing(block, depth, context_shape):
    layer = b.BlockAutoregressive(4, block=block, depth=depth, context_shape=context_shape)
    context = None if context_shape is None else torch.randn(1, 2)
    jacobian = torch.autograd.functional.jacobian(lambda v: layer.encode(v[None], context)[0], torch.randn(4))
    assert not bool(jacobian.triu(1).any())
    assert bool((jacobian.diagonal() > 0).all())
    assert bool((jacobian.tril(-1) != 0).sum() == 6)


@pytest.mark.parametrize("bins", [1, 4, 10])
@pytest.mark.parametrize(
    "transformer",
    [
        b.LinearSplineTransformer,
        b.QuadraticSplineTransformer,
        b.CubicSplineTransformer,
        b.RationalQuadraticTransformer,
    ],
)
def test_a_new_spline_is_the_identity(transformer, bins):
    built, x = transformer(bins, tail_bound=2.0), torch.linspace(-3, 3, 41)[:, None]
    z, log_slope = built(x, torch.zeros(built.parameters_per_element, 1, 1))
    torch.testing.assert_close(z, x)
    torch.testing.assert_close(log_slope, torch.zeros_like(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", [[0, 0, 1], [0, 1, 3], [1, 2, 3]])
def test_orders_that_are_no_permutations_are_refused(order):
    with pytest.raises(b.errors.ConfigError):
        b.Permutation(order)


@pytest.mark.parametrize("name", VECTORS)
def test_a_chain_is_the_composition_of_its_parts(name):
    parts = [flow(name, 3).bijection for _ in range(2)]
    chain, nested, x = b.Chain(parts), b.Chain([parts[0], b.Chain(parts[1:])]), torch.randn(4, 3)
    y, first = parts[0](x)
    z, second = parts[1](y)
    for whole in (chain, nested):
        torch.testing.assert_close(whole(x)[0], z)
        torch.testing.assert_close(whole(x)[1], first + second)
    assert len(chain) == 2
    assert isinstance(chain[:1], b.Chain)
    back = b.Chain([b.Inverse(part) for part in reversed(parts)])
    torch.testing.assert_close(back.encode(z), x, rtol=0, atol=100 * tolerance(name))


@pytest.mark.parametrize("name", ["maf", "realnvp", "neural_spline", "bnaf", "planar", "dense"])
def test_a_fit_by_maximum_likelihood_improves(name):
    torch.manual_seed(1)
    density = flow(name, 2, noise=0.01).train()
    x = torch.randn(200, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.4]]) + torch.tensor([1.0, -1.0])
    optimizer = torch.optim.Adam(density.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = -density.log_prob(x).mean()
        loss.backward()
        optimizer.step()
        losses.append(-density.eval().log_prob(x).mean().item())
        density.train()
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize("name", ["iaf", "realnvp", "planar", "dense"])
def test_a_fit_by_the_reverse_divergence_finds_a_normal_target(name):
    torch.manual_seed(1)
    density = flow(name, 2, noise=0.01).eval()
    target = torch.distributions.MultivariateNormal(torch.tensor([1.0, -0.5]), torch.tensor([[1.0, 0.5], [0.5, 0.8]]))
    optimizer = torch.optim.Adam(density.parameters(), 2e-2)
    for _ in range(100):
        optimizer.zero_grad()
        x, log_prob = density.rsample_and_log_prob(100)
        divergence = (log_prob - target.log_prob(x)).mean()
        divergence.backward()
        optimizer.step()
    x, log_prob = density.rsample_and_log_prob(2000)
    assert abs((log_prob - target.log_prob(x)).mean()) < 0.25


# flowjax's formulas in NumPy


@pytest.mark.parametrize("upper", [False, True])
def test_the_triangular_map_in_numpy(upper):
    layer, x = b.TriangularLinear(5, upper=upper), torch.randn(6, 5)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    weight, log_diagonal, shift = (p.detach().numpy() for p in (layer.weight, layer.log_diagonal, layer.bias))
    triangle = np.triu(weight, 1) if upper else np.tril(weight, -1)
    matrix = triangle + np.diag(np.exp(log_diagonal))
    z, log_det = layer(x)
    np.testing.assert_allclose(z.detach().numpy(), x.numpy() @ matrix.T + shift)
    np.testing.assert_allclose(log_det.detach().numpy(), np.full(6, np.linalg.slogdet(matrix)[1]))
    np.testing.assert_allclose(
        layer.decode(z).detach().numpy(), np.linalg.solve(matrix, (z.detach().numpy() - shift).T).T
    )


@pytest.mark.parametrize("size", [1, 3, 6])
def test_the_planar_map_in_numpy(size):
    layer, x = b.Planar(size), torch.randn(6, size)
    raw = layer.conditioned.offset.detach().numpy()
    u, w, c = raw[:size], raw[size:-1], raw[-1]
    along = u @ w
    u = u + (np.log1p(np.exp(along)) - 1 - along) * w / (w @ w)
    height = np.tanh(x.numpy() @ w + c)
    z, log_det = layer(x)
    np.testing.assert_allclose(z.detach().numpy(), x.numpy() + height[:, None] * u)
    np.testing.assert_allclose(log_det.detach().numpy(), np.log(1 + (1 - height**2) * (u @ w)), atol=1e-12)


@pytest.mark.parametrize("bins", [1, 3, 8])
def test_the_rational_quadratic_spline_in_numpy(bins):
    w, h, s = torch.randn(bins), torch.randn(bins), torch.randn(bins - 1)
    knots = spline_knots(w, h, s, bound=2.0)
    x_knots, y_knots, slopes = (table.numpy() for table in knots[:3])
    x = np.linspace(-1.99, 1.99, 97)
    k = np.clip(np.searchsorted(x_knots, x, side="right") - 1, 0, bins - 1)
    width, height = np.diff(x_knots)[k], np.diff(y_knots)[k]
    share, mean, left, right = (x - x_knots[k]) / width, height / width, slopes[k], slopes[k + 1]
    below = mean + (left + right - 2 * mean) * share * (1 - share)
    wanted = y_knots[k] + height * (mean * share**2 + left * share * (1 - share)) / below
    slope = mean**2 * (right * share**2 + 2 * mean * share * (1 - share) + left * (1 - share) ** 2) / below**2
    tables = (table[:, None] for table in knots[:3])
    z, log_slope = spline(torch.as_tensor(x)[:, None], type(knots)(*tables, knots.bound))
    np.testing.assert_allclose(z[:, 0].numpy(), wanted, atol=1e-12)
    np.testing.assert_allclose(log_slope[:, 0].numpy(), np.log(slope), atol=1e-11)
