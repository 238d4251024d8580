"""Residual layers: bounds that hold after training, estimates without bias, gradients of the Neumann series."""

import pytest
import torch

import snflow
from snflow import InvertibleResidual, flows
from snflow.bijections.residual.invertible import log_det_spread
from snflow.errors import ConfigError, ConvergenceError, GradientError
from snflow.nets import CLipSwish, LipschitzDenseNet, LipschitzNet, LipSwish, SpectralConv2d, SpectralLinear
from snflow.numerics.jacobian import jacobian, jacobian_log_det, roulette_weights, series_log_det

NETS = {
    "vectors": lambda: (LipschitzNet((3,), width=16, depth=2), (3,)),
    "images": lambda: (LipschitzNet((2, 5, 4), width=6, depth=2), (2, 5, 4)),
    "dense vectors": lambda: (LipschitzDenseNet((3,), growth=8), (3,)),
    "dense images": lambda: (LipschitzDenseNet((2, 5, 4), growth=4), (2, 5, 4)),
}


def largest_stretch(function, x, iterations=300):
    """σ(J) at every row by power iteration on JᵀJ from random vectors."""
    matrices = jacobian(function, x)
    v = torch.randn(len(x), matrices.shape[2], 1)
    for _ in range(iterations):
        v = matrices.mT @ (matrices @ v)
        v = v / v.norm(dim=1, keepdim=True).clamp_min(1e-30)
    return (matrices @ v).flatten(1).norm(dim=1)


