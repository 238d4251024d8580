"""Strict YAML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from snflow.errors import ConfigError


class _StrictLoader(yaml.SafeLoader):
    """The safe loader with YAML 1.2's idea of a number and a boolean, and without tags, merges and dates."""

    # The class variables are replaced, not edited: the parent's are shared by every user of PyYAML in the process.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_PLAIN_SCALARS = (
    ("tag:yaml.org,2002:null", r"(?:null|~|)$", ("n", "~", "")),
    ("tag:yaml.org,2002:bool", r"(?:true|false)$", ("t", "f")),
    ("tag:yaml.org,2002:int", r"[-+]?(?:0|[1-9][0-9]*)$", tuple("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.inf)$",
        tuple("-+.0123456789"),
    ),
)
for _tag, _pattern, _first in _PLAIN_SCALARS:
    _StrictLoader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise ConfigError(f"line {line}", expected="a word as key", got=repr(key), fix="put it in quotes")
        if key in result:
            raise ConfigError(
                f"line {line}", expected="each key once", got=f"{key!r} a second time", fix="delete one of the two"
            )
        result[key] = loader.construct_object(value_node, deep=True)
    return result


def _float(loader: _StrictLoader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node)
    return float(text.replace(".inf", "inf"))


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _float)


def read_yaml(text: str, where: str) -> dict[str, Any]:
    r"""text → a nested mapping with words as keys.

    Args:
        text: the YAML document.
        where: the file's name, for the errors.

    Returns:
        The mapping; its scalars are ``None``, booleans, integers, floats and strings.

    Raises:
        ConfigError: the text is no YAML, no mapping, or has a key twice.

    Example:
        >>> read_yaml("rate: 1e-3\nword: no", "here")
        {'rate': 0.001, 'word': 'no'}
    """
    try:
        content = yaml.load(text, Loader=_StrictLoader)
    except ConfigError as error:
        raise ConfigError(f"{where}, {error.where}", expected=error.expected, got=error.got, fix=error.fix) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "characters that it cannot have"
        raise ConfigError(f"{where}{line}", expected="YAML", got=str(problem), fix="mend the file") from None
    except (RecursionError, ValueError):
        raise ConfigError(
            where, expected="YAML", got="a document nested too deeply, or a number out of range"
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(
            where,
            expected="a mapping with the keys data, flow, optimizer, schedule, training",
            got="nothing" if content is None else type(content).__name__,
            fix="see `snflow recipes` for examples",
        )
    return content


def read_yaml_file(path: Path) -> dict[str, Any]:
    """Read the mapping in a file, as :func:`read_yaml`.

    Raises:
        ConfigError: the file cannot be read, is not text, or is not strict YAML.
    """
    return read_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Read a file of text.

    Raises:
        ConfigError: the file cannot be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            str(path), expected="a readable YAML file", got=_reason(error), fix="check the path"
        ) from None


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (
        "bytes that are not UTF-8" if isinstance(error, UnicodeDecodeError) else (error.strerror or str(error)).lower()
    )
