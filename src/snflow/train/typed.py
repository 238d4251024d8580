"""x"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import math
import textwrap
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from snflow.errors import ConfigError, nearest


def describe(hint: Any) -> str:
    """A type → how to say it: ``a whole number``, ``one of 'a', 'b'``.

    Example:
        >>> describe(int | None)
        'a whole number or null'
    """
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in names:
        return names[hint]
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(describe(a) for a in arguments)
    if origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        return f"a list, each item {describe(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)}: " + ", ".join(describe(a) for a in arguments)
    return str(getattr(hint, "__name__", hint))


def conform(value: Any, hint: Any) -> Any:
    """Return the value as its type says (an integer for a float becomes one, a list a tuple), or raise ValueError.

    Example:
        >>> conform([1, 2], tuple[float, float])
        (1.0, 2.0)
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        # `1 == True` and `1 == 1.0`: the type has to be the same too.
        if any(type(value) is type(a) and value == a for a in arguments):
            return value
    elif origin in (Union, types.UnionType):
        for member in arguments:
            try:
                return conform(value, member)
            except ValueError:
                continue
    elif origin is tuple:
        if isinstance(value, list | tuple):
            if arguments[-1] is Ellipsis:
                return tuple(conform(item, arguments[0]) for item in value)
            if len(value) == len(arguments):
                return tuple(conform(item, member) for item, member in zip(value, arguments, strict=True))
    elif origin is list:
        if isinstance(value, list | tuple):
            return [conform(item, arguments[0]) for item in value]
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value):
            return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    elif hint is type(None) and value is None:
        return None
    raise ValueError(f"not {describe(hint)}")


def build(kind: type[Any], values: Mapping[str, Any], where: str, known_elsewhere: tuple[str, ...] = ()) -> Any:
    """values → an instance of the options dataclass ``kind``.

    Args:
        kind: a dataclass of options.
        values: what a recipe says.
        where: the path of the section, for the errors: ``training``.
        known_elsewhere: keys of the section that are no fields, offered as corrections too.

    Raises:
        ConfigError: a key is unknown, a required one is missing, a value has the wrong type or is out of range.
    """
    hints = field_types(kind)
    for key in values:
        if key not in hints:
            raise ConfigError(
                f"{where}.{key}",
                expected=f"an option of {where}",
                got="one that it does not have",
                fix=nearest(key, [*hints, *known_elsewhere]),
            )
    for field in dataclasses.fields(kind):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in values:
            raise ConfigError(
                f"{where}.{field.name}", expected=describe(hints[field.name]), got="nothing", fix="add it to the recipe"
            )
    typed = {}
    for key, value in values.items():
        try:
            typed[key] = conform(value, hints[key])
        except ValueError:
            raise ConfigError(f"{where}.{key}", expected=describe(hints[key]), got=repr(value)) from None
    return kind(**typed)


def field_types(kind: type[Any]) -> dict[str, Any]:
    """The type of each field of a dataclass."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def field_meanings(kind: type[Any]) -> dict[str, str]:
    """What the string under each field of a dataclass says, its own and its parents'."""
    meanings: dict[str, str] = {}
    for parent in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(parent):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(parent))).body[0]
        statements = body.body if isinstance(body, ast.ClassDef) else []
        for field, note in itertools.pairwise(statements):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(note, ast.Expr)
                and isinstance(note.value, ast.Constant)
            ):
                meanings[field.target.id] = " ".join(str(note.value.value).split())
    return meanings
