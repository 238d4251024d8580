"""From a recipe's device options to the one who takes the steps."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from snflow.distributions import Flow
from snflow.errors import ConfigError
from snflow.selfnorm import Followers
from snflow.training.config.recipe import Recipe
from snflow.training.engine.ema import MovingAverage
from snflow.training.engine.guard import DivergenceGuard
from snflow.training.engine.optimizer import adam
from snflow.training.engine.steps.base import Steps
from snflow.training.engine.steps.eager import EagerSteps
from snflow.training.engine.steps.recorded import RecordedSteps

RECORDING = ("cuda",)
"""The kinds of device that can record a step."""


def set_up(
    fabric: Fabric,
    flow: Flow,
    recipe: Recipe,
    average: MovingAverage | None,
    guard: DivergenceGuard,
    agreed: Callable[[Tensor], list[float]],
    last_good: Callable[[], str],
) -> tuple[nn.Module, Any, Steps]:
    """Adam, the flow compiled and shared as the options say, and the steps.

    Args:
        fabric: the launched one.
        flow: on its device already.
        recipe: the options.
        average: the moving average of the weights, where there is one.
        guard: what happens when numbers are not finite.
        agreed: the mean of each value over the devices.
        last_good: names the last good checkpoint.

    Returns:
        The flow as the devices share it, its optimizer, and who takes the steps.

    Raises:
        ConfigError: the device cannot record a step, or there is no compiler for the code that is generated.
    """
    options = recipe.device
    if options.cuda_graph and fabric.device.type not in RECORDING:
        raise ConfigError(
            "device.cuda_graph",
            expected="a device of kind cuda",
            got=fabric.device.type,
            fix="leave it out, or give --device cuda",
        )
    if options.compile == "inductor" and fabric.device.type == "cpu" and shutil.which(_compiler()) is None:
        raise ConfigError(
            "device.compile",
            expected=f"the C++ compiler {_compiler()} on the path: inductor generates C++",
            got="none",
            fix="install it, name another one in CXX, or leave device.compile out",
        )
    parameters = [p for p in flow.parameters() if p.requires_grad]
    optimizer = adam(parameters, recipe.optimizer, fabric.device, recorded=options.cuda_graph)
    compiled = flow if options.compile == "off" else cast(nn.Module, torch.compile(flow, backend=options.compile))
    followers = Followers(flow) if options.cuda_graph or options.compile != "off" else None
    model, shared = fabric.setup(compiled, optimizer)
    if options.cuda_graph and followers is not None:
        every, training = options.read_every, recipe.training
        rules = (recipe.optimizer, training, average, guard, followers, every, last_good)
        backend = None if options.compile == "off" else options.compile
        return model, shared, RecordedSteps(compiled, parameters, optimizer, *rules, backend)
    rest = (recipe.optimizer, average, guard, fabric.backward, agreed, followers, last_good)
    return model, shared, EagerSteps(model, parameters, shared, *rest)


def _compiler() -> str:
    """The one that torch calls on a processor."""
    return os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")


def portable(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state as it is wherever the run goes on: the learning rate a number, recorded or not."""
    for group in state["param_groups"]:
        group["lr"], group["capturable"] = float(group["lr"]), False
    return state


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Allow float32 matrix products this precision inside of the block: ``highest``, ``high`` or ``medium``."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
