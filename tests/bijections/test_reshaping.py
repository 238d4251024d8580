"""Squeeze and flatten: where every number goes, and which shapes are refused."""

import pytest
import torch
from torch.func import jacrev

from snflow.bijections.chain import Chain
from snflow.bijections.reshaping import Flatten, Squeeze
from snflow.errors import ConfigError, ShapeError


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_squeeze_puts_channels_in_the_documented_order(factor):
    x = torch.randn(2, 3, 2 * factor, 3 * factor)
    z, log_det = Squeeze(factor)(x)
    assert z.shape == (2, 3 * factor**2, 2, 3)
    assert torch.equal(log_det, torch.zeros(2))
    for c in range(3):
        for i in range(factor):
            for j in range(factor):
                channel = z[:, c * factor**2 + i * factor + j]
                assert torch.equal(channel, x[:, c, i::factor, j::factor])


@pytest.mark.parametrize("layer", [Squeeze(), Flatten((2, 4, 4)), Chain([Squeeze(), Flatten((8, 2, 2))])])
class TestBoth:
    def test_round_trip(self, layer):
        x = torch.randn(5, 2, 4, 4)
        z, log_det = layer(x)
        back, log_inverse = layer.inverse(z)
        assert torch.equal(back, x)
        assert torch.equal(log_det, torch.zeros(5))
        assert torch.equal(log_inverse, torch.zeros(5))
        assert log_det.dtype == x.dtype

    def test_is_a_permutation(self, layer):
        jacobian = jacrev(lambda x: layer(x[None])[0][0])(torch.randn(2, 4, 4)).reshape(32, 32)
        assert torch.equal(jacobian @ jacobian.T, torch.eye(32))

    def test_shapes_without_data(self, layer):
        latent = layer.latent_shape((2, 4, 4))
        assert layer(torch.zeros(1, 2, 4, 4))[0].shape[1:] == latent
        assert layer.data_shape(latent) == (2, 4, 4)

    def test_empty_batch(self, layer):
        z, log_det = layer(torch.empty(0, 2, 4, 4))
        assert z.shape == (0, *layer.latent_shape((2, 4, 4)))
        assert log_det.shape == (0,)
        assert layer.decode(z).shape == (0, 2, 4, 4)


@pytest.mark.parametrize(("height", "width"), [(7, 8), (8, 7)])
def test_squeeze_of_an_odd_image(height, width):
    with pytest.raises(ShapeError, match=f"a height and a width divisible by 2, got {height} x {width}; pad or crop"):
        Squeeze()(torch.zeros(2, 1, height, width))


def test_squeeze_of_a_vector():
    with pytest.raises(ShapeError, match=r"expected event shape \(any, any, any\), got \(4,\)"):
        Squeeze()(torch.zeros(2, 4))


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 4)])
def test_squeeze_of_wrong_latents(shape):
    with pytest.raises(ShapeError, match="channels divisible by 4"):
        Squeeze().inverse(torch.zeros(*shape))


@pytest.mark.parametrize("factor", [0, -2, 1.5])
def test_squeeze_by_a_wrong_factor(factor):
    with pytest.raises(ConfigError, match="expected an integer factor of at least 1"):
        Squeeze(factor)


def test_flatten_of_wrong_shapes():
    layer = Flatten((1, 2, 2))
    with pytest.raises(ShapeError, match=r"expected event shape \(1, 2, 2\), got \(2, 2\)"):
        layer(torch.zeros(5, 2, 2))
    with pytest.raises(ShapeError, match=r"expected latent shape \(4,\), got \(5,\)"):
        layer.inverse(torch.zeros(5, 5))
    with pytest.raises(ConfigError, match="expected the shape of one event"):
        Flatten((1, 0))
