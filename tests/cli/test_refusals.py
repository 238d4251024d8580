"""Hostile words, recipes, data and runs: exit code 2 and one line that names the option or file, never a traceback."""

import io
import os
import shutil
import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest

from snflow.cli import commands
from snflow.cli.main import main
from snflow.errors import NumericalWarning

RECIPE = """
data: {name: toy, train: 60, validation: 20, test: 20}
flow: {name: maf, layers: 1, width: 8}
training: {epochs: 1, batch_size: 20, threads: 1}
device: {accelerator: cpu}
"""
HUGE = "1" + 400 * "0"


def refusal(capsys, words, code=2):
    """The one line in which a command refuses its words."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == code
    said = capsys.readouterr()
    assert said.err.startswith("snflow: error: ")
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.out + said.err
    return said.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refusals")
    (folder / "recipe.yaml").write_text(RECIPE)
    assert main(["fit", str(folder / "recipe.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A finished run to damage."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("optimizer: {learning_rate: 1e400}", "optimizer.learning_rate: expected a finite number, got inf"),
        (f"optimizer: {{learning_rate: {HUGE}}}", "optimizer.learning_rate: expected an integer of 64 bits"),
        (f"schedule: {{warmup_epochs: -{HUGE}}}", "schedule.warmup_epochs: expected an integer of 64 bits"),
        ("optimizer: {eps: .inf}", "optimizer.eps: expected a finite number, got inf"),
        ("optimizer: {clip_norm: .nan}", "optimizer.clip_norm: expected a finite number, got nan"),
        ("optimizer: {betas: &a [*a]}", "optimizer.betas: expected at most 8 levels"),
        ("preprocessing: {base: 2026-01-02}", "preprocessing.base: expected a number, text"),
        ("preprocessing: 3", "preprocessing: expected a mapping of options, got 3"),
        (f"preprocessing: {5000 * '9'}", "expected YAML"),
        (
            f"preprocessing: 0x{5000 * 'f'}",
            "preprocessing: expected a mapping of options, got an integer of 20000 bits",
        ),
    ],
)
def test_numbers_and_values_in_a_recipe_that_nobody_means(tmp_path, capsys, line, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"{RECIPE}{line}\n")
    assert message in refusal(capsys, ["fit", path, "--out", tmp_path / "run"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.train", 10**9], "data.toy: expected train ≤ 10000000, got 1000000000"),
        (["--data.train", 10**30], "data.train: expected an integer of 64 bits"),
        (["--data.seed", 2**64], "data.seed: expected an integer of 64 bits"),
        (["--data.seed", -1], "data.toy: expected seed from 0 to 2**63 - 1, got -1"),
        (["--training.threads", 2**63], "training.threads: expected an integer of 64 bits, got 9223372036854775808"),
        (["--training.threads", 100_000], "training.threads: expected an integer from 1 to 10000, or null"),
        (["--device.devices", 10**5], "device.devices: expected an integer from 1 to 10000"),
        (["--device", "meta"], "device.accelerator: expected one of 'auto', 'cpu', 'cuda', 'mps', got 'meta'"),
        (["--seed", 2**64], "training.seed: expected an integer of 64 bits"),
        (["--seed", -1], "training.seed: expected an integer of at least 0"),
        (["--batch_size", 10**30], "training.batch_size"),
        (["--epochs", 5000 * "9"], "epochs"),
        (["--flow.layers", 10**9], "layers ≤ 1000000, got 1000000000"),
        (["--flow.width", 10**9], "width ≤ 1000000, got 1000000000"),
        (["--flow.width", 10**6, "--flow.depth", 3], "use smaller numbers"),
        (["--learning_rate", HUGE], "--optimizer.learning_rate: expected numbers of 64 bits"),
        (["--optimizer.betas", f"[0.9, {HUGE}]"], "--optimizer.betas: expected numbers of 64 bits"),
        (["--training.checkpoint_minutes", "nan"], "training.checkpoint_minutes: expected a"),
        (["--flow", "3"], "flow"),
    ],
)
def test_options_of_fit_that_nobody_means(tmp_path, capsys, words, message):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    assert message in refusal(capsys, ["fit", tmp_path / "recipe.yaml", "--out", tmp_path / "run", *words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sample", "-n", 10**12], "--n: expected n ≤ 10000000, got 1000000000000"),
        (["sample", "-n", 0], "--n: expected n ≥ 1, got 0"),
        (["sample", "--seed", 2**64], "--seed: expected seed from 0 to 2**63 - 1"),
        (["sample", "--seed", -1], "--seed: expected seed from 0 to 2**63 - 1, got -1"),
        (["sample", "--temperature", "nan"], "temperature"),
        (["sample", "--temperature", HUGE], "--temperature: expected numbers of 64 bits"),
        (["sample", "--device", "meta"], "--device: expected a device that this machine has, got 'meta'"),
        (["sample", "--device", "cuda:99"], "--device: expected a device that this machine has"),
        (["sample", "--device", "hpu"], "--device: expected a device that this machine has"),
        (["sample", "--device", ""], "--device: expected a device that this machine has"),
        (["sample", "--out", "a\0.npy"], "--out: expected a writable file"),
        (["evaluate", "--batch_size", 10**30], "--batch_size: expected batch_size ≤ 9223372036854775807"),
        (["evaluate", "--batch_size", 0], "--batch_size: expected batch_size ≥ 1, got 0"),
        (["evaluate", "--device", "meta"], "--device: expected a device that this machine has"),
        (["evaluate", "--device", "vulkan"], "--device: expected a device that this machine has"),
    ],
)
def test_options_of_evaluate_and_sample_that_nobody_means(trained, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    command, *options = words
    out = ["--out", "x.npy"] if command == "sample" and "--out" not in options else []
    assert message in refusal(capsys, [command, trained, *out, *options])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", [["evaluate", "a\0b"], ["recipes", "a\0b"], ["recipes", "/"], ["recipes", 5000 * "a"]]
)
def test_paths_that_are_none(capsys, words):
    refusal(capsys, words)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", b'{"a": '),
        ("summary.json", b"[1]"),
        ("summary.json", b"{}"),
        ("summary.json", b"\xff\xfe"),
        ("summary.json", 100_000 * b"["),
        ("config.yaml", b"\xff\xfe"),
        ("config.yaml", b"[]"),
    ],
)
def test_damaged_files_of_a_run(run, capsys, name, content):
    (run / name).write_bytes(content)
    assert name in refusal(capsys, ["fit", "--resume", run])


@pytest.mark.parametrize("content", [b"\xff\xfe\n1,2\n", b"epoch,\0\n1,\0\n"])
def test_damaged_metrics_of_a_run_that_goes_on(run, capsys, content):
    (run / "metrics.csv").write_bytes(content)
    if b"\xff" in content:
        assert "metrics.csv: expected text in UTF-8" in refusal(capsys, ["fit", "--resume", run, "--epochs", 2])
    else:
        assert main(["fit", "--resume", str(run), "--epochs", "2"]) == 0  # rows that are none are dropped


def array(header):
    """A file of zeros behind this header of an array."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n" + bytes(64)


