"""Recipes: what a run does, as typed options read from strict YAML and from the command line. Free of torch."""

from snflow.training.config.options import DeviceOptions, OptimizerOptions, ScheduleOptions, TrainingOptions
from snflow.training.config.recipe import Recipe, available_recipes, find_recipe, load_recipe
from snflow.training.config.strict_yaml import read_yaml

__all__ = [
    "DeviceOptions",
    "OptimizerOptions",
    "Recipe",
    "ScheduleOptions",
    "TrainingOptions",
    "available_recipes",
    "find_recipe",
    "load_recipe",
    "read_yaml",
]
