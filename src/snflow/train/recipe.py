"""Recipes: YAML files that define a run. Their options are the arguments of datasets, flows and training."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from snflow.errors import MAX_INT, ConfigError, in_digits, nearest
from snflow.train.options import DeviceOptions, OptimizerOptions, ScheduleOptions, TrainingOptions

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from snflow.data.dataset import Dataset
    from snflow.distributions.flow import Flow

OPTION_SECTIONS: dict[str, type[Any]] = {
    "optimizer": OptimizerOptions,
    "schedule": ScheduleOptions,
    "training": TrainingOptions,
    "device": DeviceOptions,
}
SECTIONS = ("data", "flow", "preprocessing", *OPTION_SECTIONS)

MAY_CHANGE_ON_RESUME = ("device.", "training.epochs", "training.patience", "training.checkpoint_", "training.threads")
"""Beginnings of the names of options that may change when a run is resumed."""


@dataclass(frozen=True)
class Recipe:
    """(data, flow, preprocessing, optimizer, schedule, training, device): everything that defines a run.

    Example:
        >>> recipe = load_recipe("digits_conv")
        >>> recipe.data["name"], recipe.flow["name"]
        ('digits', 'conv')
        >>> recipe.replace({"training.epochs": 3}).training.epochs
        3
    """

    description: str
    """Description of the run, in one line."""
    data: Mapping[str, Any]
    """``name`` of a function in :mod:`snflow.data`, and its arguments."""
    flow: Mapping[str, Any]
    """``name`` of a function in :mod:`snflow.flows`, and its arguments."""
    preprocessing: Mapping[str, Any]
    """Arguments of :func:`snflow.flows.preprocessing.preprocess`."""
    optimizer: OptimizerOptions
    """Options of Adam."""
    schedule: ScheduleOptions
    """Options of the learning-rate schedule."""
    training: TrainingOptions
    """Number of epochs, batch size, checkpoints."""
    device: DeviceOptions
    """Device, and how steps are executed; not part of the recipe's hash."""
    _parsed: Namespace = field(repr=False, compare=False)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str | None = None) -> Recipe:
        """Check a nested mapping of plain values and fill in the defaults.

        Args:
            content: sections of options, as in a YAML file.
            where: the file's name, for errors.

        Raises:
            ConfigError: a key is unknown, or a value has the wrong type or is out of range.
        """
        from jsonargparse import ArgumentError

        try:
            checked = _checked(content)
            parser = _shared_parser(*names_of(checked))
            _refuse_nulls(checked, parser)
            try:
                return cls.from_namespace(parser.parse_object(checked))
            except (ArgumentError, OverflowError) as error:
                raise explained(error, parser) from None
        except ConfigError as error:
            if where is None:
                raise
            fix = {"expected": error.expected, "got": error.got, "fix": error.fix}
            raise ConfigError(f"{where}, {error.where}", **fix) from error.__cause__

    @classmethod
    def from_namespace(cls, parsed: Namespace) -> Recipe:
        """Make a recipe from the options that its parser has read."""
        plain = parsed.as_dict()
        for section in SECTIONS:
            _check_plain(section, plain[section])
        options: dict[str, Any] = {name: kind(**plain[name]) for name, kind in OPTION_SECTIONS.items()}
        sections: dict[str, Any] = {name: plain[name] for name in SECTIONS[:3]}
        return cls(description=plain["description"], **sections, **options, _parsed=parsed)

    def replace(self, changes: Mapping[str, Any]) -> Recipe:
        """Return the recipe with some options changed.

        Args:
            changes: values by dotted name: ``{"training.seed": 1, "flow.tracking": "Newton"}``.

        Raises:
            ConfigError: a name is unknown, or a value has the wrong type or is out of range.
        """
        content = self.to_dict()
        for name, value in changes.items():
            *path, last = name.split(".")
            place = content
            for word in path:
                inner = place.setdefault(word, {})
                if not isinstance(inner, dict):
                    raise ConfigError(name, expected="an option of a section", got=f"{word}, which is a value")
                place = inner
            place[last] = value
        return Recipe.from_dict(content)

    def to_dict(self) -> dict[str, Any]:
        """Return nested mappings of plain values, with every option."""
        content: dict[str, Any] = {"description": self.description}
        for name in SECTIONS:
            value = getattr(self, name)
            content[name] = _plain(dataclasses.asdict(value) if name in OPTION_SECTIONS else value)
        return content

    def to_yaml(self) -> str:
        """Return YAML from which :func:`load_recipe` reads the same recipe."""
        text = io.StringIO()
        _yaml().dump(self.to_dict(), text)
        return text.getvalue()

    def digest(self) -> str:
        """Return the SHA-256, in hexadecimal, of the recipe without description and device, as canonical JSON."""
        content = {key: value for key, value in self.to_dict().items() if key not in ("description", "device")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def fingerprint(self) -> str:
        """Return the SHA-256, in hexadecimal, of the options that define a run: all that cannot change on resume."""
        content = {
            f"{section}.{option}": value
            for section, options in self.to_dict().items()
            if section != "description"
            for option, value in options.items()
            if not f"{section}.{option}".startswith(MAY_CHANGE_ON_RESUME)
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def load_dataset(self) -> Dataset:
        """Load the recipe's data.

        Raises:
            ConfigError, DataError: an option is out of range, or the files are missing or damaged.
        """
        name, options = self._call("data")
        return _functions("data")[name](**options)  # type: ignore[no-any-return]

    def build_flow(self, dataset: Dataset) -> Flow:
        """Build the recipe's flow for the events and contexts of a dataset, with its preprocessing.

        Raises:
            ConfigError, ShapeError: the options do not fit the data.
        """
        from snflow.flows.preprocessing import preprocess

        name, options = self._call("flow")
        build = _functions("flow")[name]
        if dataset.context_shape is not None:
            _check_conditional(name)
            options["context_shape"] = dataset.context_shape
        # the moments of the data are kept in the precision of training
        flow: Flow = build(dataset.event_shape, **options).to(self.training.dtype)
        _, around = self._call("preprocessing")
        x, context = dataset.split("train")
        return preprocess(flow, x, dataset.num_values, context=context, **around)

    def _call(self, section: str) -> tuple[str, dict[str, Any]]:
        """The name and the arguments of a section, with new instances of objects such as tracking strategies."""
        built = _shared_parser(self.data["name"], self.flow["name"]).instantiate(self._parsed.clone())
        options = built[section].as_dict()
        return options.get("name", ""), {key: value for key, value in options.items() if key != "name"}


def parser_of(data: str, flow: str) -> ArgumentParser:
    """Build a parser for all options of a recipe with this dataset and this flow.

    Args:
        data: name of a dataset.
        flow: name of a ready flow.
    """
    # The parser finds a strategy by name only if it is imported; the flows import the other two.
    import snflow.selfnorm.secant  # noqa: F401
    from snflow.flows.preprocessing import preprocess

    parser = new_parser()
    parser.add_argument("--description", type=str, default="", help="Description of the run, in one line.")
    for section, name in (("data", data), ("flow", flow)):
        parser.add_argument(f"--{section}.name", type=str, default=name, help=f"Name of the {section}.")
        parser.add_function_arguments(_functions(section)[name], section, skip={"event_shape", "context_shape"})
    parser.add_function_arguments(preprocess, "preprocessing", skip={"flow", "x", "num_values", "context"})
    add_option_sections(parser)
    for action in parser._actions:  # docstrings contain markup
        action.help = re.sub(r":\w+:`~?(?:snflow\.)?([^`]+)`", r"\1", action.help or "").replace("``", "")
    return parser


# Cached because resolving the signatures takes a tenth of a second.
_shared_parser = functools.cache(parser_of)


def names_of(content: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names of a recipe's dataset and flow.

    Raises:
        ConfigError: a name is missing or unknown.
    """
    names = []
    for section in ("data", "flow"):
        name, known = content.get(section, {}).get("name"), _functions(section)
        if not isinstance(name, str) or name not in known:
            got = "nothing" if name is None else repr(name)
            raise ConfigError(f"{section}.name", expected="a known name", got=got, fix=nearest(str(name or ""), known))
        names.append(name)
    return names[0], names[1]


def new_parser() -> ArgumentParser:
    """Make a strict parser without options, which raises errors instead of exiting."""
    # Imported here because the import takes longer than listing all recipes.
    from jsonargparse import ArgumentParser, set_parsing_settings

    # The options of training are fields of dataclasses, each followed by a docstring.
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    return ArgumentParser(prog="snflow", exit_on_error=False, allow_abbrev=False)


def add_option_sections(parser: ArgumentParser) -> None:
    """Add the options that all recipes share: optimizer, schedule, training and device."""
    for name, kind in OPTION_SECTIONS.items():
        parser.add_class_arguments(kind, name)


def _check_conditional(flow: str) -> None:
    """Reject contexts for a ready flow that takes none."""
    takes = {name for name, build in _functions("flow").items() if "context_shape" in signature(build).parameters}
    if flow not in takes:
        raise ConfigError(
            "flow.name",
            expected=f"a flow that is conditioned on contexts, one of {', '.join(sorted(takes))}",
            got=repr(flow),
            fix="choose one of these, or leave context_columns out",
        )


def _functions(section: str) -> Mapping[str, Callable[..., Any]]:
    if section == "data":
        from snflow.data import datasets

        return datasets()
    from snflow.flows import ready_flows

    return ready_flows()


def _checked(content: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping without empty sections; rejects unknown ones."""
    known = ("description", *SECTIONS)
    for key, value in content.items():
        if key not in known:
            fix = nearest(str(key), known)
            raise ConfigError(str(key) or "''", expected="a section of a recipe", got="an unknown key", fix=fix)
        if key != "description" and not isinstance(value, Mapping):
            raise ConfigError(
                key, expected="a mapping of options", got=in_digits(value), fix=f"write `{key}:` above it"
            )
        _check_plain(key, value)
    return {key: value for key, value in content.items() if value != {}}


def _check_plain(key: str, value: Any, depth: int = 0) -> None:
    """Reject what no option means: numbers that are not finite or exceed 64 bits, dates, and values without end."""
    if depth > _DEEPEST:
        raise ConfigError(key, expected=f"at most {_DEEPEST} levels of options", got="more", fix="remove its anchors")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not (isinstance(name, str) and name.isidentifier()):
                raise ConfigError(key, expected="names of options", got=in_digits(name), fix="see `snflow recipes`")
            _check_plain(f"{key}.{name}", inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_plain(key, inner, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(key, expected="a finite number", got=repr(value))
    elif isinstance(value, int) and abs(value) > MAX_INT:
        raise ConfigError(key, expected="an integer of 64 bits", got=in_digits(value))
    elif not isinstance(value, int | float | str | None):
        raise ConfigError(key, expected="a number, text, true, false or null", got=repr(value), fix="put it in quotes")


_DEEPEST = 8
"""Levels of nesting of an option; the deepest one is an argument of a tracking strategy in the section of the flow."""


def _refuse_nulls(content: Mapping[str, Any], parser: ArgumentParser) -> None:
    """Reject null for options that do not allow it; jsonargparse would treat them as unset."""
    hints = _types(parser)
    for section, options in content.items():
        for key, value in options.items() if isinstance(options, Mapping) else ():
            hint = hints.get(f"{section}.{key}")
            if value is None and hint is not None and type(None) not in (hint, *get_args(hint)):
                raise ConfigError(f"{section}.{key}", expected=_in_words(hint), got="null")


def explained(error: Exception, parser: ArgumentParser) -> ConfigError:
    """Turn an error of the parser into one of this library, with the nearest valid key."""
    text = " ".join(str(error).split())
    unknown = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", text)
    if unknown:
        section, key = unknown.groups()
        known = [name.removeprefix(f"{section}.") for name in _types(parser) if name.startswith(f"{section}.")]
        return ConfigError(
            f"{section}.{key}", expected=f"an option of {section}", got="an unknown key", fix=nearest(key, known)
        )
    missing = re.search(r"arguments are required: (.*)", text)
    if missing:
        return ConfigError("arguments", expected=missing.group(1), got="nothing", fix="see --help")
    sections = {kind.__name__: name for name, kind in OPTION_SECTIONS.items()}
    words = [sections.get(word, word) for word in re.findall(r"[\w.]+", text)]
    key = next((word for word in words if word in _types(parser) or word in SECTIONS), "options")
    if "expected one argument" in text:
        return ConfigError(f"--{key}", expected=_in_words(_types(parser)[key]), got="no value")
    value = re.search(r"(?:Got|Given) value: (?!type)(.*?)$", text)
    problem = re.search(r"(Option '\w+' is not accepted|Expected a dot import path string: \S+)", text)
    if value and key != "options" and not problem:
        return ConfigError(key, expected=_in_words(_types(parser)[key]), got=repr(value.group(1)))
    return ConfigError(key, expected="valid options", got=problem.group(1) if problem else text, fix="see --help")


def _types(parser: ArgumentParser) -> dict[str, Any]:
    """The type of every option, by dotted name."""
    actions = [action for action in parser._actions if not action.dest.endswith(".help")]
    return {action.dest: getattr(action, "_typehint", str) for action in actions}


def _in_words(hint: Any) -> str:
    """A type in words: ``an integer or null``."""
    words = {int: "an integer", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    arguments = [a for a in get_args(hint) if a is not Ellipsis]
    if hint in words:
        return words[hint]
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_in_words, arguments))
    if get_origin(hint) in (tuple, list):
        return f"a list of {', '.join(map(_in_words, arguments))}"
    return str(getattr(hint, "__name__", hint))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _yaml() -> YAML:
    """A safe YAML 1.2 reader: ``1e-3`` is a number, ``no`` is a word, and a duplicate key is an error."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    return yaml


def read_yaml(text: str, where: str) -> dict[str, Any]:
    r"""Read a YAML document that is a mapping.

    Args:
        text: the document.
        where: the file's name, for errors.

    Returns:
        The mapping; its scalars are ``None``, booleans, integers, floats and strings.

    Raises:
        ConfigError: the text is not YAML, is not a mapping with string keys, or has a duplicate key.

    Example:
        >>> read_yaml("rate: 1e-3\nword: no", "here")
        {'rate': 0.001, 'word': 'no'}
    """
    try:
        content = _yaml().load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        got = problem or str(error).partition("\n")[0]
        raise ConfigError(f"{where}{line}", expected="YAML", got=got, fix="correct the file") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(
            where,
            expected=f"a mapping with the keys {', '.join(SECTIONS)}",
            got="nothing" if content is None else type(content).__name__,
            fix="see `snflow recipes` for examples",
        )
    return content


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        ConfigError: the file cannot be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(str(path), expected="text in UTF-8", got="other bytes", fix="check the path") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(str(path), expected="a readable YAML file", got=reason, fix="check the path") from None


def available_recipes() -> dict[str, Path]:
    """Return the paths of the library's recipes, by name."""
    folder = Path(str(files("snflow"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(reference: str) -> Path:
    """Find a recipe of the library by name, or a YAML file by path.

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


def load_recipe(reference: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Load a recipe of the library by name, or from a YAML file.

    Args:
        reference: the name or the path.
        overrides: options to change, as in :meth:`Recipe.replace`.

    Raises:
        ConfigError: there is no such recipe, or it is invalid; the message names the key and the nearest valid one.
    """
    recipe = Recipe.from_dict(read_yaml(read_text(find_recipe(str(reference))), str(reference)), str(reference))
    return recipe.replace(overrides) if overrides else recipe
