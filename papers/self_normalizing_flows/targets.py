"""Tables and figures of the paper: their rows, the recipes of the rows, and the published numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from snflow.errors import ConfigError, nearest
from snflow.train.recipe import Recipe, load_recipe

Kind = Literal["likelihood", "time", "dimension", "samples", "angle", "curves"]


ROOT = Path(__file__).parents[2]
RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Row:
    """One row of a table, or one curve of a figure.

    Attributes:
        name: its name on the command line and in the table.
        recipe: the recipe that trains it, from the folder ``recipes`` beside this file or from the library.
        changes: values by dotted name that differ from the recipe's.
        paper: the paper's number, in the target's unit; ``None`` if the paper has none.
        exact: the row that differs by the exact gradient alone; ``None`` if there is none.
    """

    name: str
    recipe: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    paper: float | None = None
    exact: str | None = None


@dataclass(frozen=True)
class Target:
    """A table or a figure.

    Attributes:
        title: its title.
        kind: what the page is made of.
        rows: the rows.
        unit: the unit of the numbers: nats, bits per dimension, or milliseconds.
        remark: what the paper reports in words.
    """

    title: str
    kind: Kind
    rows: tuple[Row, ...]
    unit: Literal["nats", "bits/dim", "ms"] = "nats"
    remark: str = ""

    def chosen(self, patterns: str | None) -> tuple[Row, ...]:
        """The rows whose names match one of the patterns, which are separated by commas; all rows for ``None``.

        Raises:
            ConfigError: a pattern matches no row.
        """
        if patterns is None:
            return self.rows
        names = [row.name for row in self.rows]
        wanted = [p.strip() for p in patterns.split(",") if p.strip()]
        for pattern in wanted:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigError(
                    "--rows",
                    expected="names of rows, or patterns such as dense_*",
                    got=repr(pattern),
                    fix=nearest(pattern, names),
                )
        return tuple(row for row in self.rows if any(fnmatchcase(row.name, p) for p in wanted))


def reference_of(recipe: str) -> str:
    """What ``snflow fit`` calls a recipe: the path of one of the paper's own from the root, or a name of the library.

    Example:
        >>> reference_of("digits_conv")
        'digits_conv'
    """
    own = RECIPES / f"{recipe}.yaml"
    return own.relative_to(ROOT).as_posix() if own.is_file() else recipe


def recipe_of(row: Row, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Load the row's recipe with the row's changes, then with those of the command line.

    Raises:
        ConfigError: a change does not fit the recipe.
    """
    return named_recipe(row.recipe, {**row.changes, **(changes or {})})


