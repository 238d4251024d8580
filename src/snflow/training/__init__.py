"""Recipes, runs and the command line: a flow trained on data, in a folder that can be continued and looked into."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snflow.lazy import lazily

if TYPE_CHECKING:
    from snflow.training.config.recipe import Recipe as Recipe
    from snflow.training.config.recipe import available_recipes as available_recipes
    from snflow.training.config.recipe import load_recipe as load_recipe
    from snflow.training.fitting import FitResult as FitResult
    from snflow.training.fitting import fit as fit
    from snflow.training.runs import RunFolder as RunFolder
    from snflow.training.runs import load_flow as load_flow

_HOMES = {
    "FitResult": "snflow.training.fitting",
    "Recipe": "snflow.training.config.recipe",
    "RunFolder": "snflow.training.runs",
    "available_recipes": "snflow.training.config.recipe",
    "fit": "snflow.training.fitting",
    "load_flow": "snflow.training.runs",
    "load_recipe": "snflow.training.config.recipe",
}
__all__ = sorted(_HOMES)

# The command line's --help reads the options of this package and must not wait for torch.
__getattr__ = lazily(__name__, _HOMES)
