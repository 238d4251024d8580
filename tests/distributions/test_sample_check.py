"""The error of a round trip, and warnings about samples that are not mapped back."""

import copy
import pickle
import warnings

import pytest
import torch

import snflow
from context_layer import ContextScale
from snflow import Affine, Bijection, Chain, Dense, Flow, Logit, StandardNormal
from snflow.errors import ConvergenceError, NumericalWarning

OFF = r"Flow\.sample: samples map to latents that differ from those they were drawn with, by .*; call flow\.double\(\)"


def cancelling():
    """A flow on data around 10⁶: in float32, a sample has an error of 0.03 standard deviations."""
    return Flow(Affine(torch.full((3,), 1e6), torch.ones(3)), StandardNormal(3)).float().eval()


class Shift(Bijection):
    """z = x + a, which counts how often it maps data to latents, and does so with an error."""

    event_shape = (3,)

    def __init__(self, error=0.0):
        super().__init__()
        self.a, self.error, self.passes = torch.nn.Parameter(torch.ones(3)), error, 0

    def _forward(self, x, context):
        self.passes += 1
        if self.error is None:
            raise ConvergenceError("Shift", expected="a root", got="none")
        return x + self.a + self.error, x.new_zeros(len(x))

    def _inverse(self, z, context):
        return z - self.a, z.new_zeros(len(z))


def test_the_error_of_a_round_trip_is_relative_to_large_values():
    flow = Flow(Shift(0.5), StandardNormal(3))
    x = torch.tensor([[0.0, 0.1, -0.9], [10.0, 20.0, -50.0], [torch.inf, 0.0, 0.0], [torch.nan, 0.0, 0.0]])
    for of in (flow, flow.bijection):
        assert of.roundtrip_error(x).tolist() == pytest.approx([0.5, 0.05, torch.inf, torch.inf])
        assert not of.roundtrip_error(x).requires_grad
        assert of.roundtrip_error(x[:0]).shape == (0,)


def test_a_round_trip_takes_a_context_an_inversion_method_and_integers():
    context = torch.randn(5, 2)
    assert Flow(ContextScale(), StandardNormal(3)).roundtrip_error(torch.randn(5, 3), context).max() < 1e-12
    learned = Flow(snflow.SelfNormalizingDense(3), StandardNormal(3)).eval()
    with torch.no_grad():
        learned.bijection.weight.add_(0.1 * torch.randn(3, 3))
    x = torch.randn(5, 3)
    wanted = (learned.decode(learned.encode(x), inverse="learned") - x).abs() / x.abs().clamp_min(1)
    torch.testing.assert_close(learned.roundtrip_error(x, inverse="learned"), wanted.amax(1))
    assert learned.roundtrip_error(x).max() < 1e-12
    integers = snflow.dequantized(snflow.flows.maf(3, width=8), 17).eval()
    assert integers.roundtrip_error(torch.randint(17, (5, 3))).max() < 1e-6


def test_samples_with_a_large_error_give_a_warning_that_says_so():
    flow = cancelling()
    with pytest.warns(NumericalWarning, match=OFF) as caught:
        x = flow.sample(20)
    assert caught[0].filename == __file__
    assert flow.roundtrip_error(x).max() < 1e-6  # of the data, which are around 10⁶
    assert flow.double().sample(20).shape == (20, 3)
    with pytest.warns(NumericalWarning, match="lower the temperature"):
        Flow(Shift(0.5), StandardNormal(3)).eval().sample(2)


def test_samples_that_are_not_finite_give_a_warning_every_time():
    flow = Flow(Affine(0.0, 1e38), StandardNormal(3)).float()
    for mode in (flow.train(), flow.eval(), flow):
        with pytest.warns(NumericalWarning, match=r"Affine: some finite latents .* flow\.double"):
            mode.sample(50, temperature=10.0)


def test_samples_that_cannot_be_mapped_back_give_a_warning():
    with pytest.warns(NumericalWarning, match="samples cannot be mapped back to latents: Shift: expected a root"):
        Flow(Shift(None), StandardNormal(3)).eval().sample(2)


def test_samples_are_compared_once_for_each_value_of_the_weights():
    layer = Shift()
    flow = Flow(layer, StandardNormal(3)).eval()

    def passes(samples, **options):
        before = layer.passes
        flow.sample(samples, **options)
        return layer.passes - before

    assert [passes(5), passes(5), passes(5), passes(0), passes(9)] == [1, 1, 0, 0, 0]
    layer.a.data.mul_(2.0)  # a fused optimizer doesn't increment the version counter either
    assert [passes(9), passes(9)] == [1, 0]
    with torch.no_grad():
        layer.a.mul_(2.0)
    assert [passes(9), passes(9)] == [1, 0]
    flow.load_state_dict(flow.state_dict())
    assert [passes(9), passes(9)] == [1, 0]
    layer.a.data.mul_(2.0)
    flow.train()
    assert passes(9) == 0
    flow.eval()
    assert passes(9, inverse="learned") == 0
    assert passes(9) == 1
    for twin in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        twin.sample(9)
        assert twin.bijection.passes == layer.passes + 1


@pytest.mark.parametrize(
    "flow",
    [
        lambda: Flow(Chain([Logit(0.2), Dense(4)]), StandardNormal(4)),
        lambda: snflow.flows.circular_spline(4, width=8),
        lambda: snflow.dequantized(snflow.flows.maf(3, width=8), 2, logit_alpha=0.2),
        lambda: Flow(ContextScale(), StandardNormal(3)),
        lambda: Flow(Chain([]), StandardNormal((2, 2))),
        lambda: snflow.flows.maf(3, width=8),
    ],
    ids=["clamped by a logit", "angles", "integers", "context", "no layer", "maf"],
)
def test_no_false_alarm(flow):
    built = flow().float().eval()
    shape = built.bijection.context_shape
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built.sample(100, None if shape is None else torch.randn(3, *shape, dtype=torch.float32))


def test_bounded_data_that_are_not_mapped_back_give_a_warning():
    flow = Flow(Chain([Shift(0.1), Shift(), Logit()]), StandardNormal(3)).eval()
    with pytest.warns(NumericalWarning, match="samples do not map back, by 0.0"):
        flow.sample(9)


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "low", "high"), [(torch.float32, 0.9, 1.0), (torch.float64, 0.0, 0.2)])
def test_the_round_trip_error_finds_the_rows_that_couplings_magnify(dtype, low, high):
    torch.manual_seed(0)
    flow = snflow.flows.flowpp(
        (2, 4, 4), first_layers=1, channel_layers=1, last_layers=1, width=8, depth=1, components=2
    ).to(dtype)
    x = torch.distributions.StudentT(torch.tensor(2.0)).sample((100, 2, 4, 4)).to(dtype)
    flow.log_prob(x)
    for parameter in flow.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    off = flow.eval().roundtrip_error(x) > 1e-2
    assert low <= off.double().mean() <= high
