"""The same seed gives the same run; imports and help are fast; a long run takes no more memory or time per step."""

from __future__ import annotations

import gc
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from nightly.check import check, require, within
from nightly.runs import RECIPES, Child, fit_task, short
from run_files import same_run
from snflow import flows


@check("the same recipe and seed give the same files to the bit, every recipe", nightly=2 * len(RECIPES), chunk=8)
def determinism(seed: int, folder: Path) -> None:
    """Two runs of one recipe, pictures included, with another seed in each round."""
    recipe = short(RECIPES[seed % len(RECIPES)], folder, {"training.seed": seed})
    runs = [folder / f"{number}-{seed}" for number in (1, 2)]
    for run in runs:
        require(Child(fit_task, recipe, str(run), FigureCanvasAgg).wait() == 0, f"{run.name} fails")
    same_run(*runs)
    for run in runs:
        shutil.rmtree(run)


def _seconds(*words: str, tries: int = 5) -> float:
    times = []
    for _ in range(tries):
        began = time.perf_counter()
        subprocess.run([sys.executable, *words], capture_output=True, check=True)
        times.append(time.perf_counter() - began)
    return min(times)


@check(
    "`snflow --help` within 0.3 s of Python's own start; importing flows within 0.5 s of importing torch",
    nightly=4,
    chunk=4,
)
def start(seed: int, folder: Path) -> float:
    """The best of five starts; other jobs on the machine make them slower."""
    bare, help_ = _seconds("-c", "pass"), _seconds("-m", "snflow", "--help")
    within("--help, s", help_ - bare, 0.3)
    own = _seconds("-c", "import snflow; snflow.flows.maf") - _seconds("-c", "import torch")
    within("import beyond torch, s", own, 0.5)
    return max(help_ - bare, own)


LONG = ("dense", "maf", "conv", "neural_spline", "glow", "pair")


@check(
    "50,000 training steps of a flow: finite, memory flat within 8 MiB after the first tenth, and the median step"
    " of the last tenth within 1.5 of the second's",
    nightly=len(LONG),
    chunk=1,
    minutes=120,
)
def long_run(seed: int, folder: Path) -> float:
    """One flow by turns, in small, on fresh noise."""
    return steps(LONG[seed % len(LONG)], 50_000)


def steps(name: str, count: int) -> float:
    """Train for a number of steps; return the growth of the resident memory in MiB, from the first tenth on."""
    from nightly.subjects import flow_of

    subject = flow_of(0, names=[name], features=[4], contexts=False, dtype=torch.float32)
    flow, optimizer = subject.flow.train(), torch.optim.Adam(subject.flow.parameters(), 1e-4)
    times: list[float] = []
    begins = 0.0
    for step in range(count):
        began = time.perf_counter()
        loss = -flow.log_prob(subject.data(16)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
        optimizer.step()
        times.append(time.perf_counter() - began)
        if step == count // 10:
            gc.collect()
            begins = resident()
    require(bool(loss.isfinite()), f"{name}: the objective is {loss}")
    gc.collect()
    grown, tenth = resident() - begins, count // 10
    within(f"{name}: growth of memory, MiB", grown, 8.0)
    ratio = statistics.median(times[-tenth:]) / statistics.median(times[tenth : 2 * tenth])
    within(f"{name}: last steps over first", ratio, 1.5)
    return grown


def resident() -> float:
    """Resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@check(
    "the ready flows: construction, density and samples leave the generators of Python and numpy, the default "
    "dtype and the number of threads alone",
    nightly=len(flows.ready_flows()),
    chunk=24,
    short=24,
)
def global_state(seed: int, folder: Path) -> None:
    """One flow."""
    import numpy as np

    from nightly.subjects import flow_of

    def found() -> tuple[object, ...]:
        numbers = np.random.get_state()[1].sum()  # noqa: NPY002
        return (
            random.getstate(),
            int(numbers),
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
        )

    before = found()
    subject = flow_of(seed)
    subject.flow.log_prob(subject.data(4), subject.context(4))
    subject.flow.sample(2, subject.context(1))
    require(found() == before, f"{subject.name} changes global state")
