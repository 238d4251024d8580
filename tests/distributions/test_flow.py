"""Flow: densities against closed forms, shapes of samples and contexts, inversion methods, reported likelihoods."""

import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.distributions import MultivariateNormal

from context_layer import ContextScale
from snflow import flows
from snflow.bijections.base import Bijection
from snflow.bijections.chain import Chain
from snflow.bijections.elementwise import Affine, LeakyReLU
from snflow.bijections.linear import Dense
from snflow.bijections.reshaping import Flatten
from snflow.distributions.base import BaseDensity, DiagonalNormal, StandardNormal, Uniform
from snflow.distributions.dequantization import Dequantization, UniformDequantization
from snflow.distributions.flow import Flow, bits_per_dim, mean_nll, mean_nll_with_error
from snflow.errors import ConfigError, ContextError, DataError, DtypeError, NotInvertibleError, ShapeError
from snflow.selfnorm.layers import SelfNormalizingDense


class Modes(Bijection):
    """Records the mode and the gradient setting in which it is called."""

    def _forward(self, x, context):
        self.seen = (self.training, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"))
        return x, x.new_zeros(len(x))

    def _inverse(self, z, context):
        self.seen = (self.training, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"))
        return z, z.new_zeros(len(z))


class RecordingNormal(BaseDensity):
    """Records whether it is called under autocast, which only bijections switch off."""

    def _log_prob(self, z):
        self.autocast = torch.is_autocast_enabled("cpu")
        return -z.square().sum(1)

    def _sample(self, n, temperature, generator):
        raise NotImplementedError


class HalfNoise(Dequantization):
    """u uniform on [0, ½), so that log q = D log 2."""

    def _noise(self, k, generator):
        return torch.rand(k.shape) / 2, torch.full((len(k),), k[0].numel() * math.log(2))


class LaxShapes(Bijection):
    """Claims four latents for every event."""

    def _data_shape(self, latent_shape):
        return (4,)

    def _latent_shape(self, event_shape):
        return (4,)

    def _forward(self, x, context):
        return x, x.new_zeros(len(x))

    _inverse = _forward


class OneWay(Bijection):
    has_inverse = False

    def _forward(self, x, context):
        return x, x.new_zeros(len(x))

    def _inverse(self, z, context):
        raise NotImplementedError


def dense_flow():
    layer = Dense(3)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(3) + 0.3 * torch.randn(3, 3))
        layer.bias.normal_()
    return Flow(layer, StandardNormal((3,)))


def digits_flow():
    return Flow(Chain([Flatten((1, 2, 2)), Affine(8.5, 4.0)]), StandardNormal((4,)), UniformDequantization(17))


def test_density_of_a_linear_flow_is_normal():
    flow = dense_flow()
    inverse = torch.linalg.inv(flow.bijection.weight.detach())
    expected = MultivariateNormal(-inverse @ flow.bijection.bias.detach(), inverse @ inverse.T)
    x = torch.randn(20, 3)
    torch.testing.assert_close(flow.log_prob(x), expected.log_prob(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(flow(x), flow.log_prob(x), rtol=0, atol=0)


def test_density_in_the_plane_integrates_to_one():
    flow = Flow(Affine(torch.tensor([0.5, -1.0]), torch.tensor([0.7, 1.3])), DiagonalNormal((2,)))
    axis = torch.arange(-200, 200) / 20 + 0.025
    assert flow.log_prob(torch.cartesian_prod(axis, axis)).exp().sum().item() / 400 == pytest.approx(1, abs=1e-6)


def test_samples_have_the_moments_of_the_density():
    flow = dense_flow()
    x = flow.sample(20_000)
    inverse = torch.linalg.inv(flow.bijection.weight.detach())
    scale = (inverse @ inverse.T).diagonal().sqrt()
    mean = -inverse @ flow.bijection.bias.detach()
    assert bool(((x.mean(0) - mean).abs() < 5 * scale / math.sqrt(20_000)).all())
    torch.testing.assert_close(x.T.cov(), inverse @ inverse.T, rtol=0, atol=0.05 * float(scale.max() ** 2))


def test_shapes_with_and_without_context():
    flow = Flow(ContextScale(), StandardNormal((3,)))
    context = torch.randn(5, 2)
    assert flow.log_prob(torch.randn(5, 3), context).shape == (5,)
    assert flow.sample(4, context).shape == (4, 5, 3)
    assert flow.sample(0, context).shape == (0, 5, 3)
    assert [part.shape for part in flow.rsample_and_log_prob(4, context)] == [(4, 5, 3), (4, 5)]
    assert dense_flow().sample(0).shape == (0, 3)
    assert dense_flow().log_prob(torch.zeros(0, 3)).shape == (0,)


def test_every_sample_is_conditioned_on_its_row_of_the_context():
    flow = Flow(ContextScale(), StandardNormal((3,)))
    context = torch.tensor([[0.0, 100.0], [0.0, -100.0]])
    x = flow.sample(6, context, temperature=0.0)
    torch.testing.assert_close(x, (context @ flow.bijection.weight).detach().expand(6, 2, 3))


def test_rsample_and_log_prob_belong_together():
    flow, context = Flow(ContextScale(), StandardNormal((3,))), torch.randn(5, 2, requires_grad=True)
    x, log_prob = flow.rsample_and_log_prob(4, context)
    expected = flow.log_prob(x.flatten(0, 1), context.expand(4, 5, 2).flatten(0, 1)).reshape(4, 5)
    torch.testing.assert_close(log_prob, expected, rtol=1e-12, atol=1e-12)
    log_prob.sum().backward()
    torch.testing.assert_close(context.grad[:, 0], torch.full((5,), -12.0))


def test_gradients_reach_rsample_and_not_sample():
    flow = dense_flow()
    assert not flow.sample(3).requires_grad
    flow.rsample(3).sum().backward()
    assert flow.bijection.weight.grad.abs().sum() > 0


def test_temperature_and_generator():
    flow, generator = dense_flow(), torch.Generator()
    mode = flow.sample(1, temperature=0.0)
    full = flow.sample(9, generator=generator.manual_seed(3))
    half = flow.sample(9, temperature=0.5, generator=generator.manual_seed(3))
    torch.testing.assert_close(half - mode, 0.5 * (full - mode))


def test_encode_and_decode_are_inverse():
    flow, x = dense_flow(), torch.randn(7, 3)
    torch.testing.assert_close(flow.decode(flow.encode(x)), x)


def test_integers_in_and_integers_out():
    flow = digits_flow()
    assert flow.event_shape == (1, 2, 2)
    images = torch.randint(17, (6, 1, 2, 2), dtype=torch.uint8)
    assert torch.equal(flow.decode(flow.encode(images)), images)
    assert flow.encode(images).shape == (6, 4)
    assert flow.log_prob(images).shape == (6,)
    samples = flow.sample(5)
    assert samples.shape == (5, 1, 2, 2)
    assert samples.dtype == torch.uint8
    assert samples.max() <= 16
    assert flow.rsample(5).is_floating_point()


def test_density_of_the_noise_is_subtracted():
    # noise on half the unit interval has density 2: log 2 per element is subtracted
    flow = Flow(Chain([]), Uniform(5, high=17.0), HalfNoise(17))
    images = torch.randint(17, (3, 5))
    torch.testing.assert_close(flow.log_prob(images), torch.full((3,), -5 * math.log(17) - 5 * math.log(2)))


def test_integers_follow_the_dtype_of_the_flow():
    flow = digits_flow().to(torch.float32)
    images = torch.randint(17, (6, 1, 2, 2), dtype=torch.uint8)
    assert flow.log_prob(images).dtype == torch.float32
    assert flow.rsample(2).dtype == torch.float32


def test_noise_generator_fixes_the_bound():
    flow, images = digits_flow(), torch.randint(17, (6, 1, 2, 2), dtype=torch.uint8)
    first, second = (flow.log_prob(images, generator=torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, flow.log_prob(images))


def test_the_inversion_method_is_an_argument():
    flow = Flow(SelfNormalizingDense(3), StandardNormal((3,))).eval()
    with torch.no_grad():
        flow.bijection.inverse_weight.add_(0.1)
    z = torch.randn(4, 3)
    exact, learned = flow.decode(z, inverse="exact"), flow.decode(z, inverse="learned")
    torch.testing.assert_close(flow.encode(exact), z)
    torch.testing.assert_close(learned, (z - flow.bijection.bias) @ flow.bijection.inverse_matrix.T)
    draws = [
        flow.sample(4, inverse=method, generator=torch.Generator().manual_seed(1)) for method in ("exact", "learned")
    ]
    assert not torch.allclose(*draws)
    seeded = [torch.Generator().manual_seed(1) for _ in range(2)]
    x, log_prob = flow.rsample_and_log_prob(4, inverse="learned", generator=seeded[0])
    assert torch.equal(x, flow.rsample(4, inverse="learned", generator=seeded[1]))
    assert log_prob.shape == (4,)
    for call in (flow.sample, flow.rsample, flow.rsample_and_log_prob):
        with pytest.raises(ConfigError, match="learned, exact, refined, got 'learnt'; did you mean 'learned'"):
            call(1, inverse="learnt")


def test_an_unknown_inversion_method_is_refused_by_every_flow():
    with pytest.raises(ConfigError, match="got 'learnt'; did you mean 'learned'"):
        dense_flow().sample(1, inverse="learnt")


@pytest.mark.parametrize("training", [True, False])
def test_sampling_leaves_the_mode_alone(training):
    flow = Flow(Modes(), StandardNormal((3,))).train(training)
    flow.sample(2)
    assert flow.bijection.seen == (training, False, False)
    assert flow.training is training


def test_copies_and_pickles_are_the_same_flow():
    flow, x = digits_flow(), torch.randint(17, (3, 1, 2, 2), dtype=torch.uint8)
    for other in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        values = [f.log_prob(x, generator=torch.Generator().manual_seed(0)) for f in (flow, other)]
        assert torch.equal(*values)


def test_event_shape_of_an_empty_chain():
    assert Flow(Chain([]), Uniform((2, 3))).event_shape == (2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Flow(Dense(3), StandardNormal((4,))), ShapeError, r"Flow: .*latents of Dense, got event shape \(4,\)"),
        (lambda: Flow(Flatten((1, 2, 2)), StandardNormal((5,))), ShapeError, r"Flow: .*got event shape \(5,\)"),
        (lambda: Flow(LaxShapes(), StandardNormal((5,))), ShapeError, r"event shape \(4,\), .* got event shape \(5,\)"),
        (
            lambda: Flow(StandardNormal((3,)), Dense(3)),
            ConfigError,
            r"bijection to be a Bijection, got StandardNormal; the order is",
        ),
        (lambda: Flow(Dense(3), StandardNormal((3,)), 256), ConfigError, "dequantization .* got int"),
        (
            lambda: dense_flow().log_prob(torch.zeros(2, 4)),
            ShapeError,
            r"Flow: expected data with shape \(batch, 3\), got \(2, 4\)",
        ),
        (lambda: dense_flow().log_prob(torch.zeros(3)), ShapeError, r"got \(3,\); add a batch dimension: x\[None\]"),
        (
            lambda: dense_flow().log_prob(torch.zeros(2, 3, dtype=torch.float32)),
            DtypeError,
            "float64.*got torch.float32",
        ),
        (lambda: dense_flow().log_prob(torch.zeros(2, 3, dtype=torch.uint8)), DtypeError, "got torch.uint8"),
        (lambda: digits_flow().log_prob(torch.zeros(2, 1, 2, 2)), DtypeError, "integer dtype, got torch.float64"),
        (lambda: digits_flow().log_prob(torch.full((2, 1, 2, 2), 17)), DataError, "from 0 to 16, got values from 17"),
        (lambda: dense_flow().log_prob(torch.zeros(2, 3), torch.zeros(2, 2)), ContextError, "no context, got one"),
        (lambda: dense_flow().sample(2, torch.zeros(2, 2)), ContextError, "Flow: expected no context"),
        (lambda: Flow(ContextScale(), StandardNormal((3,))).sample(2), ContextError, "ContextScale: .* got none"),
        (
            lambda: Flow(ContextScale(), StandardNormal((3,))).sample(2, torch.zeros(5, 3)),
            ShapeError,
            r"context with shape \(m, 2\), got \(5, 3\)",
        ),
        (lambda: Flow(OneWay(), StandardNormal((3,))).sample(2), NotInvertibleError, "has_inverse = False"),
        (lambda: dense_flow().sample(-2), ConfigError, "Flow: expected n ≥ 0, a number of samples, got -2"),
        (lambda: mean_nll(dense_flow(), torch.zeros(0, 3)), DataError, "at least one row, got none"),
        (lambda: mean_nll(dense_flow(), torch.zeros(2, 3), batch_size=0), ConfigError, "batch_size ≥ 1, got 0"),
        (
            lambda: dense_flow().sample(2, temperature="hot"),
            ConfigError,
            "Flow: .*temperature ≥ 0 and finite, got 'hot'",
        ),
        (
            lambda: Flow(ContextScale(), StandardNormal((3,))).sample("3", torch.zeros(5, 2)),
            ConfigError,
            "Flow: expected n ≥ 0, a number of samples, got '3'",
        ),
        (lambda: mean_nll(dense_flow(), torch.zeros(2, 3).numpy()), DtypeError, "mean_nll: .*Tensor, got ndarray; use"),
        (lambda: mean_nll(dense_flow(), torch.tensor(1.0)), DataError, "at least one row, got none"),
        (lambda: Flow(Dense(3), bsae=StandardNormal((3,))), ConfigError, "Flow: .* got bsae=; did you mean 'base'"),
        (lambda: Flow(Dense(3), bsae=StandardNormal((3,))), TypeError, "Flow: .* got bsae=; did you mean 'base'"),
        (lambda: bits_per_dim(1.0, 0), ConfigError, "bits_per_dim: expected dimensions ≥ 1, got 0"),
    ],
)
def test_misuse(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_mean_nll_does_not_depend_on_the_batches(batch_size):
    flow, x = dense_flow(), torch.randn(30, 3)
    assert mean_nll(flow, x, batch_size=batch_size) == pytest.approx(-flow.log_prob(x).mean().item(), abs=1e-12)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_mean_nll_sums_in_float64(batch_size):
    # beyond 2^24 float32 counts in twos: a single-precision sum would lose the rest
    flow = Flow(Affine(0.0, 1.0), StandardNormal((1,))).to(torch.float32)
    x = torch.full((4, 1), math.sqrt(2 * 2**24), dtype=torch.float32)
    x[1:] = math.sqrt(2)
    single = [-value for value in flow.log_prob(x).tolist()]
    assert mean_nll(flow, x, batch_size=batch_size) == math.fsum(single) / 4


def test_mean_nll_evaluates_without_gradients_or_autocast_and_restores_every_mode():
    frozen, trained = Modes().eval(), Modes()
    flow = Flow(Chain([frozen, trained]), RecordingNormal((3,)))
    flow.train()
    frozen.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mean_nll(flow, torch.randn(4, 3))
    assert trained.seen == frozen.seen == (False, False, False)
    assert not flow.base.autocast
    assert (flow.training, trained.training, frozen.training) == (True, True, False)
    with pytest.raises(ShapeError):
        mean_nll(flow, torch.randn(4, 2))
    assert (flow.training, trained.training, frozen.training) == (True, True, False)


def test_mean_nll_with_a_seeded_generator_repeats():
    flow, images = digits_flow(), torch.randint(17, (20, 1, 2, 2), dtype=torch.uint8)
    first, second = (mean_nll(flow, images, batch_size=6, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert first == second


def test_the_standard_error_of_a_mean_nll_is_that_of_its_rows():
    flow, x = dense_flow(), torch.randn(30, 3)
    mean, error = mean_nll_with_error(flow, x, batch_size=7)
    assert mean == mean_nll(flow, x, batch_size=7)
    assert error == pytest.approx(flow.eval().log_prob(x).std().item() / math.sqrt(30), rel=1e-12)
    assert math.isnan(mean_nll_with_error(flow, x[:1])[1])


def test_the_standard_error_includes_that_of_estimated_log_determinants():
    flow = flows.residual(6, layers=2, width=16, exact_dimensions=1, act_norm=False)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    assert flow.bijection.log_det_kind == "estimate"
    same = torch.randn(1, 6).expand(200, 6)
    mean, error = mean_nll_with_error(flow, same)
    assert error > 0
    exact = flows.residual(6, layers=2, width=16, act_norm=False)
    exact.load_state_dict(flow.state_dict())
    assert abs(mean - mean_nll(exact, same)) < 4 * error


def test_bits_per_dim_of_tensors():
    torch.testing.assert_close(bits_per_dim(torch.tensor([math.log(2), 0.0]), 2), torch.tensor([0.5, 0.0]))


NOT_DENSE_TENSORS = [torch.zeros(2, 3).numpy(), [[0.0, 0.0, 0.0]], None, 1.0, "data", torch.zeros(2, 3).to_sparse()]


@pytest.mark.parametrize("data", NOT_DENSE_TENSORS, ids=lambda data: type(data).__name__)
@pytest.mark.parametrize("method", ["log_prob", "__call__", "encode", "decode"])
def test_data_that_are_not_a_dense_tensor_are_refused(method, data):
    with pytest.raises(DtypeError, match=r"torch\.as_tensor|to_dense"):
        getattr(dense_flow(), method)(data)


@pytest.mark.parametrize("context", NOT_DENSE_TENSORS[:2] + NOT_DENSE_TENSORS[3:], ids=lambda data: type(data).__name__)
def test_a_context_that_is_not_a_dense_tensor_is_refused(context):
    flow = Flow(ContextScale(), StandardNormal((3,)))
    for call in (lambda: flow.log_prob(torch.zeros(2, 3), context), lambda: flow.sample(2, context)):
        with pytest.raises(DtypeError, match=r"torch\.as_tensor|to_dense"):
            call()


def test_each_thread_decodes_by_the_method_it_asks_for():
    flow = Flow(Chain([SelfNormalizingDense(3), LeakyReLU(), SelfNormalizingDense(3)]), StandardNormal((3,))).eval()
    with torch.no_grad():
        for layer in (flow.bijection[0], flow.bijection[2]):
            layer.weight.add_(0.1 * torch.randn(3, 3))
    z = torch.randn(5, 3)
    wanted = {method: flow.decode(z, inverse=method) for method in ("exact", "learned")}
    assert not torch.allclose(wanted["exact"], wanted["learned"], atol=1e-3)

    def wrong(number):
        methods = ["exact", "learned"] if number % 2 else ["learned", "exact"]
        return sum(not torch.equal(flow.decode(z, inverse=m), wanted[m]) for _ in range(20) for m in methods)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(wrong, range(8))) == 0
    assert torch.equal(flow.decode(z), wanted["exact"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["dense", "conv", "glow", "residual"])
def test_finite_data_of_any_size_have_no_nan_density(name, dtype):
    options = {"scales": 1, "layers": 1, "width": 4} if name == "glow" else {}
    shape = (1, 4, 4) if name in ("conv", "glow") else (4,)
    flow = getattr(flows, name)(shape, **options).to(dtype)
    flow.log_prob(torch.randn(8, *shape, dtype=dtype))
    x = torch.finfo(dtype).max * torch.randn(20, *shape, dtype=dtype).sign()
    assert not flow.eval().log_prob(x).isnan().any()


def test_nan_of_the_weights_is_not_hidden():
    base = DiagonalNormal(2)
    with torch.no_grad():
        base.mean.fill_(math.nan)
    flow = Flow(Chain([]), base).eval()
    assert flow.log_prob(torch.ones(1, 2)).isnan().all()
