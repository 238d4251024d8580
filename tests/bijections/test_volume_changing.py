"""Volume-changing layers: GDN, Gaussianization, MintNet's convolutions."""

import pytest
import torch

import snflow
from snflow import GDN, Gaussianization, MaskedResidualConv2d, flows
from snflow.errors import ConfigError, ConvergenceError
from snflow.flows.gaussianization import gaussianize
from snflow.numerics.jacobian import jacobian


def moons(count):
    angle = torch.pi * torch.rand(count)
    upper = torch.rand(count) < 0.5
    x = torch.where(upper, torch.cos(angle), 1 - torch.cos(angle))
    y = torch.where(upper, torch.sin(angle), 0.5 - torch.sin(angle))
    return torch.stack([x, y], 1) + 0.05 * torch.randn(count, 2)


@pytest.mark.parametrize("rotation", ["random", "pca"])
def test_each_layer_brings_the_data_closer_to_normal(rotation):
    torch.manual_seed(0)
    data, fresh = moons(20_000), moons(5_000)
    likelihoods = []
    for layers in (1, 4, 12):
        flow = gaussianize(flows.gaussianization(2, layers=layers, rotation=rotation), data).eval()
        with torch.no_grad():
            likelihoods.append(float(flow.log_prob(fresh).mean()))
            z = flow.encode(fresh)
    assert likelihoods[0] < likelihoods[1] < likelihoods[2]
    assert float(z.mean(0).abs().max()) < 0.05
    assert float((torch.cov(z.T) - torch.eye(2)).abs().max()) < 0.1


def test_the_first_training_batch_fits_a_layer_that_is_not_fitted():
    torch.manual_seed(1)
    flow = flows.gaussianization(2, layers=3)
    x = moons(2000)
    with torch.no_grad():
        flow.eval().log_prob(x)
        assert not any(bool(layer.initialized) for layer in flow.bijection)
        flow.train().log_prob(x)
    assert all(bool(layer.initialized) for layer in flow.bijection)
    loaded = flows.gaussianization(2, layers=3)
    loaded.load_state_dict(flow.state_dict())
    before = loaded.bijection[0].mean.clone()
    loaded.train().log_prob(x + 5)  # never again
    assert torch.equal(loaded.bijection[0].mean, before)


def test_gaussianization_refuses_what_cannot_be_fitted():
    with pytest.raises(ConfigError, match="at least 20 rows"):
        Gaussianization(2).fit(torch.randn(5, 2))
    with pytest.raises(ConfigError, match="bins ≥ 2"):
        Gaussianization(2, bins=1)


def test_constant_and_discrete_features_stay_finite():
    x = torch.stack([torch.zeros(500), torch.randint(3, (500,)).double()], 1)
    layer = Gaussianization(2).fit(x)
    z, log_det = layer(x)
    assert z.isfinite().all()
    assert log_det.isfinite().all()
    torch.testing.assert_close(layer.decode(z), x, rtol=1e-6, atol=1e-6)


def test_gdn_is_onto_or_refuses_points_outside_its_range():
    z = 10 * torch.randn(100, 3)
    layer = GDN(3, vectors=True).eval()
    torch.testing.assert_close(layer(layer.decode(z))[0], z, rtol=1e-6, atol=1e-6)
    paper = GDN(3, vectors=True, epsilon=0.5).eval()
    x = torch.randn(100, 3)
    torch.testing.assert_close(paper.decode(paper(x)[0]), x, rtol=1e-6, atol=1e-6)
    with pytest.raises(ConvergenceError, match="rows"):
        paper.decode(z)
    with pytest.raises(ConfigError, match="epsilon"):
        GDN(3, epsilon=0.6)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_jacobian_of_a_masked_convolution_is_triangular(reverse):
    torch.manual_seed(2)
    layer = MaskedResidualConv2d(2, groups=3, reverse=reverse).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    # channels come after pixels in the order
    x = torch.randn(3, 3, 2, 2)

    def by_pixels(v):
        return layer(v.permute(0, 3, 1, 2))[0].permute(0, 2, 3, 1)

    matrices = jacobian(by_pixels, x).detach()
    wrong = matrices.tril(-1) if reverse else matrices.triu(1)
    assert float(wrong.abs().max()) == 0
    assert float(matrices.diagonal(dim1=1, dim2=2).min()) > 0


def test_the_inverse_of_steep_masked_convolutions_converges():
    torch.manual_seed(3)
    layer = MaskedResidualConv2d(2, groups=8).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        x = 5 * torch.randn(10, 2, 6, 6)
        torch.testing.assert_close(layer.decode(layer(x)[0]), x, rtol=1e-7, atol=1e-7)


def test_mintnet_takes_vectors_images_and_contexts():
    vectors = flows.mintnet(3, layers=2, context_shape=2).eval()
    assert vectors.log_prob(torch.randn(4, 3), torch.randn(4, 2)).shape == (4,)
    images = snflow.dequantized(flows.mintnet((1, 4, 4), layers=2, groups=3), 17).eval()
    x = torch.randint(17, (2, 1, 4, 4))
    assert torch.equal(images.decode(images.encode(x)), x)
    assert images.sample(3).shape == (3, 1, 4, 4)
