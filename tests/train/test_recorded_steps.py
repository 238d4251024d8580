"""Steps that are recorded or compiled: the same numbers as the plain ones, without a read in between."""

import json

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from run_files import last_checkpoint
from snflow.bijections.base import Bijection
from snflow.distributions.dequantization import Dequantization
from snflow.distributions.flow import Flow
from snflow.errors import ConfigError, DivergenceError
from snflow.selfnorm.followers import Followers
from snflow.selfnorm.layers import SelfNormalizingMap
from snflow.train import recorded_steps as setting_up
from snflow.train.fit import fit
from snflow.train.optimizer import MovingAverage, adam
from snflow.train.options import TrainingOptions
from snflow.train.recipe import load_recipe
from snflow.train.recorded_steps import RecordedSteps
from snflow.train.run_folder import load_flow
from snflow.train.steps import DivergenceCheck, StepRequest

READS = ("aten._local_scalar_dense", "aten.equal", "aten.nonzero", "aten.is_nonzero", "aten.masked_select")
CONSTANTS = ("aten.lift_fresh",)
"""A number that is made on the processor, to be copied to the device in every step."""
DENSE = {"name": "dense", "layers": 2, "tracking": {"class_path": "Penalty", "init_args": {"guard": False}}}

RECORDABLE = (
    *("digits_conv", "digits_conv_exponential", "digits_conv_emerging", "digits_realnvp", "digits_flowpp"),
    *("digits_glow_exact", "digits_glow_snf", "digits_glow_newton", "toy_dense", "toy_pair", "toy_realnvp", "toy_nice"),
    *("toy_maf", "toy_iaf", "toy_naf", "toy_bnaf", "toy_sos", "toy_umnn", "toy_neural_spline"),
    *("toy_planar", "toy_radial", "toy_sylvester", "toy_mintnet"),
)
"""One recipe of each family whose step can be recorded. Residual and continuous flows stop by a number, periodic
convolutions and Gaussianization look at one."""


@pytest.fixture
def recording(monkeypatch):
    """Let the processor take the steps that a graph would record."""
    monkeypatch.setattr(setting_up, "RECORDING", ("cuda", "cpu"))


def weights(run):
    return last_checkpoint(run).model


def nll(run):
    return json.loads((run / "summary.json").read_text())["test_nll_nats"]


def recorded(recipe, **changes):
    return recipe(**{"device__cuda_graph": True, "device__read_every": 4, **changes})