def encrypted():
    """An archive whose members say that they are encrypted."""
    file = io.BytesIO()
    np.savez(file, data=np.zeros((4, 3072), np.uint8))
    content = bytearray(file.getvalue())
    content[content.index(b"PK\x03\x04") + 6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def single():
    file = io.BytesIO()
    np.save(file, np.zeros((4, 3072), np.uint8))
    return file.getvalue()


@pytest.mark.parametrize(
    ("dataset", "name", "content"),
    [
        ("table", "a.npy", array("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000000)}")),
        ("table", "a.npy", array("{'descr': '<f8', 'fortran_order': False, 'shape': (18446744073709551616, 3)}")),
        ("table", "a.npy", array("{'descr': '<f8', 'fortran_order': False, 'shape': (3,")),
        ("table", "a.npz", encrypted()),
        ("table", "a.csv", b'"1,000",2\n'),
        ("imagenet32", "train_data_batch_1.npz", single()),
        ("imagenet32", "train_data_batch_1.npz", encrypted()),
        ("cifar10", "data_batch_1", b"c_codecs\nencode\n(Vabc\nVnocodec\ntR."),
        ("cifar10", "data_batch_1", b"(" * 100_000 + b"."),
    ],
)
def test_data_that_are_something_else(tmp_path, capsys, dataset, name, content):
    others = {"table": (), "imagenet32": ["val_data.npz"], "cifar10": [f"data_batch_{n}" for n in range(2, 6)]}
    for other in [*others[dataset], "test_batch"]:
        (tmp_path / other).write_bytes(b"")
    (tmp_path / name).write_bytes(content)
    path = tmp_path / name if dataset == "table" else tmp_path
    words = [
        "fit",
        "toy_dense",
        "--data.name",
        dataset,
        "--data.path",
        path,
        "--device",
        "cpu",
        "--out",
        tmp_path / "run",
    ]
    assert name in refusal(capsys, words)


def test_an_error_in_the_library_keeps_its_traceback(monkeypatch):
    def broken(run: str) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(commands, "evaluate", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        main(["evaluate", "run"])


def test_a_warning_about_numbers_is_one_line(trained, tmp_path, capsys, monkeypatch):
    from snflow import Flow

    original = Flow.sample

    def poor(self, *args, **kwargs):
        for _ in range(3):
            warnings.warn("the condition number is 1e17:\n    the samples are inexact", NumericalWarning, stacklevel=1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Flow, "sample", poor)
    assert main(["sample", str(trained), "-n", "3", "--out", str(tmp_path / "x.npy")]) == 0
    said = capsys.readouterr().err
    assert said == "snflow: warning: the condition number is 1e17: the samples are inexact\n"


def test_an_interrupt_within_an_import_ends_the_process(tmp_path):
    # The parsers of many libraries turn whatever happens in an import into an ImportError of their own.
    (tmp_path / "jsonargparse.py").write_text(
        "import signal\n"
        "try:\n    signal.raise_signal(signal.SIGINT)\n"
        "except BaseException:\n    raise ImportError('half a module')\n"
    )
    words = [sys.executable, "-m", "snflow", "evaluate", "run"]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert (done.returncode, done.stderr) == (130, "snflow: interrupted\n")