@pytest.mark.parametrize("name", NETS)
def test_the_lipschitz_bound_holds_after_training(name):
    torch.manual_seed(0)
    net, shape = NETS[name]()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    x = torch.randn(64, *shape)
    for _ in range(60):  # asks for as much stretching as the network can give
        y = x + 0.01 * torch.randn_like(x)
        loss = -((net(x) - net(y)).flatten(1).norm(dim=1) / (x - y).flatten(1).norm(dim=1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval().requires_grad_(False)
    a, b = 3 * torch.randn(2, 1000, *shape)
    ratio = (net(a) - net(b)).flatten(1).norm(dim=1) / (a - b).flatten(1).norm(dim=1)
    assert float(ratio.max()) <= net.lipschitz
    stretch = largest_stretch(net, x[:20])
    assert float(stretch.max()) <= net.lipschitz
    assert float(stretch.max()) > 0.5  # it did stretch: the bound was put to the test


@pytest.mark.parametrize("layer", [SpectralLinear(4, 6, bound=0.8), SpectralConv2d(2, 3, (5, 4), bound=0.8)])
def test_a_spectral_layer_has_its_bound_as_its_norm(layer):
    layer = layer.double().eval()
    with torch.no_grad():
        layer.weight.copy_(5 * torch.randn_like(layer.weight))
    shape = (4,) if isinstance(layer, SpectralLinear) else (2, 5, 4)
    matrix = jacobian(lambda x: layer(x), torch.zeros(1, *shape))[0] if shape == (4,) else None
    if matrix is None:
        units = torch.eye(40).view(40, *shape)
        matrix = (layer(units) - layer(torch.zeros(1, *shape))).flatten(1).T
    assert float(torch.linalg.matrix_norm(matrix.detach(), 2)) == pytest.approx(0.8, abs=1e-9)


def test_a_weight_within_its_bound_is_unchanged():
    layer = SpectralLinear(3, 3, bound=1.0).eval()
    with torch.no_grad():
        layer.weight.copy_(0.1 * torch.eye(3))
    x = torch.randn(4, 3)
    assert torch.equal(layer(x), 0.1 * x)


@pytest.mark.parametrize("activation", [LipSwish(), CLipSwish()])
def test_the_activations_stretch_by_one_at_most(activation):
    with torch.no_grad():
        x = torch.linspace(-30, 30, 60_001)[:, None].double().requires_grad_()
    activation = activation.double()
    value = activation(x)
    slopes = torch.stack(
        [torch.autograd.grad(value[:, c].sum(), x, retain_graph=True)[0] for c in range(len(value[0]))]
    )
    assert float(slopes.norm(dim=0).max()) <= 1
    assert float(slopes.norm(dim=0).max()) > 0.999


def test_roulette_weights_terms_by_their_inverse_probability():
    torch.manual_seed(0)
    draws = [roulette_weights(2) for _ in range(4000)]
    for k in range(1, 7):
        mean = sum(w[k - 1] for w in draws if len(w) >= k) / len(draws)
        assert mean == pytest.approx(1.0, abs=4 * (2 ** max(0, k - 2) / 4000) ** 0.5 + 1e-12)


def test_the_truncated_series_has_the_gradient_of_its_mean():
    """With all D probes √D·eᵢ the mean over probes is the trace: value and gradient against autograd, to rounding."""
    torch.manual_seed(1)
    net = LipschitzNet((3,), width=8, lipschitz=0.8).eval()
    x = torch.randn(4, 3)
    probes = 3**0.5 * torch.eye(3)[:, None].expand(3, 4, 3)
    weights = [1.0] * 6
    _, value = series_log_det(net, x, probes, weights)
    matrices = jacobian(net, x)
    power, plain = torch.eye(3).expand(4, 3, 3), torch.zeros(4)
    for k in range(1, 7):
        power = power @ matrices
        plain = plain + (-1) ** (k + 1) / k * power.diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(value, plain, rtol=1e-10, atol=1e-10)
    parameters = list(net.parameters())[:-1]  # the last bias has no part in the Jacobian

    def gradients(of):
        return torch.autograd.grad(of.sum(), parameters)

    for mine, theirs in zip(gradients(value), gradients(plain), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


def test_estimates_have_the_mean_of_the_exact_log_det_and_a_known_standard_deviation():
    torch.manual_seed(2)
    turn = torch.linalg.qr(torch.randn(5, 5))[0]

    class Net(torch.nn.Module):  # as far from the identity as it may be
        def forward(self, x):
            return 0.8 * torch.sin(x @ turn)

    net = Net()
    layer = InvertibleResidual(net, (5,), log_det="unbiased").eval()
    x = torch.randn(6, 5)
    exact = jacobian_log_det(lambda v: v + net(v), x)
    mean, std = log_det_spread(layer, x, repeats=3000)
    assert bool((std > 0).all())
    exact = exact.detach()
    assert float(((mean - exact) / (std / 3000**0.5)).abs().max()) < 4
    truncated = InvertibleResidual(net, (5,), log_det="truncated", terms=1).eval()
    biased, spread = log_det_spread(truncated, x, repeats=3000)
    assert float(((biased - exact) / (spread / 3000**0.5)).abs().max()) > 6


def test_the_neumann_gradient_has_the_mean_of_the_exact_one():
    torch.manual_seed(3)
    net = LipschitzNet((4,), width=8, lipschitz=0.8)
    layer = InvertibleResidual(net, (4,), log_det="unbiased").eval()
    x = torch.randn(5, 4)
    weight = net.layers[0].weight
    (exact,) = torch.autograd.grad(layer(x)[1].sum(), weight)
    drawn = torch.stack([torch.autograd.grad(layer.estimated_log_det(x).sum(), weight)[0] for _ in range(1500)])
    error = (drawn.mean(0) - exact) / (drawn.std(0) / 1500**0.5)
    assert float(error.abs().max()) < 4.5


def test_training_estimates_and_evaluation_is_exact():
    layer = InvertibleResidual(LipschitzNet((5,), width=16), (5,))
    x = torch.randn(3, 5)
    assert not torch.equal(layer(x)[1], layer(x)[1])
    layer.eval()
    assert torch.equal(layer(x)[1], layer(x)[1])
    assert layer.log_det_kind == "exact"
    large = InvertibleResidual(LipschitzNet((5,), width=16), (5,), exact_dimensions=4)
    assert large.log_det_kind == "estimate"
    large.eval()
    assert not torch.equal(large(x)[1], large(x)[1])


def test_a_network_that_is_no_contraction_is_an_error_on_inversion():
    class Twice(torch.nn.Module):
        def forward(self, x):
            return -2 * x + torch.sin(5 * x)

    layer = InvertibleResidual(Twice(), (2,)).eval()
    with pytest.raises(ConvergenceError, match="of 3 rows"):
        layer.inverse(torch.tensor([[1.0, 2.0], [3.0, -4.0], [0.5, 0.1]]))


def test_bad_options_are_refused():
    with pytest.raises(ConfigError, match="0 < lipschitz < 1"):
        LipschitzNet((2,), lipschitz=1.0)
    with pytest.raises(ConfigError, match="did you mean 'unbiased'"):
        InvertibleResidual(LipschitzNet((2,)), (2,), log_det="unbiasd")
    with pytest.raises(ConfigError, match="3 kernels"):
        LipschitzNet((1, 4, 4), kernel_sizes=(3, 3))


def test_ready_flows_take_vectors_images_and_contexts():
    for name, size in (("residual", "width"), ("densenet", "growth")):
        function = getattr(flows, name)
        vectors = function(3, layers=2, context_shape=2)
        assert vectors.log_prob(torch.randn(4, 3), torch.randn(4, 2)).shape == (4,)
        images = snflow.dequantized(function((1, 8, 8), layers=2, scales=2, **{size: 4}), 17).eval()
        x = torch.randint(17, (2, 1, 8, 8))
        assert images.log_prob(x).shape == (2,)
        assert images.sample(2).shape == (2, 1, 8, 8)


def test_the_inverse_refuses_second_derivatives():
    layer, z = InvertibleResidual(LipschitzNet((3,), width=8), (3,)).eval(), torch.randn(4, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(layer.decode(z).sum(), z, create_graph=True)
    with pytest.raises(GradientError, match="an inverse: expected first derivatives"):
        slope.square().sum().backward()


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("size", [3, 300], ids=["small", "large"])
def test_encode_pays_for_no_log_determinant(size, training, monkeypatch):
    layer, x = InvertibleResidual(LipschitzNet((size,), width=16), (size,)).train(training), torch.randn(4, size)
    layer.eval().encode(x)  # the first evaluation in eval() sets the norms
    wanted = layer.train(training)(x)[0].detach()
    calls = []
    monkeypatch.setattr(InvertibleResidual, "_exact", lambda *args: calls.append(args))
    monkeypatch.setattr(InvertibleResidual, "_estimated", lambda *args: calls.append(args))
    torch.testing.assert_close(layer.encode(x), wanted, rtol=0, atol=1e-6 if training else 0)
    assert not calls
