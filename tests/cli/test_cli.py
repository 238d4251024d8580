"""The command line: help without torch, one-line errors, exit codes, the recipes themselves."""

import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from snflow import plot
from snflow.cli.main import main
from snflow.train import pictures
from snflow.train.metrics import MetricsFile
from snflow.train.recipe import available_recipes, load_recipe


def fails(capsys, code, *words):
    """The one line that a failing command says, after its warnings about numbers."""
    assert main(words) == code
    captured = capsys.readouterr()
    (said,) = [line for line in captured.err.splitlines() if not line.startswith("snflow: warning: ")]
    assert said.startswith("snflow: error: ")
    return said


def test_help_and_the_list_of_recipes_need_no_torch():
    code = """
import sys
from snflow.cli.main import main
for words in (["--help"], ["--version"], ["fit", "--help"], ["evaluate", "-h"], ["sample", "--help"],
              ["score", "--help"], ["recipes", "--help"], ["recipes"], ["fit", "--epoch", "3"]):
    main(words)
heavy = [m for m in ("torch", "numpy", "matplotlib", "lightning_fabric", "rich", "sklearn") if m in sys.modules]
sys.exit(str(heavy) if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--training.epochs" in done.stdout
    assert "did you mean '--epochs'?" in done.stderr


def test_the_help_of_a_recipe_lists_the_options_of_its_data_and_flow(capsys):
    assert main(["fit", "digits_conv", "--help"]) == 0
    said = capsys.readouterr().out
    assert "--flow.kernel_size" in said
    assert "--data.train" in said
    assert "default: 1197" in " ".join(said.split())


def test_the_module_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "snflow", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("snflow ")


def test_another_dataset_brings_its_own_options(tmp_path, capsys):
    table = tmp_path / "table.csv"
    np.savetxt(table, np.random.default_rng(0).normal(size=(60, 2)), delimiter=",")
    words = ["fit", "toy_dense", "--data.name", "table", "--data.path", str(table), "--out", str(tmp_path / "run")]
    assert main([*words, "--epochs", "1", "--batch_size", "20", "--device", "cpu"]) == 0
    assert "on table" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fitt"], "expected a command, got 'fitt'; did you mean 'fit'?"),
        (["fit"], "expected a recipe, got none"),
        (["fit", "digit_conv"], "did you mean 'digits_conv'?"),
        (
            ["fit", "digits_conv", "--epohs", "3"],
            "--epohs: expected an option of this command, got an unknown one",
        ),
        (["fit", "digits_conv", "--flow.kernel", "3"], "did you mean '--flow.kernel_size'?"),
        (["fit", "digits_conv", "--epochs", "x"], "training.epochs: expected an integer, got 'x'"),
        (["fit", "digits_conv", "--epochs", "-3"], "training.epochs: expected an integer of at least 1, got -3"),
        (["fit", "digits_conv", "--training.epochs=null"], "expected an integer, got 'None'"),
        (["fit", "digits_conv", "--epochs"], "--training.epochs: expected an integer, got no value"),
        (["fit", "digits_conv", "--epochs", "3", "--training.epochs", "4"], "expected each option once"),
        (["fit", "digits_conv", "more"], "expected nothing more, got more"),
        (
            ["fit", "digits_conv", "--compare", "relative"],
            "flow.log_det_rule: expected one of 'self_norm",
        ),
        (["fit", "digits_conv", "--compare", "self_normalized"], "expected a rule that differs from the recipe's"),
        (["fit", "digits_conv", "--resume", "runs/a"], "expected a recipe or --resume RUN, got both"),
        (["fit", "--resume", "nowhere"], "nowhere: expected the folder of a run"),
        (["evaluate", "nowhere"], "nowhere: expected the folder of a run"),
        (["sample", "nowhere", "--out", "x.jpg"], "expected a file that ends in .png, .npy or .csv"),
        (["sample", "nowhere", "--inverse", "magic"], "expected one of 'learned', 'exact', 'refined', got 'magic'"),
        (["sample"], "expected run, got nothing"),
        (["recipes", "digit_conv"], "did you mean 'digits_conv'?"),
        (["recipes", "--all", "x"], "--all: expected an option of this command"),
    ],
)
def test_a_users_error_is_one_line_and_code_2(capsys, words, message):
    assert message in fails(capsys, 2, *words)


def test_fit_evaluate_sample(tmp_path, capsys):
    run = tmp_path / "run"
    short = ["--data.train", "100", "--data.validation", "20", "--data.test", "20", "--batch_size", "50"]
    small = ["--flow.scales", "1", "--epochs", "1", "--device", "cpu", "--seed", "3"]
    assert main(["fit", "digits_conv", "--out", str(run), *short, *small]) == 0
    said = capsys.readouterr().out
    assert "exact test negative log-likelihood" in said
    assert str(run / "samples.png") in said
    assert "seed: 3" in (run / "config.yaml").read_text()
    assert main(["evaluate", str(run), "--split", "validation"]) == 0
    assert "exact validation NLL of the best checkpoint" in capsys.readouterr().out
    assert "another config" in fails(capsys, 2, "fit", "digits_conv", "--out", str(run))
    assert "--optimizer.eps: expected the value with which the run began" in fails(
        capsys, 2, "fit", "--resume", str(run), "--optimizer.eps", "1e-3"
    )
    assert main(["fit", "--resume", str(run), "--epochs", "2"]) == 0
    assert "epochs: 2" in (run / "config.yaml").read_text()
    drawn = {}
    for inverse in ("learned", "exact", "refined"):
        out = tmp_path / f"{inverse}.npy"
        assert main(["sample", str(run), "-n", "5", "--inverse", inverse, "--out", str(out)]) == 0
        drawn[inverse] = np.load(out)
        assert drawn[inverse].shape == (5, 1, 8, 8)
        assert drawn[inverse].dtype == np.uint8
    assert np.array_equal(drawn["exact"], drawn["refined"])
    assert main(["sample", str(run), "-n", "7", "--out", str(tmp_path / "grid.png")]) == 0
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert "a device that this machine has" in fails(capsys, 2, "sample", str(run), "--device", "abacus")
    for manifest in (run / "checkpoints").glob("*/manifest.json"):
        manifest.write_text("{}")
    capsys.readouterr()
    assert "damaged" in fails(capsys, 4, "evaluate", str(run))


def test_compare_trains_twice_and_shows_both(tmp_path, capsys):
    short = ["--data.train", "100", "--data.validation", "20", "--data.test", "20", "--batch_size", "50"]
    words = ["fit", "digits_conv", "--compare", "exact", "--out", str(tmp_path), "--epochs", "1", "--device", "cpu"]
    assert main([*words, *short, "--flow.scales", "1"]) == 0
    said = capsys.readouterr().out
    assert "self_normalized against exact: NLL" in said
    for rule in ("self_normalized", "exact"):
        assert (tmp_path / rule / "summary.json").exists()
        assert f"log_det_rule: {rule}" in (tmp_path / rule / "config.yaml").read_text()


def test_a_diverged_run_ends_with_code_3(tmp_path, capsys):
    words = ["fit", "digits_conv", "--out", str(tmp_path / "run"), "--data.train", "100", "--device", "cpu"]
    wild = ["--learning_rate", "1e6", "--schedule.warmup_epochs", "0", "--flow.scales", "1"]
    assert "lower optimizer.learning_rate" in fails(capsys, 3, *words, *wild)


def test_a_signal_ends_with_its_code_and_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    original = torch.nn.utils.get_total_norm

    def interrupted(grads):
        signal.raise_signal(signal.SIGTERM)
        return original(grads)

    monkeypatch.setattr(torch.nn.utils, "get_total_norm", interrupted)
    words = ["fit", "digits_conv", "--out", str(tmp_path / "run"), "--data.train", "100", "--device", "cpu"]
    assert main([*words, "--flow.scales", "1"]) == 143
    assert f"snflow fit --resume {tmp_path / 'run'}" in capsys.readouterr().out


def test_a_disk_that_refuses_is_one_line(tmp_path, capsys, monkeypatch):
    def full(self, *rows):
        raise OSError(28, "No space left on device", "metrics.csv")

    monkeypatch.setattr(MetricsFile, "append", full)
    words = ["fit", "digits_conv", "--out", str(tmp_path / "run"), "--data.train", "100", "--device", "cpu"]
    assert "metrics.csv: no space left on device" in fails(capsys, 2, *words)


def test_a_device_that_is_not_there_is_our_error(tmp_path, capsys):
    # No machine has both.
    absent = "cuda" if torch.backends.mps.is_available() else "mps"
    assert "device" in fails(capsys, 2, "fit", "digits_conv", "--out", str(tmp_path / "run"), "--device", absent)


def write_mnist(folder):
    """A file of 12 images to train and validate on, and one of 4 to test on."""
    draw = torch.Generator().manual_seed(0)
    for name, count in (("train-images-idx3-ubyte", 12), ("t10k-images-idx3-ubyte", 4)):
        header = b"".join(n.to_bytes(4, "big") for n in (2051, count, 28, 28))
        pixels = torch.randint(256, (count * 784,), dtype=torch.uint8, generator=draw)
        (folder / name).write_bytes(header + bytes(pixels.tolist()))


def write_colour(folder, train, test, keys):
    images = np.random.default_rng(0).integers(0, 256, (12, 3072), dtype=np.uint8)
    if train == test:
        np.savez(folder / train, **dict(zip(keys, (images, images[:4]), strict=True)))
    else:
        np.savez(folder / train, **{keys[0]: images})
        np.savez(folder / test, **{keys[1]: images[:4]})


def test_a_recipe_that_was_printed_is_a_recipe(tmp_path, capsys):
    assert main(["recipes", "digits_conv"]) == 0
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    assert load_recipe(tmp_path / "mine.yaml") == load_recipe("digits_conv")
    assert main(["recipes", str(tmp_path / "mine.yaml")]) == 0
    assert capsys.readouterr().out == (tmp_path / "mine.yaml").read_text()


def write_images(folder):
    draw = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(draw.integers(0, 256, (40, 33, 3), dtype=np.uint8)).save(folder / f"{number}.png")


FILES = {
    "images": write_images,
    "mnist": write_mnist,
    "cifar10": lambda folder: write_colour(folder, "cifar10.npz", "cifar10.npz", ("train", "test")),
    "imagenet32": lambda folder: write_colour(folder, "train_data_batch_1.npz", "val_data.npz", ("data", "data")),
}


SMALLER = {
    "densenet": ["--flow.layers", "1"],
    "ffjord": ["--flow.layers", "1", "--flow.width", "8", "--flow.solver", "rk4", "--flow.steps", "2"],
    "flowpp": ["--flow.first_layers", "1", "--flow.last_layers", "1", "--flow.width", "8"],
    "glow": ["--flow.width", "4"],
    "mintnet": ["--flow.layers", "2", "--flow.groups", "4"],
    "residual": ["--flow.layers", "1", "--flow.width", "8"],
}


@pytest.mark.parametrize("name", available_recipes())
def test_every_recipe_runs_one_epoch(name, tmp_path, capsys, monkeypatch):
    """Few rows, and on images narrow and shallow networks and few steps of a solver: the full size takes minutes."""
    for option, value in (("_SHOWN", 2), ("_POINTS", 50)):
        monkeypatch.setattr(pictures, option, value)
    density = plot._grid_density
    monkeypatch.setattr(plot, "_grid_density", lambda flow, limits, resolution: density(flow, limits, 12))
    dataset = name.split("_")[0]
    words = ["fit", name, "--out", str(tmp_path / "run"), "--epochs", "1", "--device", "cpu", "--training.threads", "1"]
    if dataset in FILES:
        FILES[dataset](tmp_path)
        words += ["--data.path", str(tmp_path), "--batch_size", "5"]
    elif dataset == "table":
        np.savetxt(tmp_path / "table.csv", np.random.default_rng(0).normal(size=(100, 3)), delimiter=",")
        words += ["--data.path", str(tmp_path / "table.csv"), "--batch_size", "30"]
    else:
        words += ["--data.train", "60", "--data.validation", "5", "--data.test", "5", "--batch_size", "30"]
    if dataset in ("digits", "mnist"):
        words += SMALLER.get(load_recipe(name).flow["name"], [])
    assert main(words) == 0
    assert "exact test negative log-likelihood" in capsys.readouterr().out
