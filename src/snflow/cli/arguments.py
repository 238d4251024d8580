"""x"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from snflow.errors import ConfigError, nearest
from snflow.train.options import OptimizerOptions, ScheduleOptions, TrainingOptions
from snflow.train.recipe import Recipe
from snflow.train.typed import describe, field_meanings, field_types

SHORT = {
    "training.epochs": "--epochs",
    "training.seed": "--seed",
    "training.batch_size": "--batch_size",
    "optimizer.learning_rate": "--learning_rate",
    "device.accelerator": "--device",
    "n": "-n",
}
"""The commonest options, by their full name, and how they may be written for short."""


class Arguments:
    """argv → values: a jsonargparse parser whose every option takes one value, and which knows what a typo meant.

    Args:
        usage: how the command is called: ``snflow fit RECIPE [--key value …]``.
        description: what the command does.
        epilog: what the help says at its end.
    """

    def __init__(self, usage: str, description: str, epilog: str | None = None) -> None:
        self._parser = ArgumentParser(
            prog="snflow", usage=usage, description=description, epilog=epilog, exit_on_error=False
        )
        self._hints: dict[str, Any] = {}
        self._spellings: dict[str, str] = {}
        self._positionals: list[str] = []

    def positional(self, name: str, meaning: str, *, required: bool = True) -> None:
        """Take an argument by its place."""
        self._positionals.append(name)
        if required:
            self._parser.add_argument(name, type=str, help=meaning)
        else:
            self._parser.add_argument(name, type=str | None, nargs="?", help=meaning)

    def option(self, name: str, hint: Any, default: Any, meaning: str, group: Any = None) -> None:
        """Take ``--name value``, with the type ``hint``."""
        self._hints[name] = hint
        self._spellings[f"--{name}"] = name
        if name in SHORT:
            self._spellings[SHORT[name]] = name
            meaning = f"{meaning} For short: {SHORT[name]}."
        (group or self._parser).add_argument(f"--{name}", type=hint, default=default, help=meaning.replace("%", "%%"))

    def section(self, name: str, options: Any) -> None:
        """Take every field of an options dataclass, with its present value as default."""
        kind = type(options)
        summary = " ".join((kind.__doc__ or name).strip().split("\n\n")[0].split())
        group = self._parser.add_argument_group(name, summary)
        meanings = field_meanings(kind)
        for field, hint in field_types(kind).items():
            self.option(f"{name}.{field}", hint, getattr(options, field), meanings.get(field, field), group)

    def parse(self, argv: Sequence[str]) -> dict[str, Any]:
        """Argv → the value of each option and place, by its full name.

        Raises:
            ConfigError: an option is unknown (with the nearest right one), has no value, or one of the wrong type.
            SystemExit: after the help was printed, with code 0.
        """
        given, others = self._scan(argv)
        try:
            parsed = self._parser.parse_args([*others, *(f"--{name}={value}" for name, value in given.items())])
        except ArgumentError as error:
            raise self._explained(error, given) from None
        return {name: parsed.get(name) for name in (*self._positionals, *self._hints)}

    def _scan(self, argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
        """The options with their values, by full name, and the other words; refuses what the parser would guess at."""
        given: dict[str, str] = {}
        others: list[str] = []
        words = iter(argv)
        for word in words:
            spelling, equals, value = word.partition("=")
            if word in ("-h", "--help") or not word.startswith("-"):
                others.append(word)
                continue
            name = self._spellings.get(spelling)
            if name is None:
                raise ConfigError(
                    spelling, expected="an option of this command", got="an unknown one", fix=self._nearest(spelling)
                )
            if name in given:
                raise ConfigError(spelling, expected="each option once", got="a second value", fix="drop one of them")
            following = value if equals else next(words, None)
            if following is None or following in self._spellings:
                raise ConfigError(spelling, expected=describe(self._hints[name]), got="no value")
            given[name] = following
        return given, others

    def _nearest(self, spelling: str) -> str:
        hint = nearest(spelling, self._spellings)
        return "--help lists them" if hint.startswith("known") else hint

    def _explained(self, error: Exception, given: Mapping[str, str]) -> ConfigError:
        """The parser's complaint in this library's words."""
        key = re.search(r"[Kk]ey \"?([\w.]+)", str(error))
        if key and key.group(1) in given:
            name = key.group(1)
            return ConfigError(f"--{name}", expected=describe(self._hints[name]), got=repr(given[name]))
        unrecognized = re.search(r"unrecognized arguments: (.*)", str(error), re.IGNORECASE)
        if unrecognized:
            fix = "write options as --key value; --help lists them"
            return ConfigError("arguments", expected="nothing more", got=unrecognized.group(1), fix=fix)
        return ConfigError(
            "arguments", expected="a complete command", got=" ".join(str(error).split()), fix="see --help"
        )


def first_positional(argv: Sequence[str]) -> str | None:
    """The first argument that is neither an option nor an option's value: options take one value each.

    Example:
        >>> first_positional(["--epochs", "3", "digits_conv"])
        'digits_conv'
    """
    words = iter(argv)
    for word in words:
        if word in ("-h", "--help"):
            continue
        if not word.startswith("-"):
            return word
        if "=" not in word:
            next(words, None)
    return None


def value_of(argv: Sequence[str], option: str) -> str | None:
    """The value that follows an option, wanted before the whole parser can be built.

    Example:
        >>> value_of(["--resume=runs/a"], "--resume")
        'runs/a'
    """
    for position, word in enumerate(argv):
        spelling, equals, value = word.partition("=")
        if spelling == option:
            return value if equals else next(iter(argv[position + 1 :]), None)
    return None


def overridden(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with the values of ``section.option`` names put in.

    Raises:
        ConfigError: a value has the wrong type or is out of range.
    """
    content = recipe.to_dict()
    for name, value in values.items():
        section, dot, option = name.partition(".")
        if dot:
            content[section][option] = value
    return Recipe.from_dict(content)


def changed(before: Recipe, after: Recipe) -> list[str]:
    """The ``section.option`` names in which two recipes differ."""
    return [
        f"{section}.{option}"
        for section, options in after.to_dict().items()
        if isinstance(options, Mapping)
        for option, value in options.items()
        if before.to_dict()[section].get(option, _ABSENT) != value
    ]


_ABSENT = object()


def common_sections() -> Iterable[tuple[str, Any]]:
    """The sections that every recipe has, at their defaults."""
    return (("optimizer", OptimizerOptions()), ("schedule", ScheduleOptions()), ("training", TrainingOptions()))
