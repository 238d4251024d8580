"""``snflow recipes``."""

from __future__ import annotations

from collections.abc import Sequence

from snflow.training.config.parser import Arguments
from snflow.training.config.recipe import available_recipes, load_recipe


def recipes(argv: Sequence[str]) -> int:
    """List the recipes that come with the library: name, data, flow, what it is."""
    Arguments("snflow recipes", "List the recipes that come with the library.").parse(argv)
    loaded = {name: load_recipe(name) for name in available_recipes()}
    width = max(map(len, loaded), default=0)
    for name, recipe in loaded.items():
        print(f"{name:<{width}}  {recipe.data_name:<6} {recipe.flow_name:<6} {recipe.description}")
    return 0
