"""Recipes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from snflow.data.dataset import DATASETS
from snflow.errors import ConfigError, nearest
from snflow.flows.options import FLOWS
from snflow.train.options import DeviceOptions, OptimizerOptions, ScheduleOptions, TrainingOptions
from snflow.train.strict_yaml import read_yaml_file
from snflow.train.typed import build

_FIXED_SECTIONS: dict[str, type[Any]] = {
    "optimizer": OptimizerOptions,
    "schedule": ScheduleOptions,
    "training": TrainingOptions,
    "device": DeviceOptions,
}


@dataclass(frozen=True)
class Recipe:
    """(data, flow, optimizer, schedule, training, device): all that decides a run.

    Example:
        >>> recipe = load_recipe("digits_conv")
        >>> recipe.data_name, recipe.flow_name
        ('digits', 'conv')
    """

    description: str
    """What the run shows, in one line."""
    data_name: str
    """Registered name of the dataset."""
    flow_name: str
    """Registered name of the architecture."""
    data: Any
    """Options of the dataset, an instance of ``DATASETS[data_name]``."""
    flow: Any
    """Options of the architecture, an instance of ``FLOWS[flow_name]``."""
    optimizer: OptimizerOptions
    """Options of Adam."""
    schedule: ScheduleOptions
    """Options of the learning rate's course."""
    training: TrainingOptions
    """How long, in which batches, what is kept."""
    device: DeviceOptions
    """Where it computes."""

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str | None = None) -> Recipe:
        """A nested mapping, as in the YAML file → the recipe.

        Args:
            content: ``data`` and ``flow`` with their ``name``; every other key has a default.
            where: the file's name, for the errors; ``None`` for options that come from no file.

        Raises:
            ConfigError: a name or a key is unknown, or a value has the wrong type or is out of range.
        """
        try:
            return cls._from_dict(content)
        except ConfigError as error:
            if where is None:
                raise
            raise ConfigError(
                f"{where}, {error.where}", expected=error.expected, got=error.got, fix=error.fix
            ) from error.__cause__

    @classmethod
    def _from_dict(cls, content: Mapping[str, Any]) -> Recipe:
        known = ("description", "data", "flow", *_FIXED_SECTIONS)
        for key in content:
            if key not in known:
                raise ConfigError(
                    key, expected="a key of a recipe", got="one that it does not have", fix=nearest(key, known)
                )
        sections: dict[str, dict[str, Any]] = {}
        for key in known[1:]:
            section = content.get(key, {})
            if not isinstance(section, Mapping):
                raise ConfigError(
                    key, expected="a mapping of options", got=repr(section), fix=f"write `{key}:` over it"
                )
            sections[key] = dict(section)
        description = content.get("description", "")
        if not isinstance(description, str):
            raise ConfigError("description", expected="text", got=repr(description), fix="put it in quotes")
        data_name = _registered(sections["data"], "data", DATASETS)
        flow_name = _registered(sections["flow"], "flow", FLOWS)
        return cls(
            description=description,
            data_name=data_name,
            flow_name=flow_name,
            data=build(DATASETS[data_name], sections["data"], "data", ("name",)),
            flow=build(FLOWS[flow_name], sections["flow"], "flow", ("name",)),
            **{key: build(kind, sections[key], key) for key, kind in _FIXED_SECTIONS.items()},
        )

    def sections(self) -> dict[str, Any]:
        """Map the name of each section to its options."""
        return {key: getattr(self, key) for key in ("data", "flow", *_FIXED_SECTIONS)}

    def to_dict(self) -> dict[str, Any]:
        """The recipe → a nested mapping of plain values, every option spelt out."""
        content: dict[str, Any] = {"description": self.description}
        for key, options in self.sections().items():
            content[key] = {"name": getattr(self, f"{key}_name")} if key in ("data", "flow") else {}
            content[key] |= {field.name: _plain(getattr(options, field.name)) for field in dataclasses.fields(options)}
        return content

    def to_yaml(self) -> str:
        """The recipe → the YAML text that :func:`load_recipe` reads to the same recipe."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def digest(self) -> str:
        """SHA-256 of the recipe as canonical JSON, in hexadecimal, without description and device."""
        content = {key: value for key, value in self.to_dict().items() if key not in ("description", "device")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _registered(section: dict[str, Any], key: str, registry: Mapping[str, type[Any]]) -> str:
    """Take the name out of a section and find it in its registry."""
    name = section.pop("name", None)
    if not isinstance(name, str) or name not in registry:
        raise ConfigError(
            f"{key}.name",
            expected="a registered name",
            got="nothing" if name is None else repr(name),
            fix=nearest(str(name or ""), registry),
        )
    return name


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def available_recipes() -> dict[str, Path]:
    """The recipes that come with the library, by name."""
    folder = Path(str(files("snflow"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(reference: str) -> Path:
    """A registered name or the path of a YAML file → the path.

    Raises:
        ConfigError: there is no such recipe.

    Example:
        >>> find_recipe("digits_conv").name
        'digits_conv.yaml'
    """
    registered = available_recipes()
    if reference in registered:
        return registered[reference]
    path = Path(reference)
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        raise ConfigError(
            reference,
            expected="the name of a recipe or the path of a YAML file",
            got="neither",
            fix=nearest(reference, registered),
        )
    return path


def load_recipe(reference: str | Path) -> Recipe:
    """A registered name or the path of a YAML file → the recipe.

    Raises:
        ConfigError: there is no such recipe, or it is wrong; the message has the key and the nearest right one.
    """
    path = find_recipe(str(reference))
    return Recipe.from_dict(read_yaml_file(path), str(reference))
