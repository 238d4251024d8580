"""Names that import their module on first use, so that ``import snflow`` does not wait for torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any


def lazily(package: str, homes: Mapping[str, str], subpackages: Collection[str] = ()) -> Callable[[str], Any]:
    """Make a module's ``__getattr__`` (PEP 562) that finds each name in its home module.

    Args:
        package: the ``__name__`` of the package that exports the names.
        homes: for each exported name the module that defines it.
        subpackages: names of packages inside of this one that are exported as they are.

    Returns:
        The function to assign to ``__getattr__``.

    Example:
        >>> lazily("example", {"sqrt": "math"})("sqrt")(9.0)
        3.0
    """

    def find(name: str) -> Any:
        if name in subpackages:
            return importlib.import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return find