class Unread(TorchDispatchMode):
    """Refuses every operation that would wait for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not str(func).startswith(READS + CONSTANTS), f"the step waits: {func}"
        return func(*args, **(kwargs or {}))


def steps_of(flow, recipe, average=None, **options):
    training = TrainingOptions(**options)
    parameters = list(flow.parameters())
    check = DivergenceCheck(flow, training, recipe.optimizer)
    steps = RecordedSteps(
        flow,
        parameters,
        adam(parameters, recipe.optimizer, torch.device("cpu")),
        options=recipe.optimizer,
        training=training,
        average=average,
        check=check,
        followers=Followers(flow),
        every=4,
        last_good=lambda: "none",
    )
    return steps, check


def asked(number, rate=1e-3, look=False):
    return StepRequest(rate=rate, number=number, stop=lambda: False, due=lambda: False, report=look)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer__clip_norm": 0.5, "training__ema_decay": 0.9},
        {"flow__tracking": {"class_path": "Penalty", "init_args": {"guard": False, "multiplier": "geco"}}},
        {"flow__log_det_rule": "exact"},
        {"training__precision": "64-true", "training__flip": True},
        {"device__compile": "aot_eager"},
    ],
    ids=["plain", "clip-and-average", "geco", "exact", "double-and-flip", "compiled"],
)
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.usefixtures("recording")
def test_recorded_steps_are_the_plain_ones_to_the_bit(recipe, tmp_path, quiet, changes):
    fit(recipe(**changes), tmp_path / "plain", console=quiet)
    fit(recorded(recipe, **changes), tmp_path / "recorded", console=quiet)
    one, other = weights(tmp_path / "plain"), weights(tmp_path / "recorded")
    # In double precision Adam's two kernels, for a rate that is a number or a tensor, differ in the last bit.
    near = 1e-13 if changes.get("training__precision") == "64-true" else 0.0
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=near, atol=near)
    columns = [(run / "metrics.csv").read_text().splitlines() for run in (tmp_path / "plain", tmp_path / "recorded")]
    for row, same in zip(*columns, strict=True):
        if not near:
            assert row.split(",")[:6] == same.split(",")[:6]  # epoch, step, rate, objective, likelihoods
    assert nll(tmp_path / "plain") == pytest.approx(nll(tmp_path / "recorded"), rel=near, abs=near)


@pytest.mark.usefixtures("recording")
def test_a_recorded_run_goes_on_plainly_and_back(recipe, tmp_path, quiet):
    fit(recipe(), tmp_path / "whole", console=quiet)
    fit(recorded(recipe, training__epochs=1, schedule__decay="constant"), tmp_path / "short", console=quiet)
    broken = tmp_path / "broken"
    for stop_at, changes in ((7, recorded), (15, None), (None, recorded)):
        chosen = changes(recipe) if changes else recipe()
        if stop_at is None:
            fit(chosen, broken, resume=True, console=quiet)
        else:
            _interrupted(chosen, broken, stop_at, quiet)
    one, other = weights(tmp_path / "whole"), weights(broken)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert {type(group["lr"]) for group in last_checkpoint(broken).state["optimizer"]["param_groups"]} == {float}


def _interrupted(chosen, run, stop_at, quiet):
    from snflow.train import loop

    class Stop(loop.StopRequest):
        @property
        def received(self):
            return 15 if self.steps() >= stop_at else None

        @received.setter
        def received(self, value):
            """Signals of the machine are not listened to."""

    original = loop.TrainingLoop._take

    def take(self, batch, stop, every):
        stop.steps = lambda: self._tally.step + 1
        return original(self, batch, stop, every)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "StopRequest", Stop)
        patch.setattr(loop.TrainingLoop, "_take", take)
        assert fit(chosen, run, resume=run.exists(), console=quiet).signal == 15


@pytest.mark.parametrize("name", RECORDABLE)
def test_a_recorded_step_reads_nothing(name, monkeypatch):
    # Both are done on a processor only.
    monkeypatch.setattr(Dequantization, "_check_range", lambda self, k: None)
    monkeypatch.setattr(Bijection, "_warn_if_lost", lambda self, z, x: None)
    recipe = load_recipe(name)
    dataset = recipe.load_dataset()
    flow = recipe.build_flow(dataset)
    batch = dataset.train[:20]
    flow.eval()
    flow(batch)
    flow.train()
    steps, _ = steps_of(flow, recipe, average=MovingAverage(flow, 0.9))
    for number in range(1, 5):
        steps.take((batch, None), asked(number))
    # A processor records nothing: what is left out of a recording is left out here too.
    monkeypatch.setattr("snflow.numerics.factorization.is_recorded", lambda: True)
    with Unread():
        steps._step()
    with pytest.raises(AssertionError, match="the step waits"), Unread():
        bool(batch.sum() > 0)


@pytest.mark.usefixtures("recording")
def test_recorded_newton_steps_keep_the_inverse(recipe, tmp_path, quiet):
    changes = {"flow": {**DENSE, "tracking": "Newton"}, "optimizer__learning_rate": 3e-3}
    flow = changes.pop("flow")
    named = {f"flow__{key}": value for key, value in flow.items()}
    base = lambda **more: _dense(recipe, **named, **changes, **more)  # noqa: E731
    fit(base(), tmp_path / "plain", console=quiet)
    fit(base(device__cuda_graph=True, device__read_every=4), tmp_path / "recorded", console=quiet)
    assert nll(tmp_path / "recorded") == pytest.approx(nll(tmp_path / "plain"), rel=1e-3)
    trained, _ = load_flow(tmp_path / "recorded")
    for layer in trained.modules():
        if isinstance(layer, SelfNormalizingMap):
            assert layer.inverse_residual((64,)) < 0.05
            assert layer.tracking.updates >= 18


def _dense(recipe, **changes):
    from snflow.train.recipe import Recipe

    content = recipe(**{k: v for k, v in changes.items() if not k.startswith("flow__")}).to_dict()
    content["flow"] = {k.removeprefix("flow__"): v for k, v in changes.items() if k.startswith("flow__")}
    return Recipe.from_dict(content)


def test_tracking_repairs_what_a_newton_step_cannot():
    import snflow

    torch.manual_seed(0)
    layer = snflow.SelfNormalizingDense(6, tracking=snflow.Newton())
    x = torch.randn(5, 6)
    layer.eval()(x)
    layer.train()
    followers = Followers(layer)
    memory = layer.inverse_weight.data_ptr()
    with torch.no_grad():
        layer.weight.mul_(-3)
    lost = layer.inverse_weight.clone()
    followers.track_on_device()
    assert torch.equal(layer.inverse_weight, lost)
    layer(x)
    assert torch.equal(layer.inverse_weight, lost)
    followers.track()
    torch.testing.assert_close(layer.inverse_matrix @ layer.weight, torch.eye(6), rtol=0, atol=1e-5)
    assert layer.inverse_weight.data_ptr() == memory


def test_numbers_that_are_not_finite_end_a_recorded_run_with_the_last_finite_weights(monkeypatch):
    recipe = load_recipe("toy_dense")
    dataset = recipe.load_dataset()
    torch.manual_seed(0)
    flow = recipe.build_flow(dataset)
    poison_at(monkeypatch, {6})
    steps, _ = steps_of(flow, recipe)
    for number in range(1, 6):
        steps.take((dataset.train[:20], None), asked(number))
    before = [p.detach().clone() for p in flow.parameters()]
    for number in (6, 7):
        assert steps.take((dataset.train[:20], None), asked(number)) is None
    with pytest.raises(DivergenceError, match="step 6: expected finite values, got objective nan"):
        steps.take((dataset.train[:20], None), asked(8))
    assert all(torch.equal(p, q) for p, q in zip(before, flow.parameters(), strict=True))


def test_a_recorded_run_skips_and_counts_and_gives_up(monkeypatch):
    recipe = load_recipe("toy_dense")
    dataset = recipe.load_dataset()
    flow = recipe.build_flow(dataset)
    average = MovingAverage(flow, 0.9)
    poison_at(monkeypatch, {2, 3, 6, 9, 10, 11})
    steps, check = steps_of(flow, recipe, average, on_nonfinite="skip", max_skips=2)
    looks = [steps.take((dataset.train[:20], None), asked(number)) for number in range(1, 9)]
    known = [look for look in looks if look is not None]
    assert [(look.steps, look.skipped) for look in known] == [(2, 2), (3, 1)]
    assert average.state_dict()["updates"] == 5
    assert check.in_a_row == 0
    for number in range(9, 12):
        steps.take((dataset.train[:20], None), asked(number))
    with pytest.raises(DivergenceError, match=r"step 11: .*\(3 steps in a row\)"):
        steps.take((dataset.train[:20], None), asked(12))


def poison_at(monkeypatch, at):
    original, seen = Flow.forward, []

    def forward(self, *args, **kwargs):
        value = original(self, *args, **kwargs)
        if self.training:
            seen.append(1)
        return value * float("nan") if self.training and len(seen) in at else value

    monkeypatch.setattr(Flow, "forward", forward)


def test_the_average_takes_in_what_was_taken():
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    one, other = MovingAverage(layer, 0.3), MovingAverage(layer, 0.3)
    for number in range(6):
        with torch.no_grad():
            layer.weight.add_(1)
        taken = number != 2
        other.update_where(torch.tensor(taken))
        if taken:
            one.update()
    for mine, theirs in zip(one.state_dict()["average"], other.state_dict()["average"], strict=True):
        torch.testing.assert_close(mine, theirs)
    assert one.state_dict()["updates"] == other.state_dict()["updates"] == 5


def test_a_processor_records_nothing_and_several_devices_neither(recipe, tmp_path, quiet):
    with pytest.raises(ConfigError, match=r"device\.cuda_graph: expected a device of kind cuda, got cpu"):
        fit(recipe(device__cuda_graph=True), tmp_path / "run", console=quiet)
    with pytest.raises(ConfigError, match=r"cuda_graph"):
        recipe(device__cuda_graph=True, device__devices=2)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("tracking", ["Penalty", "Newton"])
def test_a_compiled_run_learns_the_same(recipe, tmp_path, quiet, tracking):
    changes = {"flow__name": "dense", "flow__layers": 2, "training__epochs": 2}
    options = {"tolerance": 0.01} if tracking == "Newton" else {}
    changes["flow__tracking"] = {"class_path": tracking, "init_args": options}
    fit(_dense(recipe, **changes), tmp_path / "plain", console=quiet)
    fit(_dense(recipe, **changes, device__compile="aot_eager"), tmp_path / "compiled", console=quiet)
    # The probes of a tracked layer are drawn before the noise of the batch instead of behind it: other noise.
    near = 1e-5 if tracking == "Penalty" else 2e-3
    assert nll(tmp_path / "compiled") == pytest.approx(nll(tmp_path / "plain"), rel=near)
    if tracking == "Newton":
        flow, _ = load_flow(tmp_path / "compiled")
        steps = [layer.tracking.updates for layer in flow.modules() if isinstance(layer, SelfNormalizingMap)]
        assert all(count > 0 for count in steps)


def test_only_training_steps_take_matrix_products_of_lower_precision(recipe, tmp_path, quiet, monkeypatch):
    original, seen = Flow.forward, set()

    def forward(self, *args, **kwargs):
        seen.add((self.training, torch.get_float32_matmul_precision()))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Flow, "forward", forward)
    fit(recipe(device__matmul="high"), tmp_path / "run", console=quiet)
    assert seen == {(True, "high"), (False, "highest")}
    assert torch.get_float32_matmul_precision() == "highest"


def test_generated_code_without_a_compiler_is_refused_in_one_line(recipe, tmp_path, quiet, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"device\.compile: expected the C\+\+ compiler no-such-compiler .*CXX"):
        fit(recipe(device__compile="inductor"), tmp_path / "run", console=quiet)


def test_the_options_are_no_part_of_what_a_recipe_is(recipe):
    assert recipe().digest() == recipe(device__compile="inductor", device__matmul="high").digest()


def test_a_resumed_recorded_run_counts_on(monkeypatch):
    recipe = load_recipe("toy_dense")
    dataset = recipe.load_dataset()
    poison_at(monkeypatch, {1, 2})
    steps, check = steps_of(recipe.build_flow(dataset), recipe, on_nonfinite="skip", max_skips=2)
    check.in_a_row = 1  # the step before the kill was left out, too
    for number in range(101, 104):
        steps.take((dataset.train[:20], None), asked(number))
    with pytest.raises(DivergenceError, match=r"step 102: .*\(3 steps in a row\)"):
        steps.take((dataset.train[:20], None), asked(104))


def test_the_guard_checks_when_its_time_has_passed_between_two_calls():
    import snflow

    torch.manual_seed(0)
    layer = snflow.SelfNormalizingDense(4, tracking=snflow.Penalty(guard_every=5))
    layer.eval()(torch.randn(2, 4))
    followers = Followers(layer)
    with torch.no_grad():
        layer.inverse_weight.zero_()
    followers.track(4)
    assert int(layer.tracking.updates) == 0
    followers.track(7)
    assert int(layer.tracking.updates) == 1
