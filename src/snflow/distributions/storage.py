"""Whole flows in one file: constructor arguments and tensors, without pickle."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from snflow.distributions.flow import Flow
from snflow.errors import CONSTRUCTED_WITH, CheckpointError, ConfigError

FORMAT = "snflow-flow-1"
"""Format of the file, which includes the names and the meaning of constructor arguments."""

_ARGUMENT = "argument."
"""Prefix of the names of tensors that are constructor arguments, as opposed to entries of the state."""

_CONVOLUTION = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
_LAYERS_OF_TORCH: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "Linear": (nn.Linear, ("in_features", "out_features")),
    "Conv1d": (nn.Conv1d, _CONVOLUTION),
    "Conv2d": (nn.Conv2d, _CONVOLUTION),
    **{kind.__name__: (kind, ()) for kind in (nn.Identity, nn.ReLU, nn.SiLU, nn.GELU, nn.ELU, nn.Tanh, nn.Sigmoid)},
}
"""Layers of torch that a network may contain besides ``nn.Sequential``, with the attributes that are arguments."""


def save(flow: Flow, path: str | Path) -> None:
    """Write a flow to one safetensors file: how to build it, and all its weights and buffers.

    The file holds the arguments with which every layer was constructed, not code. Networks must therefore be those of
    :mod:`snflow.nets`, ``nn.Sequential`` of linear layers, convolutions and activations, or of a class of your own with
    the metaclass :class:`~snflow.errors.CheckedConstructor`. The file is written to a temporary name first: an existing
    file is intact until the new one is complete.

    Args:
        flow: the flow, in any mode and on any device.
        path: the file; ``.safetensors`` is customary.

    Raises:
        ConfigError: an argument of a layer cannot be written, or the flow was changed after it was built.
        CheckpointError: the file cannot be written.

    Example:
        >>> import pathlib, tempfile, torch, snflow
        >>> flow, x = snflow.flows.maf(2), torch.randn(3, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "maf.safetensors")
        ...     snflow.save(flow, path)
        ...     torch.equal(snflow.load(path).log_prob(x), flow.eval().log_prob(x))
        True
    """
    if not isinstance(flow, Flow):
        raise ConfigError("save", expected="a Flow", got=type(flow).__name__, fix="build snflow.Flow(bijection, base)")
    writer = _Writer()
    built = writer.value(flow, "flow")
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in flow.state_dict().items()}
    header = {
        "format": FORMAT,
        "snflow": version("snflow"),
        "flow": json.dumps(built),
        "dtype": str(flow.base.dtype).removeprefix("torch."),
        "frozen": json.dumps([name for name, p in flow.named_parameters() if not p.requires_grad]),
    }
    tensors = state | writer.tensors
    _check_rebuilt(flow, header, tensors)
    content = safetensors.torch.save(tensors, {**header, "sha256": _digest(header, tensors)})
    path = Path(path)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            str(path), expected="a writable file", got=(error.strerror or str(error)).lower()
        ) from error


def load(path: str | Path, *, device: str | torch.device = "cpu", classes: Iterable[type] = ()) -> Flow:
    """Read a flow that :func:`save` has written, in ``eval()``.

    Only classes of this library are built, and those passed as ``classes``; nothing in the file is executed.

    Args:
        path: the file.
        device: where to put the flow.
        classes: your own layers and networks that the flow contains.

    Returns:
        The flow, with the dtype and the frozen parameters that it had.

    Raises:
        CheckpointError: the file is missing, damaged, or not one that :func:`save` has written.
        ConfigError: the flow contains a class that is neither of this library nor in ``classes``.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
    except OSError as error:
        raise CheckpointError(
            str(path), expected="a flow written by snflow.save", got=(error.strerror or str(error)).lower()
        ) from error
    except (safetensors.SafetensorError, ValueError) as error:
        raise _foreign(path, "a file that is not safetensors, or damaged") from error
    if header.get("format") != FORMAT:
        raise _foreign(path, f"format {header.get('format', 'unknown')!r} in place of {FORMAT!r}")
    if _digest({name: value for name, value in header.items() if name != "sha256"}, tensors) != header.get("sha256"):
        raise CheckpointError(str(path), expected="the file as it was written", got="a different SHA-256")
    return _built(header, tensors, {f"{kind.__module__}:{kind.__qualname__}": kind for kind in classes}).to(device)


def _foreign(path: Path, got: str) -> CheckpointError:
    return CheckpointError(
        str(path),
        expected="a flow written by snflow.save",
        got=got,
        fix="load run folders with snflow.train.load_flow, and files of other versions with those versions",
    )


