"""Every layer of the library, by name: a layer that is missing here fails a test."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

import snflow.bijections
import snflow.selfnorm
from snflow.bijections import Bijection
from snflow.testing import cases
from snflow.testing.case import Case


def _collected() -> dict[str, Case]:
    """Join the ``CASES`` of every module of :mod:`snflow.testing.cases`, in alphabetical order."""
    found: dict[str, Case] = {}
    for module in pkgutil.iter_modules(cases.__path__, f"{cases.__name__}."):
        entries: dict[str, Case] = importlib.import_module(module.name).CASES
        found.update(entries)
    return dict(sorted(found.items()))


CATALOGUE: dict[str, Case] = _collected()
"""Named layers, several a class where an option changes the path."""


def bijection_classes() -> set[type[Bijection]]:
    """Find every bijection class, abstract or final, that the library defines, by walking its modules."""
    found: set[type[Bijection]] = set()
    packages: tuple[ModuleType, ...] = (snflow.bijections, snflow.selfnorm)
    for package in packages:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for _, member in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                if issubclass(member, Bijection) and member.__module__.startswith("snflow."):
                    found.add(member)
    return found
