"""Dequantization: integers are recovered exactly, and a uniform model costs log2(L) bits per dimension."""

import math

import pytest
import scipy.stats
import torch

from snflow import dequantized, flows
from snflow.bijections.chain import Chain
from snflow.bijections.elementwise import Affine
from snflow.distributions.base import StandardNormal, Uniform
from snflow.distributions.dequantization import Dequantization, UniformDequantization, VariationalDequantization
from snflow.distributions.flow import Flow, bits_per_dim, mean_nll
from snflow.errors import ConfigError, DataError, DivergenceError, DtypeError


class AlmostOne(Dequantization):
    """The largest noise below one that the dtype has: the worst case for quantize."""

    def _noise(self, k, generator):
        top = torch.nextafter(torch.ones((), dtype=k.dtype), torch.zeros((), dtype=k.dtype))
        return top.expand_as(k), torch.zeros(k.shape[0], dtype=k.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_values", [2, 17, 256, 65536])
@pytest.mark.parametrize("kind", [UniformDequantization, AlmostOne])
def test_integers_are_recovered(kind, num_values, dtype):
    k = torch.arange(num_values).reshape(-1, 1)
    x, log_q = kind(num_values)(k, dtype=dtype)
    assert x.dtype == dtype
    assert bool(((k <= x) & (x < k + 1)).all())
    assert torch.equal(log_q, torch.zeros(num_values, dtype=dtype))
    back = kind(num_values).quantize(x)
    assert back.dtype == (torch.uint8 if num_values <= 256 else torch.int64)
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


@pytest.mark.parametrize("num_values", [17, 256])
def test_uniform_model_costs_the_logarithm_of_the_number_of_values(num_values):
    flow = Flow(Chain([]), Uniform((1, 4, 4), high=float(num_values)), UniformDequantization(num_values))
    images = torch.randint(num_values, (50, 1, 4, 4), dtype=torch.uint8 if num_values == 17 else torch.int64)
    assert bits_per_dim(mean_nll(flow, images, batch_size=7), 16) == pytest.approx(math.log2(num_values), abs=1e-12)


def test_data_of_any_integer_dtype():
    dequantize = UniformDequantization(17)
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
        assert dequantize(torch.tensor([[16]], dtype=dtype))[0].floor().item() == 16


def perturb(module, scale):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn_like(parameter))


def test_variational_noise_has_the_reported_density():
    torch.manual_seed(0)
    flow = dequantized(flows.realnvp((1, 4, 4), width=4), 9, noise="variational", noise_layers=2, noise_width=4)
    perturb(flow, 0.1)
    k = torch.randint(9, (500, 1, 4, 4), dtype=torch.uint8)
    with torch.no_grad():
        x, log_q = flow.dequantization(k)
        u = x - k
        assert bool(((u >= 0) & (u < 1)).all())
        # The density of u, computed in the other direction: u → v → ε.
        v = torch.logit(u)
        noise, log_det = flow.dequantization.bijection.inverse(v, 2 * k / 8 - 1)
        standard = StandardNormal((1, 4, 4))
        expected = standard.log_prob(noise) + log_det - (u * (1 - u)).log().flatten(1).sum(1)
        torch.testing.assert_close(log_q, expected, rtol=1e-9, atol=0)
        assert abs(float(noise.mean())) < 0.05
        bright, dark = (torch.full_like(k, value) for value in (8, 0))
        generators = [torch.Generator().manual_seed(3) for _ in range(2)]
        noises = [flow.dequantization(q, generator=g)[0] - q for q, g in zip((bright, dark), generators, strict=True)]
    assert (noises[0] - noises[1]).abs().max() > 0.01


def test_variational_noise_is_trained_with_the_flow():
    torch.manual_seed(0)
    flow = dequantized(flows.realnvp((1, 4, 4), width=8), 17, noise="variational", noise_width=8)
    for step in range(2):
        flow.zero_grad()
        (-flow(torch.randint(17, (8, 1, 4, 4))).mean()).backward()
        if step == 0:
            perturb(flow, 0.1)
    assert not [n for n, p in flow.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda d: d(torch.ones(2, 2)), DtypeError, "integer dtype, got torch.float64; pass images as uint8"),
        (lambda d: d(torch.ones(2, 2, dtype=torch.bool)), DtypeError, "integer dtype, got torch.bool"),
        (lambda d: d(torch.tensor([[17]])), DataError, "values from 0 to 16, got values from 17 to 17"),
        (lambda d: d(torch.tensor([[17]], dtype=torch.uint8)), DataError, "got values from 17 to 17"),
        (lambda d: d(torch.tensor([[-1, 3]])), DataError, "values from 0 to 16, got values from -1 to 3"),
        (lambda d: d.quantize(torch.tensor([1.0, math.nan])), DivergenceError, "got 1 NaN of 2"),
        (lambda d: UniformDequantization(1), ConfigError, "num_values ≥ 2, got 1"),
        (lambda d: UniformDequantization(levels=256), ConfigError, "got levels=; known: num_values"),
        (
            lambda d: VariationalDequantization(256, Affine(0.0, 1.0)),
            ConfigError,
            "conditioned on the image, got Affine",
        ),
        (lambda d: VariationalDequantization(256, None), ConfigError, "bijection to be a Bijection, got NoneType"),
        (lambda d: d(torch.ones(2, 2, dtype=torch.int64).numpy()), DtypeError, "a torch.Tensor, got ndarray"),
        (lambda d: UniformDequantization(256.0), ConfigError, "num_values ≥ 2, got 256.0"),
    ],
)
def test_misuse(call, error, message):
    with pytest.raises(error, match=message):
        call(UniformDequantization(17))
