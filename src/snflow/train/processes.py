"""The processes of a run on several devices: checked before they start, and ended together."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.parallel import ParallelStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch.distributed import distributed_c10d

from snflow.errors import ConfigError, ProcessError
from snflow.train.options import DeviceOptions

_THREADS_PER_PROCESSOR = 16
_SECONDS_TO_JOIN, _SECONDS_TO_END = 300.0, 30.0
_LOST = re.compile(r"gloo|nccl|connection|broken pipe|socket|timed? ?out", re.IGNORECASE)
"""What the errors of torch.distributed have in common when a process is lost or does not answer."""

_others: list[subprocess.Popen[bytes]] = []
"""Processes that this one has started."""


@contextmanager
def launched(options: DeviceOptions, precision: Literal["32-true", "64-true"]) -> Iterator[Fabric]:
    """Start one process per device, connect them, and run the block in each; if it fails in this one, end the others.

    Args:
        options: kind and number of devices, and how long a process waits for the others.
        precision: floating-point precision of the weights.

    Raises:
        ConfigError: this machine does not have these devices.
        ProcessError: another process was lost, or did not answer for ``options.timeout`` seconds.
    """
    _check_number(options)
    joining = timedelta(seconds=max(_SECONDS_TO_JOIN, options.timeout))
    several = options.devices > 1 or options.strategy == "ddp"
    try:
        fabric = Fabric(
            accelerator=options.accelerator,
            devices=options.devices,
            strategy=DDPStrategy(timeout=joining) if several else "auto",
            precision=precision,
        )
        _start_others(fabric, options.devices)
        fabric.launch()
        if several:
            # Only now, as the processes take unequal time to start.
            distributed_c10d._set_pg_timeout(timedelta(seconds=options.timeout))
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        _kill_others()
        raise ConfigError(
            "device",
            expected="devices that this machine has",
            got=f"{options.devices} × {options.accelerator}: {' '.join(str(error).split())[:200]}",
            fix="use --device cpu",
        ) from error
    try:
        yield fabric
    except RuntimeError as error:
        _kill_others()
        if fabric.world_size == 1 or isinstance(error, ProcessError) or not _LOST.search(str(error)):
            raise
        raise ProcessError(
            f"process {fabric.global_rank} of {fabric.world_size}",
            expected="an answer from each of the others",
            got=" ".join(str(error).split())[:200],
            fix="see their messages, if any; continue with --resume",
        ) from error
    except BaseException:
        _kill_others()
        raise


def check_threads(threads: int | None) -> None:
    """Raise an error for a number of threads with which this machine would not run.

    Raises:
        ConfigError: there are more than 16 for each logical processor.
    """
    most = _THREADS_PER_PROCESSOR * _processors()
    if threads is not None and threads > most:
        raise ConfigError(
            "training.threads", expected=f"at most {most} ({_processors()} processors)", got=str(threads), fix="omit it"
        )


def _check_number(options: DeviceOptions) -> None:
    kind = options.accelerator
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if kind == "mps":
        return  # Fabric's own check: there is never more than one
    there, name = (_processors(), "processors") if kind == "cpu" else (torch.cuda.device_count(), "GPUs")
    # Without any GPU, Fabric's message says more.
    if there and options.devices > there:
        raise ConfigError(
            "device.devices",
            expected=f"at most {there}, the number of this machine's {name}",
            got=str(options.devices),
            fix=f"use --device.devices {there}",
        )


def _processors() -> int:
    return os.cpu_count() or 1


def _start_others(fabric: Fabric, number: int) -> None:
    """Run this process's command again for each further device, unless a scheduler such as torchrun starts them.

    Fabric would do the same, but would also kill this process when another one ends with an exit code of its own.
    """
    environment = fabric.strategy.cluster_environment if isinstance(fabric.strategy, ParallelStrategy) else None
    if number == 1 or environment is None or environment.creates_processes_externally:
        return
    os.environ.update(
        MASTER_ADDR=environment.main_address,
        MASTER_PORT=str(environment.main_port),
        NODE_RANK="0",
        WORLD_SIZE=str(number),
        LOCAL_RANK="0",  # by which Fabric sees that its processes exist
    )
    atexit.register(_await_others)
    environments = [{**os.environ, "LOCAL_RANK": str(rank)} for rank in range(1, number)]
    _others.extend(subprocess.Popen(_own_command(), env=variables) for variables in environments)


def _own_command() -> Sequence[str]:
    specification = sys.modules["__main__"].__spec__
    script = [os.path.abspath(sys.argv[0])] if specification is None else ["-m", specification.name]
    return [sys.executable, *script, *sys.argv[1:]]


def _kill_others() -> None:
    # A stopped process, or one that waits for this one, hears no other signal.
    for process in _others:
        process.kill()


def _await_others() -> None:
    """Let the other processes end by themselves before this one does."""
    for process in _others:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
    _kill_others()
