"""Dequantization: levels come back exactly, the noise is uniform, and bits per dimension count the levels."""

import math

import pytest
import scipy.stats
import torch

from snflow.bijections.chain import Chain
from snflow.distributions.base import Uniform
from snflow.distributions.dequantization import Dequantization, UniformDequantization
from snflow.distributions.flow import Flow, bits_per_dim, mean_nll
from snflow.errors import ConfigError, DataError, DivergenceError, DtypeError


class AlmostOne(Dequantization):
    """The largest noise below one that the dtype has: the worst case for the way back."""

    def _noise(self, k, generator):
        top = torch.nextafter(torch.ones((), dtype=k.dtype), torch.zeros((), dtype=k.dtype))
        return top.expand_as(k), torch.zeros(k.shape[0], dtype=k.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [2, 17, 256, 65536])
@pytest.mark.parametrize("kind", [UniformDequantization, AlmostOne])
def test_levels_come_back(kind, levels, dtype):
    k = torch.arange(levels).reshape(-1, 1)
    x, log_q = kind(levels)(k, dtype=dtype)
    assert x.dtype == dtype
    assert bool(((k <= x) & (x < k + 1)).all())
    assert torch.equal(log_q, torch.zeros(levels, dtype=dtype))
    back = kind(levels).quantize(x)
    assert back.dtype == (torch.uint8 if levels <= 256 else torch.int64)
    assert torch.equal(back.long(), k)


def test_noise_is_uniform():
    x, _ = UniformDequantization(256)(torch.full((5000, 1), 200, dtype=torch.uint8))
    assert scipy.stats.kstest((x - 200).flatten().numpy(), "uniform").pvalue > 1e-3


def test_noise_comes_from_the_given_or_the_global_generator():
    dequantize, k = UniformDequantization(256), torch.zeros(3, 4, dtype=torch.uint8)
    draws = [dequantize(k, generator=torch.Generator().manual_seed(5))[0] for _ in range(2)]
    assert torch.equal(*draws)
    state = torch.get_rng_state()
    first = dequantize(k)[0]
    torch.set_rng_state(state)
    assert torch.equal(dequantize(k)[0], first)


def test_quantize_clamps():
    x = torch.tensor([-3.0, -math.inf, 4.99, 16.5, 17.0, math.inf])
    assert UniformDequantization(17).quantize(x).tolist() == [0, 0, 4, 16, 16, 16]


@pytest.mark.parametrize("levels", [17, 256])
def test_uniform_model_costs_the_logarithm_of_the_levels(levels):
    flow = Flow(Chain([]), Uniform((1, 4, 4), 0.0, float(levels)), UniformDequantization(levels))
    images = torch.randint(levels, (50, 1, 4, 4), dtype=torch.uint8 if levels == 17 else torch.int64)
    assert bits_per_dim(mean_nll(flow, images, batch_size=7), 16) == pytest.approx(math.log2(levels), abs=1e-12)


def test_data_of_any_integer_dtype():
    dequantize = UniformDequantization(17)
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
        assert dequantize(torch.tensor([[16]], dtype=dtype))[0].floor().item() == 16


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda d: d(torch.ones(2, 2)), DtypeError, "integer dtype, got torch.float64; give the images as uint8"),
        (lambda d: d(torch.ones(2, 2, dtype=torch.bool)), DtypeError, "integer dtype, got torch.bool"),
        (lambda d: d(torch.tensor([[17]])), DataError, "levels from 0 to 16, got values from 17 to 17"),
        (lambda d: d(torch.tensor([[17]], dtype=torch.uint8)), DataError, "got values from 17 to 17"),
        (lambda d: d(torch.tensor([[-1, 3]])), DataError, "levels from 0 to 16, got values from -1 to 3"),
        (lambda d: d.quantize(torch.tensor([1.0, math.nan])), DivergenceError, "got 1 NaN of 2"),
        (lambda d: UniformDequantization(1), ConfigError, "two levels or more, got 1"),
        (lambda d: UniformDequantization(256.0), ConfigError, "two levels or more, got 256.0"),
    ],
)
def test_misuse(call, error, message):
    with pytest.raises(error, match=message):
        call(UniformDequantization(17))
