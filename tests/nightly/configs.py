"""Recipes that are mutated at random."""

from __future__ import annotations

from pathlib import Path

from cli.mutations import check_mutation
from nightly.check import Found, check


@check(
    "mutated recipes and overrides: a recipe that reads back identically, or one line with the key's path or the "
    "file's line",
    nightly=20_000,
    chunk=1000,
)
def mutated_recipes(seed: int, folder: Path) -> Found:
    """One mutation."""
    return Found(counted={"refused" if check_mutation(seed) else "read": 1})
