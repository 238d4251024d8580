"""``snflow fit``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snflow.cli.arguments import Arguments, changed, common_sections, first_positional, overridden, value_of
from snflow.errors import ConfigError
from snflow.train.recipe import Recipe, find_recipe, load_recipe
from snflow.train.run_folder import RunFolder
from snflow.train.typed import field_types

if TYPE_CHECKING:
    from rich.console import Console

_MAY_CHANGE_ON_RESUME = ("device.", "training.epochs", "training.patience", "training.checkpoint_", "training.threads")


def fit(argv: Sequence[str]) -> int:
    """Train the flow of a recipe, or go on with a run."""
    resumed = value_of(argv, "--resume")
    reference = first_positional(argv)
    if resumed is not None and reference is not None:
        raise ConfigError("snflow fit", expected="a recipe or --resume RUN", got="both", fix="leave one of them out")
    base = RunFolder(Path(resumed)).recipe() if resumed else load_recipe(reference) if reference else None
    values = _arguments(base, reference).parse(argv)
    if base is None:
        raise ConfigError("snflow fit", expected="a recipe", got="none", fix="`snflow recipes` lists them")
    recipe = overridden(base, values)
    if resumed is not None:
        return _resume(base, recipe, Path(resumed), values, argv)
    out = Path(values["out"] or f"runs/{find_recipe(str(reference)).stem}")
    if values["compare"] is not None:
        return _compare(recipe, out, values["compare"], argv)
    return _run([(str(recipe.flow_name), recipe, out)], argv)


def _arguments(recipe: Recipe | None, reference: str | None) -> Arguments:
    """The options of this recipe, or those of any."""
    arguments = Arguments(
        "snflow fit RECIPE [--key value …]",
        "Train the flow of a recipe into a run folder." if recipe is None or reference is None else recipe.description,
        None if recipe else "`snflow fit RECIPE --help` shows the options of that recipe's data and flow as well.",
    )
    arguments.positional("recipe", "name of a recipe (`snflow recipes`), or path of a YAML file", required=False)
    arguments.option("out", str | None, None, "the run folder; null is runs/RECIPE")
    arguments.option("resume", str | None, None, "instead of a recipe: the run folder to go on with")
    arguments.option(
        "compare",
        str | None,
        None,
        "train a second time with this flow.log_det_rule, into subfolders of the run folder, and compare",
    )
    for name, options in common_sections() if recipe is None else recipe.sections().items():
        arguments.section(name, options)
    return arguments


def _resume(base: Recipe, recipe: Recipe, run: Path, values: dict[str, Any], argv: Sequence[str]) -> int:
    for option in ("out", "compare"):
        if values[option] is not None:
            raise ConfigError(f"--{option}", expected="nothing of the kind with --resume", got=repr(values[option]))
    for name in changed(base, recipe):
        if not name.startswith(_MAY_CHANGE_ON_RESUME):
            raise ConfigError(
                f"--{name}",
                expected="the value that the run began with",
                got="another one",
                fix="only epochs, patience, checkpoints, threads and device may change; or start another --out",
            )
    return _run([(recipe.flow_name, recipe, run)], argv, resume=True)


def _compare(recipe: Recipe, out: Path, rule: str, argv: Sequence[str]) -> int:
    if "log_det_rule" not in field_types(type(recipe.flow)):
        raise ConfigError("--compare", expected="a flow with a log_det_rule", got=f"the flow {recipe.flow_name!r}")
    if recipe.flow.log_det_rule == rule:
        raise ConfigError("--compare", expected="another rule than the recipe's", got=repr(rule))
    other = overridden(recipe, {"flow.log_det_rule": rule})
    own = recipe.flow.log_det_rule
    return _run([(own, recipe, out / own), (rule, other, out / rule)], argv)


def _run(runs: list[tuple[str, Recipe, Path]], argv: Sequence[str], *, resume: bool = False) -> int:
    """Train one after the other and show what came of them."""
    from rich.console import Console

    from snflow.train.fit import fit as train
    from snflow.train.progress import show

    console = Console(highlight=False)
    command = shlex.join(["snflow", "fit", *argv])
    finished = []
    for name, recipe, out in runs:
        result = train(recipe, out, resume=resume, command=command, console=console)
        if result.signal is not None:
            _say(console, f"stopped by a signal; a checkpoint is written: snflow fit --resume {out}")
            return 128 + result.signal
        if result.summary is not None:
            finished.append((name, out, result.summary))
    if finished:
        show(console, finished)
    return 0


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