def _digest(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_rebuilt(flow: Flow, header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Build the flow as :func:`load` will, and compare: a layer may have been replaced since it was constructed."""
    known = {f"{type(m).__module__}:{type(m).__qualname__}": type(m) for m in flow.modules()}
    try:
        rebuilt = _built(header, tensors, known)
        problem = None if repr(rebuilt) == repr(flow) else "one that prints differently"
    except CheckpointError as error:
        problem = str(error.got)
    if problem is not None:
        raise ConfigError(
            "save",
            expected="a flow as its constructors build it",
            got=f"one that was changed afterwards: rebuilding it gives {problem}",
            fix="pass the changed layers to Chain and Flow again",
        )


def _built(header: Mapping[str, str], tensors: Mapping[str, Tensor], known: Mapping[str, type]) -> Flow:
    with torch.random.fork_rng(devices=[]):  # the initial weights are drawn, and replaced
        flow = _Reader(tensors, known).value(json.loads(header["flow"]))
    if not isinstance(flow, Flow):
        raise CheckpointError("load", expected="a Flow", got=type(flow).__name__)
    flow.to(dtype=getattr(torch, header["dtype"]))
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith(_ARGUMENT)}
    try:
        flow.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise CheckpointError(
            "load",
            expected="the tensors of the flow that the file describes",
            got=" ".join(str(error).split())[:200],
            fix="load it with the version of snflow that wrote it",
        ) from error
    for name in json.loads(header["frozen"]):
        flow.get_parameter(name).requires_grad_(False)
    return flow.eval()


class _Writer:
    """Turns a flow into values of JSON, and the tensors among its arguments into entries of the file."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._written: dict[int, int] = {}
        self._alive: list[object] = []  # an id is unique only while its object exists

    def value(self, value: Any, where: str) -> Any:
        """Return the value in JSON."""
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list):
            return [self.value(item, where) for item in value]
        if isinstance(value, tuple):
            return {"tuple": [self.value(item, where) for item in value]}
        if isinstance(value, Mapping):
            return {"dict": {str(key): self.value(item, f"{where}.{key}") for key, item in value.items()}}
        if isinstance(value, Tensor):
            name = f"{_ARGUMENT}{len(self.tensors)}"
            self.tensors[name] = value.detach().cpu().clone().contiguous()
            return {"tensor": name, "parameter": isinstance(value, nn.Parameter)}
        if isinstance(value, nn.Module):
            return self._module(value, where)
        kind = value if isinstance(value, type) else type(value)
        if getattr(torch.distributions, kind.__name__, None) is kind:
            own = [name for name in inspect.signature(kind).parameters if name in vars(value)]
            named = {name: self.value(vars(value)[name], where) for name in own}
            return {"distribution": kind.__name__, "named": None if value is kind else named}
        raise ConfigError(
            f"save, {where}",
            expected="numbers, text, tensors and layers as arguments",
            got=f"a {kind.__name__}",
            fix="save flow.state_dict() and build the flow in code",
        )

    def _module(self, module: nn.Module, where: str) -> Any:
        if id(module) in self._written:
            return {"same": self._written[id(module)]}
        number = self._written[id(module)] = len(self._written)
        self._alive.append(module)
        kind, recorded = type(module), vars(module).get(CONSTRUCTED_WITH)
        where = f"{where}, {kind.__name__}"
        if recorded is not None:
            signature = inspect.signature(kind).bind(*recorded[0], **recorded[1])
            arguments, named = list(signature.args), dict(signature.kwargs)
        elif kind is nn.Sequential:
            arguments, named = list(module.children()), {}
        elif _LAYERS_OF_TORCH.get(kind.__name__, (None,))[0] is kind:
            arguments, named = [getattr(module, name) for name in _LAYERS_OF_TORCH[kind.__name__][1]], {}
            if arguments:
                named = {"bias": module.bias is not None}
        else:
            raise ConfigError(
                f"save, {where}",
                expected="a network whose constructor's arguments are known",
                got="a module of its own kind",
                fix=f"define class {kind.__name__}(nn.Module, metaclass=snflow.errors.CheckedConstructor)",
            )
        return {
            "class": f"{kind.__module__}:{kind.__qualname__}",
            "number": number,
            "arguments": [self.value(item, where) for item in arguments],
            "named": {name: self.value(item, f"{where}.{name}") for name, item in named.items()},
        }


class _Reader:
    """Builds what :class:`_Writer` has written."""

    def __init__(self, tensors: Mapping[str, Tensor], known: Mapping[str, type]) -> None:
        self._tensors, self._known = tensors, known
        self._built: dict[int, Any] = {}

    def value(self, value: Any) -> Any:
        """Return the value, with its layers built."""
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "tuple" in value:
            return tuple(self.value(item) for item in value["tuple"])
        if "dict" in value:
            return {key: self.value(item) for key, item in value["dict"].items()}
        if "tensor" in value:
            tensor = self._tensors[value["tensor"]]
            return nn.Parameter(tensor) if value["parameter"] else tensor
        if "same" in value:
            return self._built[value["same"]]
        if "distribution" in value:
            kind = getattr(torch.distributions, value["distribution"], None)
            if not (isinstance(kind, type) and issubclass(kind, Distribution)):
                raise CheckpointError("load", expected="a distribution of torch", got=value["distribution"])
            return kind if value["named"] is None else kind(**self._named(value["named"]))
        arguments = [self.value(item) for item in value["arguments"]]
        built = self._kind(value["class"])(*arguments, **self._named(value["named"]))
        self._built[value["number"]] = built
        return built

    def _named(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.value(item) for name, item in values.items()}

    def _kind(self, name: str) -> Any:
        if name in self._known:
            return self._known[name]
        module, _, qualified = name.partition(":")
        if module.startswith("torch.nn.modules."):
            kind = nn.Sequential if qualified == "Sequential" else _LAYERS_OF_TORCH.get(qualified, (None,))[0]
        else:
            ours = module.split(".")[0] == "snflow"
            kind = getattr(importlib.import_module(module), qualified, None) if ours else None
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise ConfigError(
                "load",
                expected="layers of snflow, or those listed in classes",
                got=name,
                fix=f"pass classes=[{qualified}] if you trust the file",
            )
        return kind
