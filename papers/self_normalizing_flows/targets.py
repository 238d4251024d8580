"""Tables and figures of the paper: their rows and published numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from snflow.errors import ConfigError, nearest

Kind = Literal["likelihood", "time", "dimension", "samples", "angle", "curves"]


@dataclass(frozen=True)
class Row:
    """One row of a table, or one curve of a figure.

    Attributes:
        name: how it is called on the command line and in the table.
        recipe: the recipe that trains it.
        changes: what is changed in the recipe, by ``section.option``.
        paper: the paper's number, in the target's unit; ``None`` where the paper has none.
        exact: the row that differs by the exact gradient alone; ``None`` where there is none.
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
        title: what it shows.
        kind: what is made of the runs.
        rows: the runs.
        unit: of the numbers in the table: nats, bits a dimension, or milliseconds.
        remark: what the paper says that is no number.
    """

    title: str
    kind: Kind
    rows: tuple[Row, ...]
    unit: Literal["nats", "bits/dim", "ms"] = "nats"
    remark: str = ""

    def chosen(self, patterns: str | None) -> tuple[Row, ...]:
        """The rows whose names match one of the patterns, which commas separate; all of them for ``None``.

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
                    expected="names of rows, or patterns like dense_*",
                    got=repr(pattern),
                    fix=nearest(pattern, names),
                )
        return tuple(row for row in self.rows if any(fnmatchcase(row.name, p) for p in wanted))


_TRACKED = {"flow.inverse_tracking": "newton"}
_PENALTY = {"flow.inverse_tracking": "penalty"}
_MILD = {**_PENALTY, "flow.penalty_weight": 0.1, "optimizer.learning_rate": 5e-4}
"""What the penalty alone can follow, of what was tried."""
_GUARDED = {**_PENALTY, "flow.penalty_weight": 0.001}
"""A penalty too weak to follow, the guard repairing the inverse now and then."""
_EXACT = {"flow.log_det_rule": "exact"}
_ANGLE = {"training.measure_angle": True}
_UNGUARDED = {"flow.guard": False}

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
    Row("dense_newton_tight_fast", "mnist_dense_newton", {"flow.tracking_tolerance": 0.02}, exact="dense_exact_fast"),
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
        Row(f"{model}_{weight:g}{suffix}", recipe, {"flow.penalty_weight": weight, **guard})
        for model, recipe in models.items()
        for suffix, guard in (("", {}), ("_unguarded", _UNGUARDED))
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
        remark="The paper's times are of its own machine: ratios can be compared, milliseconds cannot. Its ratio of "
        "the exact gradient's time to the self-normalized one's is 2.4 for the dense model, 1.75 for the "
        "convolutional one.",
    ),
    "table4": Target(
        "MNIST, exact test NLL by the penalty weight λ",
        "likelihood",
        _table4(),
        remark="The paper has λ from 0.1 to 1000, and reports divergence for the dense model at 0.1 and for Glow up to "
        "10; it has no guard.",
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
    """The table or figure of that name.

    Raises:
        ConfigError: there is none.

    Example:
        >>> find_target("table5").rows[0].paper
        678.3
    """
    if name not in TARGETS:
        raise ConfigError(
            "snflow reproduce", expected="a table or a figure of the paper", got=repr(name), fix=nearest(name, TARGETS)
        )
    return TARGETS[name]
