"""The loop: what a run writes, that it resumes to the bit, and what stops it."""

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from run_files import last_checkpoint, metrics, same_run
from snflow.bijections.chain import Chain
from snflow.distributions.base import StandardNormal
from snflow.distributions.flow import Flow
from snflow.errors import CheckpointError, ConfigError, DivergenceError
from snflow.train.checkpoints import CheckpointStore
from snflow.train.evaluation import exact_nll
from snflow.train.fit import fit
from snflow.train.loop import StopRequest, Tally
from snflow.train.recipe import Recipe
from snflow.train.run_folder import load_flow


def rows(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_what_it_promises(finished):
    assert {p.name for p in finished.iterdir()} == {
        "config.yaml",
        "metrics.csv",
        "layers.csv",
        "checkpoints",
        "samples.png",
        "curves.png",
        "summary.json",
        ".lock",
    }
    for picture in ("samples.png", "curves.png"):
        assert (finished / picture).read_bytes().startswith(b"\x89PNG")
    written = rows(finished)
    assert [row["epoch"] for row in written] == ["0", "1", "2", "3"]
    assert [row["step"] for row in written] == ["0", "6", "12", "18"]
    assert written[0]["objective"] == ""
    for row in written[1:]:
        assert row.pop("validation_nll_error") == ""
        filled = {k: float(v) for k, v in row.items()}
        assert all(map(math.isfinite, filled.values()))
        assert filled["validation_bits_per_dim"] == pytest.approx(filled["validation_nll"] / (64 * math.log(2)))
        assert filled["inverse_residual"] > 0
    assert float(written[3]["validation_nll"]) < float(written[0]["validation_nll"]) - 5


def test_the_summary_has_the_exact_test_likelihood_of_the_best_checkpoint(finished):
    summary = json.loads((finished / "summary.json").read_text())
    flow, recipe = load_flow(finished)
    dataset = recipe.load_dataset()
    nll = exact_nll(flow, dataset.test, 7, recipe.training.seed)
    assert summary["test_nll_nats"] == pytest.approx(nll, rel=1e-6)
    assert summary["test_bits_per_dim"] == pytest.approx(nll / 64 / math.log(2), rel=1e-6)
    assert summary["recipe_sha256"] == recipe.digest()
    assert (summary["threads"], summary["seed"], summary["epochs"], summary["steps"]) == (1, 0, 3, 18)
    assert summary["versions"]["torch"] == torch.__version__


def test_the_same_seed_gives_the_same_run_and_checkpoints_change_nothing(finished, recipe, tmp_path, quiet):
    other = tmp_path / "other"
    before = torch.get_rng_state()
    fit(recipe(training__checkpoint_every_steps=4), other, console=quiet)
    assert torch.equal(before, torch.get_rng_state())
    assert metrics(finished) == metrics(other)
    assert all(torch.equal(a, last_checkpoint(other).model[k]) for k, a in last_checkpoint(finished).model.items())
    third = tmp_path / "third"
    fit(recipe(training__seed=1), third, console=quiet)
    assert metrics(finished) != metrics(third)


def test_a_signal_stops_after_the_step_and_the_rest_is_bit_identical(recipe, tmp_path, quiet, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    chosen = recipe(training__ema_decay=0.9, training__precision="64-true", training__patience=5)
    fit(chosen, whole, console=quiet)
    original, steps = nn.utils.get_total_norm, []

    for kill_at, number in ((8, signal.SIGTERM), (4, signal.SIGINT)):
        # The second one is the last step of an epoch: its validation comes after the resume.
        steps.clear()

        def counted(grads, kill_at=kill_at, number=number):
            steps.append(1)
            if len(steps) == kill_at:
                signal.raise_signal(number)
            return original(grads)

        monkeypatch.setattr(torch.nn.utils, "get_total_norm", counted)
        result = fit(chosen, broken, resume=broken.exists(), console=quiet)
        assert (result.signal, result.summary) == (number, None)
    assert last_checkpoint(broken).step == 12
    assert last_checkpoint(broken).notes["batch"] == 6
    monkeypatch.undo()
    assert fit(chosen, broken, resume=True, console=quiet).signal is None
    same_run(whole, broken)


def test_kill_9_in_the_middle_of_an_epoch_then_resume_is_bit_identical(recipe, tmp_path, quiet):
    chosen = recipe(
        data__train=1197,
        training__batch_size=10,
        training__epochs=2,
        training__checkpoint_every_steps=7,
        flow__log_det_rule="self_normalized",
    )
    config, whole, broken = tmp_path / "recipe.yaml", tmp_path / "whole", tmp_path / "broken"
    config.write_text(chosen.to_yaml())
    fit(chosen, whole, console=quiet)
    command = [sys.executable, "-m", "snflow", "fit", str(config), "--out", str(broken)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    store, deadline = CheckpointStore(broken / "checkpoints"), time.monotonic() + 60
    while max(store.steps(), default=0) < 21 and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (broken / "summary.json").exists()
    assert last_checkpoint(broken).notes["batch"] > 0
    fit(chosen, broken, resume=True, console=quiet)
    same_run(whole, broken)


def test_a_run_of_the_same_recipe_goes_on_and_a_finished_one_is_not_trained_again(copied, recipe, quiet):
    chosen = recipe(training__checkpoint_every_epochs=1)
    written = (copied / "metrics.csv").read_bytes()
    assert fit(chosen, copied, console=quiet).summary == json.loads((copied / "summary.json").read_text())
    (copied / "summary.json").unlink()
    fit(chosen, copied, console=quiet)
    assert (copied / "metrics.csv").read_bytes() == written
    assert (copied / "summary.json").exists()


def test_another_recipe_or_a_foreign_folder_is_refused(copied, recipe, tmp_path, quiet):
    with pytest.raises(ConfigError, match=r"a run with another config; continue that run with `snflow fit --resume"):
        fit(recipe(training__seed=5), copied, console=quiet)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="other files"):
        fit(recipe(), tmp_path / "foreign", console=quiet)
    with pytest.raises(ConfigError, match=r"flow|kernel"):
        fit(recipe(flow__kernel_size=4), tmp_path / "new", console=quiet)
    assert not (tmp_path / "new").exists()


def test_more_epochs_go_on_from_the_last_and_double_no_row(copied, recipe, quiet):
    fit(recipe(training__checkpoint_every_epochs=1, training__epochs=4), copied, resume=True, console=quiet)
    assert [row["epoch"] for row in rows(copied)] == ["0", "1", "2", "3", "4"]


def test_a_damaged_last_checkpoint_costs_an_epoch_not_the_run(copied, finished, recipe, capsys):
    store = CheckpointStore(copied / "checkpoints")
    state = store.path(store.steps()[-1]) / "state.pt"
    state.write_bytes(state.read_bytes()[:-1])
    (copied / "summary.json").unlink()
    fit(recipe(training__checkpoint_every_epochs=1), copied, resume=True)
    assert "damaged: use another; continuing from" in capsys.readouterr().out
    shutil.rmtree(store.folder / f"damaged-{state.parent.name}")
    same_run(finished, copied)


@pytest.mark.parametrize("change", [{"flow__layers": 1}, {"training__seed": 1}, {"data__train": 119}])
def test_a_run_does_not_go_on_from_the_checkpoints_of_another(copied, recipe, quiet, change):
    config = (copied / "config.yaml").read_text()
    with pytest.raises(CheckpointError, match="expected a checkpoint of this run, got one of a run with another rec"):
        fit(recipe(**change), copied, resume=True, console=quiet)
    assert (copied / "config.yaml").read_text() == config


def test_an_edited_config_is_refused_by_every_reader_of_the_run(copied, recipe, quiet):
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(CheckpointError, match="got one of a run with another recipe or seed; restore"):
        load_flow(copied)
    with pytest.raises(CheckpointError, match="got one of a run with another recipe or seed; restore"):
        fit(recipe(training__checkpoint_every_epochs=1, training__seed=1), copied, resume=True, console=quiet)


def test_a_folder_in_use_is_refused_by_the_name_of_its_process_and_free_once_that_is_killed(copied, recipe, quiet):
    hold = "import sys, time; from snflow.train.run_folder import RunFolder as R\n"
    hold += "with R(sys.argv[1]).locked(): print(flush=True); time.sleep(60)"
    (copied / "summary.json").unlink()
    with subprocess.Popen([sys.executable, "-c", hold, str(copied)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline()
        leftover = copied / "checkpoints" / ".tmp-step-00000024-1"
        leftover.mkdir()
        chosen = recipe(training__checkpoint_every_epochs=1)
        with pytest.raises(ConfigError, match=rf"got one in use by process {holder.pid} on "):
            fit(chosen, copied, console=quiet)
        assert leftover.exists()
        assert load_flow(copied)[1] == chosen
        holder.kill()
    assert fit(chosen, copied, console=quiet).summary is not None
    assert not leftover.exists()


def test_a_new_folder_is_locked_for_the_whole_run(recipe, tmp_path, quiet, monkeypatch):
    from snflow.train import loop
    from snflow.train.run_folder import RunFolder

    def validated(*rest):
        with (
            pytest.raises(ConfigError, match=rf"in use by process {os.getpid()}"),
            RunFolder(tmp_path / "run").locked(),
        ):
            pass
        validations.append(1)
        return original(*rest)

    original, validations = loop.estimated_nll, []
    monkeypatch.setattr(loop, "estimated_nll", validated)
    fit(recipe(training__epochs=1), tmp_path / "run", console=quiet)
    assert len(validations) == 2
    with RunFolder(tmp_path / "run").locked():
        """It is free again."""


class Poison(torch.autograd.Function):
    """Ones forward, and a gradient that is not finite."""

    @staticmethod
    def forward(ctx, x):
        return torch.ones_like(x)

    @staticmethod
    def backward(ctx, grad):
        return grad * float("nan")


def poisoned(monkeypatch, at, poison):
    """Call `poison` on the log-densities of some training steps."""
    original, calls = Flow.log_prob, []

    def log_prob(self, x, *rest, **options):
        value = original(self, x, *rest, **options)
        if self.training:
            calls.append(1)
            if len(calls) in at:
                return poison(value)
        return value

    monkeypatch.setattr(Flow, "log_prob", log_prob)


def test_a_nan_objective_stops_names_a_layer_and_keeps_the_checkpoint(recipe, tmp_path, quiet, monkeypatch):
    poisoned(monkeypatch, {9}, lambda v: v * float("nan"))
    with pytest.raises(DivergenceError, match=r"step 9: expected finite values, got objective nan") as caught:
        fit(recipe(), tmp_path / "run", console=quiet)
    assert caught.value.exit_code == 3
    assert "bijection." in str(caught.value)
    assert "lower optimizer.learning_rate" in str(caught.value)
    assert str(tmp_path / "run" / "checkpoints" / "step-00000006") in str(caught.value)
    assert all(t.isfinite().all() for t in last_checkpoint(tmp_path / "run").model.values() if t.is_floating_point())


def test_a_bad_gradient_names_the_parameter(recipe, tmp_path, quiet, monkeypatch):
    poisoned(monkeypatch, {2}, lambda v: v + Poison.apply(v))
    with pytest.raises(DivergenceError, match=r"got gradient norm nan, at the gradient of bijection\.\S+weight"):
        fit(recipe(), tmp_path / "run", console=quiet)


def test_a_bad_step_is_skipped_and_counted(recipe, tmp_path, quiet, monkeypatch):
    poisoned(monkeypatch, {2, 3, 8}, lambda v: v + Poison.apply(v))
    fit(recipe(training__on_nonfinite="skip", training__max_skips=2), tmp_path / "run", console=quiet)
    assert [row["skipped"] for row in rows(tmp_path / "run")] == ["0", "2", "1", "0"]
    assert all(t.isfinite().all() for t in last_checkpoint(tmp_path / "run").model.values() if t.is_floating_point())


def test_too_many_skips_in_a_row_stop(recipe, tmp_path, quiet, monkeypatch):
    poisoned(monkeypatch, {2, 3, 4}, lambda v: v * float("inf"))
    with pytest.raises(DivergenceError, match=r"step 4: .* \(3 steps in a row\)"):
        fit(recipe(training__on_nonfinite="skip", training__max_skips=2), tmp_path / "run", console=quiet)


def test_skips_in_a_row_are_counted_across_a_resume(recipe, tmp_path, quiet, monkeypatch):
    def spoil(value):
        spoiled.append(1)
        if len(spoiled) == 2:
            signal.raise_signal(signal.SIGTERM)
        return value * float("nan")

    spoiled = []
    chosen = recipe(training__on_nonfinite="skip", training__max_skips=2)
    poisoned(monkeypatch, {2, 3, 4}, spoil)
    assert fit(chosen, tmp_path / "run", console=quiet).signal == signal.SIGTERM
    with pytest.raises(DivergenceError, match=r"step 4: .* \(3 steps in a row\)"):
        fit(chosen, tmp_path / "run", resume=True, console=quiet)


def test_an_absurd_learning_rate_ends_with_our_error_or_finite(recipe, tmp_path, quiet):
    chosen = recipe(optimizer__learning_rate=1e6, schedule__warmup_epochs=0)
    with pytest.raises(DivergenceError, match=r"lower optimizer\.learning_rate"):
        fit(chosen, tmp_path / "run", console=quiet)
    assert last_checkpoint(tmp_path / "run").step == 0


@pytest.mark.parametrize("options", [{"optimizer__eps": 1e-300}, {"optimizer__learning_rate": 3e38}])
def test_weights_that_are_not_finite_are_never_saved(recipe, tmp_path, quiet, options):
    content = recipe(training__checkpoint_every_steps=1, training__epochs=2, **options).to_dict()
    content |= {
        "data": {"name": "toy", "train": 40, "validation": 10, "test": 10},
        "flow": {"name": "maf", "layers": 1},
    }
    content["schedule"]["warmup_epochs"] = 0
    run = tmp_path / "run"
    with pytest.raises(DivergenceError, match=r"step 1: .* got a non-finite bijection\.\S+; .*/step-00000000$"):
        fit(Recipe.from_dict(content), run, console=quiet)
    assert CheckpointStore(run / "checkpoints").steps() == [0]
    assert all(t.isfinite().all() for t in last_checkpoint(run).model.values())


def test_a_singular_weight_stops_training_and_names_its_layer(recipe, tmp_path, quiet, monkeypatch):
    content = recipe(training__epochs=2).to_dict()
    content |= {"data": {"name": "toy", "train": 40, "validation": 10, "test": 10}}
    content["flow"] = {"name": "dense", "log_det_rule": "exact", "layers": 1}
    original, calls = Flow.log_prob, []

    def log_prob(self, x, *rest, **options):
        calls.append(self.training)
        if sum(calls) == 3:
            with torch.no_grad():
                next(p for p in self.parameters() if p.ndim == 2).zero_()
        return original(self, x, *rest, **options)

    monkeypatch.setattr(Flow, "log_prob", log_prob)
    with pytest.raises(DivergenceError, match=r"Dense.*the last good checkpoint is .*/step-00000002"):
        fit(Recipe.from_dict(content), tmp_path / "run", console=quiet)
    assert all(t.isfinite().all() for t in last_checkpoint(tmp_path / "run").model.values())


def test_a_lost_inverse_under_a_rising_likelihood_stops_and_names_the_layer(recipe, tmp_path, quiet, monkeypatch):
    from snflow.train import loop

    def lost(flow, *rest):
        """Validation by validation the NLL rises by a nat a dimension; after the third one inverse is lost."""
        value = next(values)
        if value > 200:
            with torch.no_grad():
                flow.bijection.get_submodule("layers.4").inverse_weight.mul_(30)
        return value, None

    values = iter([100.0, 164.0, 228.0, 292.0])
    monkeypatch.setattr(loop, "estimated_nll", lost)
    with pytest.raises(DivergenceError, match=r"epoch 2: .*got 2 nats per dim.*at bijection\.layers\.4: ") as caught:
        fit(
            recipe(flow__tracking={"class_path": "Penalty", "init_args": {"guard": False}}),
            tmp_path / "run",
            console=quiet,
        )
    assert "enable the guard of flow.tracking" in str(caught.value)
    assert [row["epoch"] for row in rows(tmp_path / "run")] == ["0", "1", "2"]
    assert last_checkpoint(tmp_path / "run").step == 0


def test_the_best_weights_are_those_reported(recipe, tmp_path, quiet, monkeypatch):
    """Validation gets worse from epoch 1 on: the reported likelihood is that of epoch 1, and patience ends the run."""
    from snflow.train import loop

    values = iter([9.0, 3.0, 4.0, 5.0, 6.0])
    monkeypatch.setattr(loop, "estimated_nll", lambda *rest: (next(values), None))
    chosen = recipe(training__epochs=9, training__patience=2)
    summary = fit(chosen, tmp_path / "run", console=quiet).summary
    assert (summary["best_step"], summary["epochs"], summary["stopped_early"]) == (6, 3, True)
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    assert store.steps() == [6, 18]
    flow, _ = load_flow(tmp_path / "run")
    nll = exact_nll(flow, chosen.load_dataset().test, 500, 0)
    assert summary["test_nll_nats"] == pytest.approx(nll, rel=1e-9)


def test_validation_now_and_then_always_has_the_last(recipe, tmp_path, quiet):
    fit(recipe(training__validate_every=2), tmp_path / "run", console=quiet)
    assert [row["validation_nll"] != "" for row in rows(tmp_path / "run")] == [True, False, True, True]


def test_gradient_clipping_changes_the_run(recipe, finished, tmp_path, quiet):
    fit(recipe(optimizer__clip_norm=1e-3, optimizer__eps=1.0), tmp_path / "run", console=quiet)
    first, last = rows(tmp_path / "run")[0], rows(tmp_path / "run")[-1]
    assert float(first["validation_nll"]) == pytest.approx(float(last["validation_nll"]), rel=1e-4)
    assert float(last["gradient_norm"]) > 1


def test_averaged_weights_are_validated_and_come_out_of_the_run(recipe, tmp_path, quiet):
    chosen = recipe(training__ema_decay=0.99)
    summary = fit(chosen, tmp_path / "run", console=quiet).summary
    flow, _ = load_flow(tmp_path / "run")
    checkpoint = last_checkpoint(tmp_path / "run")
    average = checkpoint.state["average"]["average"]
    assert all(torch.equal(p, a) for p, a in zip(flow.parameters(), average, strict=True))
    assert not torch.equal(average[0], checkpoint.model[next(iter(dict(flow.named_parameters())))])
    nll = exact_nll(flow, chosen.load_dataset().validation, 500, 0)
    assert nll == pytest.approx(summary["validation_nll_nats"], rel=1e-9)
    assert exact_nll(flow, chosen.load_dataset().test, 500, 0) == pytest.approx(summary["test_nll_nats"], rel=1e-9)


def test_a_picture_that_fails_costs_no_number(recipe, tmp_path, capsys, monkeypatch):
    def broken(*rest):
        raise ValueError("no paint")

    monkeypatch.setattr(sys.modules["snflow.train.fit"], "draw_curves", broken)
    assert fit(recipe(training__epochs=1), tmp_path / "run").summary is not None
    assert "a picture could not be drawn: ValueError: no paint" in capsys.readouterr().out


@pytest.mark.parametrize("compiled", ["off", "aot_eager"])
def test_two_processes_train_what_one_trains(recipe, tmp_path, quiet, compiled):
    """Without dequantization noise, which is drawn by each process, the runs differ by rounding alone."""
    content = recipe(training__precision="64-true", training__checkpoint_every_steps=4).to_dict()
    content["data"] = {"name": "toy", "train": 200, "validation": 50, "test": 50}
    content["flow"] = {"name": "dense"}
    chosen = Recipe.from_dict(content)
    config, one, two = tmp_path / "recipe.yaml", tmp_path / "one", tmp_path / "two"
    config.write_text(chosen.to_yaml())
    fit(chosen, one, console=quiet)
    command = [sys.executable, "-m", "snflow", "fit", str(config), "--out", str(two)]
    command += ["--device.devices", "2", "--device.compile", compiled]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(last_checkpoint(two).state["generators"]) == 2
    for name, tensor in last_checkpoint(one).model.items():
        torch.testing.assert_close(last_checkpoint(two).model[name], tensor, rtol=1e-9, atol=1e-9)
    assert [row["epoch"] for row in rows(two)] == ["0", "1", "2", "3"]
    # The reconstruction error is that of the first process's own slice of the batch.
    errors = [float(rows(run)[-1]["reconstruction_error"]) for run in (one, two)]
    assert errors[0] != pytest.approx(errors[1], rel=1e-6)
    with pytest.raises(CheckpointError, match=r"by 1 processes, got one by 2; resume with --device\.devices 2"):
        fit(Recipe.from_dict({**content, "training": {**content["training"], "epochs": 4}}), two, resume=True)


def test_batches_must_fit_the_data(recipe, tmp_path, quiet):
    with pytest.raises(ConfigError, match="batch_size ≤ 120"):
        fit(recipe(training__batch_size=121), tmp_path / "run", console=quiet)


def test_an_estimated_likelihood_has_its_standard_error_everywhere(recipe, tmp_path, capsys, monkeypatch):
    content = recipe(training__epochs=1).to_dict()
    content |= {"data": {"name": "toy", "train": 40, "validation": 10, "test": 10}}
    content["flow"] = {"name": "nice", "layers": 1, "width": 2}
    monkeypatch.setattr(
        Chain, "log_det_kind", property(lambda self: "estimate", lambda self, kind: None), raising=False
    )
    summary = fit(Recipe.from_dict(content), tmp_path / "run").summary
    assert summary["test_nll_standard_error"] > 0
    assert all(float(row["validation_nll_error"]) > 0 for row in rows(tmp_path / "run"))
    assert re.search(r"estimated NLL \d\.\d{3} ± 0\.\d+ nats", capsys.readouterr().out)


def test_estimates_depend_on_the_seed_alone(monkeypatch):
    flow = Flow(Chain([]), StandardNormal((1,)))
    monkeypatch.setattr(Flow, "log_prob", lambda self, x, *rest, **options: torch.randn(len(x)))
    torch.manual_seed(3)
    one = exact_nll(flow, torch.zeros(4, 1), 4, seed=0)
    assert one == exact_nll(flow, torch.zeros(4, 1), 4, seed=0)
    assert one != exact_nll(flow, torch.zeros(4, 1), 4, seed=1)


@pytest.mark.parametrize(("cost", "count"), [(0.01, 16), (0.3, 8), (50.0, 1)])
def test_the_picture_of_a_slow_flow_has_as_many_samples_as_its_time_allows(tmp_path, monkeypatch, cost, count):
    from snflow.train import pictures

    now, said, shown = [0.0], [], []

    def slow(flow, number, seed):
        now[0] += cost * number
        return {"exact": torch.zeros(number, 1, 4, 4)}

    monkeypatch.setattr(pictures.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(pictures, "sample_by_each_inverse", slow)
    tiled = pictures.plot._tiled
    counted = lambda images, *rest: shown.append(len(images)) or tiled(images, *rest)  # noqa: E731
    monkeypatch.setattr(pictures.plot, "_tiled", counted)
    flow = Flow(Chain([]), StandardNormal((1, 4, 4)))
    pictures.draw_samples(tmp_path / "samples.png", flow, torch.zeros(2, 1, 4, 4), 0, 5.0, said.append)
    assert shown == [count]
    assert now[0] <= max(5.0, cost)
    assert len(said) == (count < 16)
    assert all("samples.png shows" in text and "instead of 16 samples" in text for text in said)


def test_points_of_the_plane_and_exact_rules_have_pictures_too(recipe, tmp_path, quiet):
    content = recipe().to_dict()
    content["data"] = {"name": "toy", "train": 200, "validation": 50, "test": 50}
    content["flow"] = {"name": "dense", "log_det_rule": "exact"}
    run = tmp_path / "run"
    summary = fit(Recipe.from_dict(content), run, console=quiet).summary
    assert summary["test_bits_per_dim"] is None
    assert (run / "samples.png").exists()
    assert rows(run)[-1]["inverse_residual"] == ""
    flow, _ = load_flow(run)
    assert exact_nll(flow, Recipe.from_dict(content).load_dataset().test, 500, 0) == summary["test_nll_nats"]


def test_a_run_of_an_earlier_version_is_refused_in_our_words(copied):
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("scales: 1", "blocks: 1"))
    with pytest.raises(
        ConfigError, match=r"flow\.blocks: .*a run of an earlier version of snflow can only be read by that version"
    ):
        load_flow(copied)


def test_evaluation_leaves_the_generators_of_training_alone(monkeypatch):
    from snflow.train import evaluation

    monkeypatch.setattr(evaluation, "mean_nll_with_error", lambda *rest, **options: (torch.rand(()).item(), 0.0))
    flow = Flow(Chain([]), StandardNormal((1,)))
    before = torch.get_rng_state()
    exact_nll(flow, torch.zeros(1, 1), 1, 0)
    assert torch.equal(before, torch.get_rng_state())


def test_the_tally_survives_a_checkpoint():
    tally = Tally(epochs=2, best_step=4)
    tally.epoch.objective = 3.5
    assert Tally.from_dict(tally.to_dict()) == tally


def test_a_second_interrupt_stops_at_once_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
