"""Runs on several devices: what is checked before they start, and how they end together."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from snflow.errors import ConfigError, ProcessError
from snflow.train import processes
from snflow.train.checkpoints import CheckpointStore
from snflow.train.fit import fit
from snflow.train.options import DeviceOptions
from snflow.train.recipe import Recipe

TINY = {
    "description": "tiny",
    "data": {"name": "toy", "train": 40, "validation": 10, "test": 10},
    "flow": {"name": "nice", "layers": 1, "width": 2},
    "training": {"epochs": 100_000, "batch_size": 20, "threads": 1, "checkpoint_every_epochs": 1},
    "device": {"accelerator": "cpu", "devices": 2},
}


@pytest.fixture
def none_starts(monkeypatch):
    """Fail if a process is started."""
    monkeypatch.setattr(processes.subprocess, "Popen", lambda *rest, **options: pytest.fail("a process was started"))


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_more_devices_than_the_machine_has_are_refused_before_any_starts(
    recipe, tmp_path, quiet, none_starts, monkeypatch, accelerator
):
    monkeypatch.setattr(processes.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 3)
    chosen = recipe(device__devices=4, device__accelerator=accelerator, training__batch_size=4)
    with pytest.raises(ConfigError, match=r"device\.devices: expected at most 3, the number of this machine's proc"):
        fit(chosen, tmp_path / "run", console=quiet)


def test_more_threads_than_the_machine_can_run_are_refused(recipe, tmp_path, quiet, monkeypatch):
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"training\.threads: expected at most 32 \(2 processors\), got 33"):
        fit(recipe(training__threads=33), tmp_path / "run", console=quiet)


def test_a_process_that_does_not_answer_ends_the_others_by_our_own_error(monkeypatch):
    from types import SimpleNamespace

    waited, ended = [], []
    fabric = SimpleNamespace(world_size=2, global_rank=0, strategy=None, launch=lambda: None)
    monkeypatch.setattr(processes, "Fabric", lambda **options: fabric)
    monkeypatch.setattr(processes, "_others", [SimpleNamespace(kill=lambda: ended.append(1))])
    monkeypatch.setattr(processes.distributed_c10d, "_set_pg_timeout", lambda time: waited.append(time.total_seconds()))
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 2)
    options = DeviceOptions(accelerator="cpu", devices=2, timeout=7.0)
    lost = "[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 7000ms for recv operation to complete"
    ours = r"process 0 of 2: expected an answer .* waiting 7000ms .* --resume"
    with pytest.raises(ProcessError, match=ours) as caught, processes.launched(options, "32-true"):
        raise RuntimeError(lost)
    assert (caught.value.exit_code, waited, ended) == (5, [7.0], [1])
    with pytest.raises(RuntimeError, match=r"^a fault of the flow$"), processes.launched(options, "32-true"):
        raise RuntimeError("a fault of the flow")
    assert len(ended) == 2


def test_a_signal_to_any_process_stops_all_of_them_with_its_exit_code(tmp_path):
    config, run = tmp_path / "recipe.yaml", tmp_path / "run"
    config.write_text(Recipe.from_dict(TINY).to_yaml())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    # As torchrun would start them.
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "snflow", "fit", str(config), "--out", str(run)]
    ranks = [
        subprocess.Popen(command, env={**os.environ, **shared, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    store, deadline = CheckpointStore(run / "checkpoints"), time.monotonic() + 120
    while max(store.steps(), default=0) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    ranks[1].send_signal(signal.SIGTERM)
    said = [rank.communicate(timeout=60)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [128 + signal.SIGTERM] * 2, said
    assert not (run / "summary.json").exists()
