"""Several processes: what they train, and what happens if one of them ends."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from nightly.check import Found, check, require, within
from nightly.runs import short
from nightly.subjects import flow_of
from run_files import last_checkpoint

COMMAND = [sys.executable, "-m", "snflow", "fit"]


def _recipe(seed: int, folder: Path, epochs: int) -> Path:
    """Without noise, which each process draws for itself, two processes train what one trains."""
    name = random.choice(["toy_dense", "toy_maf", "toy_neural_spline", "table_dense"])
    changes = {"training.epochs": epochs, "training.precision": "64-true", "training.seed": seed}
    config = folder / f"recipe-{seed}.yaml"
    config.write_text(short(name, folder, changes).to_yaml())
    return config


@check(
    "two processes train the flow that one trains, 1e-9 in float64, also by accumulated steps of uneven data",
    nightly=24,
    chunk=4,
    minutes=20,
)
def two_processes(seed: int, folder: Path) -> float:
    """One recipe, once with one process and once with two."""
    config, runs = _recipe(seed, folder, 3), [folder / f"{seed}-{count}" for count in (1, 2)]
    for count, run in enumerate(runs, 1):
        words = [*COMMAND, str(config), "--out", str(run), "--device.devices", str(count)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        require(done.returncode == 0, f"{count} processes end with {done.returncode}: {done.stderr[-300:]}")
    one, two = (last_checkpoint(run).model for run in runs)
    error = max(float((one[n] - two[n]).abs().max()) for n in one if one[n].is_floating_point() and one[n].numel())
    return within("weights of two processes", error, 1e-9)


@check(
    "one of two processes is killed, stopped, or gets a signal: the run ends within 60 s, with exit code 143 (a"
    " signal) or 5, and without a summary",
    nightly=24,
    chunk=4,
    minutes=30,
)
def lost_process(seed: int, folder: Path) -> Found:
    """SIGKILL, SIGTERM or SIGSTOP to the first or the second process, at a random moment of training."""
    config, run = _recipe(seed, folder, 10**6), folder / f"lost-{seed}"
    words = [*COMMAND, str(config), "--out", str(run), "--device.devices", "2", "--device.timeout", "5"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        began = time.monotonic()
        while not (run / "metrics.csv").exists() and time.monotonic() - began < 300:
            require(process.poll() is None, f"the run ends with {process.returncode} before it begins")
            time.sleep(0.05)
        time.sleep(random.uniform(1, 3))
        # The first process is the one that is waited for: whoever stops it can see that.
        number, rank = random.choice(
            [(signal.SIGKILL, 0), (signal.SIGKILL, 1), (signal.SIGTERM, 0), (signal.SIGTERM, 1), (signal.SIGSTOP, 1)]
        )
        children = _children(process.pid)
        require(rank == 0 or bool(children), "the second process was not found")
        os.kill(children[0] if rank else process.pid, number)
        began = time.monotonic()
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            require(False, f"signal {number} to rank {rank}: the run goes on for 60 s")
        allowed = {signal.SIGTERM: (143,), signal.SIGSTOP: (5,)}.get(number, (-signal.SIGKILL, 5))
        require(code in allowed, f"signal {number} to rank {rank}: ends with {code}, expected one of {allowed}")
        require(not (run / "summary.json").exists(), f"signal {number} to rank {rank}: a summary of a run cut short")
        while any(map(_runs, children)):
            require(time.monotonic() - began < 60, f"signal {number} to rank {rank}: a process is left")
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return Found(time.monotonic() - began, {f"signal {number} to rank {rank}": 1})


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def _runs(pid: int) -> bool:
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@check(
    "gradients of a batch are those of its parts: accumulated, and under a loss scaled by 1024, 1e-12",
    nightly=200,
    chunk=100,
)
def accumulation(seed: int, folder: Path) -> float:
    """A self-normalizing or exact flow on a batch, in two halves, and scaled."""
    # A pair estimates its log-determinant by other random vectors at each call.
    subject = flow_of(seed, names=["dense", "conv", "maf", "glow", "mintnet", "neural_spline"], contexts=False)
    flow, x = subject.flow.train(), subject.data(16)
    flow.log_prob(x)
    parameters = [p for p in flow.parameters() if p.requires_grad]

    def gradient(scale: float, *parts: torch.Tensor) -> list[torch.Tensor]:
        flow.zero_grad()
        for part in parts:
            (-scale * flow.log_prob(part).sum() / len(x)).backward()
        return [(torch.zeros_like(p) if p.grad is None else p.grad / scale).clone() for p in parameters]

    whole, scaled, parts = gradient(1.0, x), gradient(1024.0, x), gradient(1.0, x[:7], x[7:])
    size = max(float(g.abs().max()) for g in whole)
    error = max(float((a - b).abs().max()) for other in (scaled, parts) for a, b in zip(whole, other, strict=True))
    return within(subject.name, error / max(size, 1.0), 1e-11)
