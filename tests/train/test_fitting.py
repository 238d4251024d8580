"""snflow.fit: data of any kind in, a trained flow and a report out."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import snflow
from snflow.bijections.elementwise import Affine
from snflow.errors import ArgumentError, ConfigError, DataError, DivergenceError


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    x[:, 1] += x[:, 0] ** 2
    return x * [5, 100] + [1000, 3]


def small(**options):
    return snflow.flows.realnvp(2, layers=2, width=8, **options)


def quick(flow, *data, **options):
    return snflow.fit(flow, *data, progress=False, **{"epochs": 2, "batch_size": 50, **options})


def test_the_flow_takes_data_as_they_are(x):
    flow = small()
    report = quick(flow, x, epochs=5)
    assert report.flow is flow
    assert not flow.training
    assert isinstance(flow.bijection[0], Affine)
    assert [row["epoch"] for row in report.history] == [0, 1, 2, 3, 4, 5]
    assert report.validation_nll == min(row["validation_nll"] for row in report.history)
    assert report.history[-1]["validation_nll"] < report.history[0]["validation_nll"]
    assert flow.sample(500).double().mean(0)[0] == pytest.approx(1000, abs=2)
    assert f"{report.validation_nll:.4g}" in str(report)
    assert report.plot().axes


def test_a_second_fit_continues_with_the_same_preprocessing(x):
    flow = small()
    first = quick(flow, x)
    second = quick(flow, x)
    assert sum(isinstance(layer, Affine) for layer in flow.bijection) == 1
    assert second.history[0]["validation_nll"] == pytest.approx(first.validation_nll, rel=1e-6)


def test_equal_seeds_give_equal_flows_and_leave_the_generators_alone(x):
    state = torch.get_rng_state()
    flows = []
    for _ in range(2):
        torch.manual_seed(1)
        flows.append(small())
        quick(flows[-1], x, seed=3)
    for one, other in zip(flows[0].state_dict().values(), flows[1].state_dict().values(), strict=True):
        assert torch.equal(one, other)
    torch.set_rng_state(state)
    quick(flows[0], x)
    assert torch.equal(torch.get_rng_state(), state)


def test_arrays_tensors_and_frames_are_the_same_data(x):
    class Frame:  # what pandas and polars have in common
        columns, dtypes = ("a", "b"), ("float64", "Float64")

        def to_numpy(self):
            return x

    reports = []
    for data in (x, torch.tensor(x), Frame()):
        torch.manual_seed(0)
        reports.append(quick(small(), data))
    assert len({report.validation_nll for report in reports}) == 1


def test_the_best_weights_come_back(x):
    flow = small()
    held = x[:100]
    report = quick(flow, x[100:], validation=held, epochs=6, learning_rate=0.3, schedule="constant", patience=None)
    assert report.best_epoch < 6
    nll = -flow.log_prob(torch.tensor(held, dtype=flow.base.dtype)).mean().item()
    assert nll == pytest.approx(report.validation_nll, rel=1e-6)
    assert nll < report.history[-1]["validation_nll"]


def test_training_stops_early(x):
    report = quick(small(), x[:40], validation=x[40:], epochs=200, batch_size=10, learning_rate=0.05, patience=3)
    assert report.stopped_early
    assert report.epochs == report.best_epoch + 3


def test_overfitting_is_said_in_words(x):
    flow = snflow.flows.realnvp(2, layers=4, width=64)
    report = quick(flow, x[:20], validation=x[20:], epochs=60, batch_size=20, learning_rate=0.02, patience=None)
    assert "overfitting" in str(report)


def test_a_conditional_density_finds_its_context():
    rng = np.random.default_rng(0)
    context = 50 + 20 * rng.normal(size=(600, 3))
    y = context[:, 0] + rng.normal(size=600)
    flow = snflow.flows.maf(1, context_shape=3, layers=1, width=16)
    report = quick(flow, y, context, epochs=30, learning_rate=0.02)
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    assert report.validation_nll < entropy + 0.3
    assert flow.sample(7, torch.zeros(2, 3)).shape == (7, 2, 1)
    again = quick(flow, y, context, validation=(y[:50], context[:50]), epochs=1)
    assert again.history[0]["validation_nll"] < entropy + 0.4


def test_an_embedding_network_is_trained_with_the_flow(x):
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    before = net[1].weight.clone()
    flow = small(context_shape=3)
    quick(flow, x, np.random.default_rng(0).normal(size=(300, 4, 4)), embedding_net=net)
    assert not torch.equal(net[1].weight, before)
    assert flow.log_prob(torch.zeros(5, 2), torch.zeros(5, 4, 4)).shape == (5,)


def test_integers_are_dequantized():
    images = np.random.default_rng(0).integers(0, 17, size=(60, 1, 4, 4))
    flow = snflow.flows.dense((1, 4, 4))
    quick(flow, images, num_values=17, batch_size=20)
    assert flow.sample(2).dtype == torch.uint8
    with pytest.raises(DataError, match="integers, since num_values is given, got fractions"):
        quick(snflow.flows.dense((1, 4, 4)), images + 0.5, num_values=17)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step", "plateau"])
def test_schedules(x, schedule):
    report = quick(small(), x, epochs=4, schedule=schedule, decay_epochs=1, learning_rate=0.3)
    rates = [row["learning_rate"] for row in report.history[1:]]
    nlls = [row["validation_nll"] for row in report.history]
    worse = [nll > min(nlls[: epoch + 1]) for epoch, nll in enumerate(nlls)]
    decays = {"constant": [0] * 4, "step": [0, 1, 2, 3], "plateau": [sum(worse[: epoch + 1]) for epoch in range(4)]}
    if schedule == "cosine":
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] == pytest.approx(0.0, abs=1e-9)
    else:
        assert rates == pytest.approx([0.3 * 0.5**number for number in decays[schedule]])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", lambda parameters: torch.optim.SGD(parameters, momentum=0.9)])
def test_optimizers(x, optimizer):
    report = quick(small(), x, optimizer=optimizer, weight_decay=0.01)
    assert math.isfinite(report.validation_nll)


def test_float64_flows_are_trained_in_float64(x):
    flow = small().double()
    quick(flow, x)
    assert flow.log_prob(torch.tensor(x)).dtype == torch.float64


def test_fitted_flows_are_saved_and_loaded(x, tmp_path):
    flow = small()
    quick(flow, x)
    snflow.save(flow, tmp_path / "flow.safetensors")
    data = torch.tensor(x, dtype=flow.base.dtype)
    assert torch.equal(snflow.load(tmp_path / "flow.safetensors").log_prob(data), flow.log_prob(data))


def test_divergence_leaves_the_last_good_weights(x):
    flow = small()
    with pytest.raises(DivergenceError, match="the flow has its last good weights"):
        quick(flow, x, learning_rate=1e30, schedule="constant", epochs=30)
    assert all(parameter.isfinite().all() for parameter in flow.parameters())


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda x: quick(small().bijection, x), ConfigError, "fit: expected flow to be a Flow, got Chain"),
        (lambda x: quick(small(), x, epoch=3), ArgumentError, "did you mean 'epochs'"),
        (lambda x: quick(small(), x, schedule="cosin"), ConfigError, "did you mean 'cosine'"),
        (lambda x: quick(small(), x, validation=1.5), ConfigError, "validation between 0 and 1"),
        (lambda x: quick(small(), x, np.zeros(3)), DataError, "expected 300 contexts, one for each row of x, got 3"),
        (lambda x: quick(small(), x.tolist()), DataError, "a tensor, a NumPy array or a data frame, got list"),
        (lambda x: quick(small(), x[:0]), DataError, "at least one row"),
        (lambda x: quick(small(), np.where(x > 1010, np.nan, x)), DataError, "finite numbers, got nan in row"),
        (lambda x: quick(small(), x.astype(object)), DataError, "an array of numbers, got an array of object"),
    ],
)
def test_errors_name_what_was_expected(x, call, kind, message):
    with pytest.raises(kind, match=message):
        call(x)


class Rows(torch.utils.data.Dataset):
    def __init__(self, *columns):
        self.columns = [torch.as_tensor(column) for column in columns]

    def __len__(self):
        return len(self.columns[0])

    def __getitem__(self, index):
        rows = tuple(column[index] for column in self.columns)
        return rows if len(rows) > 1 else rows[0]


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        while True:
            yield 100 + torch.randn(2, generator=generator)


def test_datasets_of_torch_are_split_and_shuffled(x):
    flow = small()
    report = quick(flow, Rows(x), epochs=5)
    assert report.history[-1]["step"] == 5 * (270 // 50)
    assert report.history[-1]["validation_nll"] < report.history[0]["validation_nll"]
    torch.manual_seed(0)
    first = quick(small(), Rows(x), seed=1)
    torch.manual_seed(0)
    assert quick(small(), Rows(x), seed=1).validation_nll == first.validation_nll


def test_contexts_come_with_the_rows_of_a_stream(x):
    flow = small(context_shape=1)
    report = quick(flow, Rows(x, x[:, :1]))
    assert math.isfinite(report.validation_nll)


@pytest.mark.parametrize("kind", [list, lambda batches: torch.utils.data.DataLoader(torch.cat(batches), 50)])
def test_batches_may_come_from_any_iterable(x, kind):
    batches = kind(list(torch.tensor(x, dtype=torch.float32).split(50)))
    report = quick(small(), batches, validation=x)
    assert report.history[-1]["step"] == 2 * 6


def test_a_stream_without_length_needs_a_number_of_steps(x):
    with pytest.raises(ConfigError, match="pass steps_per_epoch"):
        quick(small(), Endless(), validation=x)
    report = quick(small(), Endless(), validation=100 + np.zeros((9, 2)), steps_per_epoch=7)
    assert report.history[-1]["step"] == 14


def test_streams_are_checked(x):
    rows = torch.tensor(x)
    with pytest.raises(ConfigError, match="validation data, since x is a stream without random access"):
        quick(small(), list(rows.split(50)))
    with pytest.raises(ConfigError, match="which can be read once"):
        quick(small(), iter(rows.split(50)), validation=x)
    with pytest.raises(DataError, match="batch 2 of the stream: expected finite numbers"):
        quick(small(), [rows[:50], rows[50:100] / 0], validation=x)
    with pytest.raises(DataError, match="a pair of rows and contexts, got dict"):
        quick(small(), [rows[:50], {}], validation=x)
