"""``snflow recipes``."""

from __future__ import annotations

from collections.abc import Sequence

from snflow.cli.arguments import Arguments
from snflow.train.recipe import available_recipes, find_recipe, load_recipe
from snflow.train.strict_yaml import read_text


def recipes(argv: Sequence[str]) -> int:
    """List the recipes that come with the library: name, data, flow, what it is; or print one, as it is written."""
    arguments = Arguments(
        "snflow recipes [RECIPE]",
        "List the recipes that come with the library, or print one: a file to begin with.",
        epilog="snflow recipes digits_conv > mine.yaml, then snflow fit mine.yaml",
    )
    arguments.positional("recipe", "the one to print; without it, all are listed", required=False)
    chosen = arguments.parse(argv)["recipe"]
    if chosen is not None:
        load_recipe(chosen)  # a file of one's own is checked on the way
        print(read_text(find_recipe(chosen)), end="")
        return 0
    loaded = {name: load_recipe(name) for name in available_recipes()}
    width = max(map(len, loaded), default=0)
    for name, recipe in loaded.items():
        print(f"{name:<{width}}  {recipe.data_name:<6} {recipe.flow_name:<6} {recipe.description}")
    return 0
