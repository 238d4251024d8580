"""Checks of constructor arguments that several layers share."""

from __future__ import annotations

import math
from typing import get_args

from snflow.errors import ConfigError, nearest


def check_choice(where: str, option: str, value: str, choices: object) -> None:
    """Refuse a word that is not among those of a ``Literal``.

    Args:
        where: who asks.
        option: the name of the argument.
        value: the word.
        choices: the ``Literal`` type.

    Raises:
        ConfigError: the word is unknown; the message has the nearest right one.

    Example:
        >>> from typing import Literal
        >>> check_choice("Dense", "log_det_rule", "exact", Literal["exact", "relative"])
    """
    known: tuple[str, ...] = get_args(choices)
    if value not in known:
        expected = f"{option} to be one of {', '.join(known)}"
        raise ConfigError(where, expected=expected, got=repr(value), fix=nearest(str(value), known))


def check_count(where: str, option: str, value: int) -> None:
    """Refuse a number of things that is not a whole number of one or more.

    Raises:
        ConfigError: the number is below one.
    """
    if value < 1 or int(value) != value:
        raise ConfigError(where, expected=f"{option} ≥ 1", got=str(value), fix="give a positive whole number")


def check_kernel(where: str, kernel_size: int) -> None:
    """Refuse a kernel that cannot keep the image size.

    Raises:
        ConfigError: the size is even or below one.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        expected = "an odd kernel_size, so that padding keeps the image size"
        fix = f"use {max(1, kernel_size - 1)} or {max(1, kernel_size + 1)}"
        raise ConfigError(where, expected=expected, got=str(kernel_size), fix=fix)


def check_weight(where: str, option: str, value: float) -> None:
    """Refuse a weight of a penalty that is negative or not finite.

    Raises:
        ConfigError: the weight is below zero, infinite or not a number.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(where, expected=f"{option} ≥ 0 and finite", got=str(value), fix="the paper's value is 1")


def check_option(section: str, options: object, field: str, holds: bool, expected: str) -> None:
    """Refuse an option of a recipe that is out of range, by the path that it has there.

    Args:
        section: the section of the recipe.
        options: the dataclass of options.
        field: the option.
        holds: whether it is in its range.
        expected: the range, in words.

    Raises:
        ConfigError: it is not.
    """
    if not holds:
        raise ConfigError(f"{section}.{field}", expected=expected, got=repr(getattr(options, field)))