def named_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Load a recipe of the folder ``recipes`` beside this file, or of the library, by name."""
    own = RECIPES / f"{name}.yaml"
    return load_recipe(own if own.is_file() else name, changes)


def _tracking(name: str, **options: Any) -> dict[str, Any]:
    return {"flow.tracking": {"class_path": name, "init_args": options}}


_TRACKED = _tracking("Newton")
_PENALTY = _tracking("Penalty")
_MILD = {**_tracking("Penalty", weight=0.1), "optimizer.learning_rate": 5e-4}
"""The fastest of the schedules tried at which the penalty alone keeps the inverse accurate."""
_GUARDED = _tracking("Penalty", weight=0.001)
"""A penalty too weak to keep the inverse accurate, so that the guard repairs it from time to time."""
_EXACT = {"flow.log_det_rule": "exact"}
_ANGLE = {"training.measure_angle": True}

_DENSE = (
    Row("dense_relative", "mnist_dense_relative", paper=1096.5),
    Row("dense_exact", "mnist_dense_exact", paper=947.6),
    Row("dense_snf", "mnist_dense_snf", paper=947.1, exact="dense_exact"),
    Row("dense_newton", "mnist_dense_snf", _TRACKED, exact="dense_exact"),
    Row("dense_exact_fast", "mnist_dense_newton", _EXACT),
    Row("dense_snf_fast", "mnist_dense_newton", _PENALTY, exact="dense_exact_fast"),
    Row("dense_snf_mild_fast", "mnist_dense_newton", _MILD),
    Row("dense_snf_guarded_fast", "mnist_dense_newton", _GUARDED, exact="dense_exact_fast"),
    Row("dense_newton_fast", "mnist_dense_newton", exact="dense_exact_fast"),
    Row("dense_newton_tight_fast", "mnist_dense_newton", _tracking("Newton", tolerance=0.02), exact="dense_exact_fast"),
)
_CONV = (
    Row("conv_emerging", "mnist_conv_emerging", paper=645.7),
    Row("conv_snf", "mnist_conv_snf", paper=638.6, exact="conv_exact"),
    Row("conv_exponential", "mnist_conv_exponential", paper=638.1),
    Row("conv_exact", "mnist_conv_exact", paper=637.4),
    Row("conv_newton", "mnist_conv_newton", exact="conv_exact"),
    Row("conv_exact_by_rows", "mnist_conv_exact", {"flow.log_det_rule": "exact_by_rows"}, exact="conv_exact"),
)
_GLOW = (
    Row("glow_exact", "mnist_glow_exact", paper=575.7),
    Row("glow_snf", "mnist_glow_snf", paper=575.4, exact="glow_exact"),
    Row("glow_newton", "mnist_glow_snf", _TRACKED, exact="glow_exact"),
)
_DIGITS = (
    Row("digits_exact", "digits_glow_exact"),
    Row("digits_snf", "digits_glow_snf", exact="digits_exact"),
    Row("digits_newton", "digits_glow_newton", exact="digits_exact"),
)
_LAMBDAS = (0.1, 1.0, 10.0, 100.0, 1000.0)
_SMALL_LAMBDAS = (0.001, 0.01)


def _table4() -> tuple[Row, ...]:
    models = {"dense": "mnist_dense_snf", "conv": "mnist_conv_snf", "glow": "mnist_glow_snf"}
    return tuple(
        Row(f"{model}_{weight:g}{suffix}", recipe, _tracking("Penalty", weight=weight, **guard))
        for model, recipe in models.items()
        for suffix, guard in (("", {}), ("_unguarded", {"guard": False}))
        for weight in (*_SMALL_LAMBDAS, *_LAMBDAS)
    )


def _with_angles(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return tuple(replace(row, changes={**row.changes, **_ANGLE}) for row in rows)


def _named(rows: tuple[Row, ...], *names: str) -> tuple[Row, ...]:
    return tuple(row for row in rows if row.name in names)


TARGETS: dict[str, Target] = {
    "table1": Target("MNIST, exact test NLL", "likelihood", (*_DENSE, *_CONV, *_GLOW, *_DIGITS)),
    "table2": Target(
        "CIFAR-10 and ImageNet32, exact test likelihood",
        "likelihood",
        (
            Row("cifar10_exact", "cifar10_glow_exact", paper=3.36),
            Row("cifar10_snf", "cifar10_glow_snf", paper=3.37, exact="cifar10_exact"),
            Row("imagenet32_exact", "imagenet32_glow_exact", paper=4.12),
            Row("imagenet32_snf", "imagenet32_glow_snf", paper=4.14, exact="imagenet32_exact"),
        ),
        unit="bits/dim",
    ),
    "table3": Target(
        "Time of a training batch and of a sample",
        "time",
        (
            Row("dense_exact", "mnist_dense_exact", paper=44.9),
            Row("dense_relative", "mnist_dense_relative", paper=7.0),
            Row("dense_snf", "mnist_dense_snf", paper=18.7),
            Row("dense_newton", "mnist_dense_snf", _TRACKED),
            *(Row(row.name, row.recipe, row.changes) for row in (*_CONV, *_GLOW)),
        ),
        unit="ms",
        remark="The paper's times were taken on another machine: compare ratios, not milliseconds. In the paper the "
        "exact gradient takes 2.4 times as long as the self-normalized one for the dense model, and 1.75 times as long "
        "for the convolutional model.",
    ),
    "table4": Target(
        "MNIST, exact test NLL by the penalty weight λ",
        "likelihood",
        _table4(),
        remark="The paper varies λ from 0.1 to 1000 without a guard. It reports divergence for the dense model at 0.1 "
        "and for Glow up to 10.",
    ),
    "table5": Target(
        "MNIST, Glow 2L-4K of width 16, λ by GECO, exact test NLL",
        "likelihood",
        (
            Row("exact_1x1", "mnist_glow4k_exact_geco", paper=678.3),
            Row("snf_1x1", "mnist_glow4k_snf1_geco", paper=678.3, exact="exact_1x1"),
            Row("snf_5x5", "mnist_glow4k_snf5_geco", paper=669.9),
            Row("digits_exact_1x1", "digits_glow4k_exact_geco"),
            Row("digits_snf_1x1", "digits_glow4k_snf1_geco", exact="digits_exact_1x1"),
            Row("digits_snf_5x5", "digits_glow4k_snf5_geco"),
        ),
    ),
    "figure2": Target(
        "Samples by the exact and by the learned inverse",
        "samples",
        _named((*_DENSE, *_CONV), "dense_snf", "dense_newton_fast", "conv_snf", "conv_newton"),
    ),
    "figure3": Target(
        "Angle between the self-normalized and the exact gradient",
        "angle",
        _with_angles(
            _named(
                (*_DENSE, *_CONV),
                "dense_snf",
                "dense_newton",
                "dense_newton_fast",
                "dense_newton_tight_fast",
                "conv_snf",
                "conv_newton",
            )
        ),
    ),
    "figure4": Target(
        "Time of a training batch by dimension",
        "dimension",
        (
            Row("exact", "mnist_dense_exact"),
            Row("relative", "mnist_dense_relative"),
            Row("snf", "mnist_dense_snf"),
            Row("newton", "mnist_dense_snf", _TRACKED),
        ),
        unit="ms",
    ),
    "figure5": Target(
        "Exact validation NLL by time and by epoch",
        "curves",
        (
            *_named(_DENSE, "dense_exact", "dense_snf", "dense_exact_fast", "dense_snf_fast", "dense_newton_fast"),
            *_named(_CONV, "conv_exact", "conv_snf", "conv_newton"),
        ),
    ),
}


def find_target(name: str) -> Target:
    """Find the table or figure of that name.

    Raises:
        ConfigError: the paper has no such table or figure.

    Example:
        >>> find_target("table5").rows[0].paper
        678.3
    """
    if name not in TARGETS:
        raise ConfigError(
            "target", expected="a table or a figure of the paper", got=repr(name), fix=nearest(name, TARGETS)
        )
    return TARGETS[name]
