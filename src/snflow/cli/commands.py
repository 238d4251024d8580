"""The commands ``fit``, ``evaluate``, ``sample``, ``score`` and ``recipes``, whose options are their signatures."""

from __future__ import annotations

import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from snflow.errors import (
    MAX_INT,
    ConfigError,
    DataWarning,
    NumericalWarning,
    check_count,
    check_positive,
    check_seed,
    nearest,
)
from snflow.train.recipe import (
    MAY_CHANGE_ON_RESUME,
    Recipe,
    add_option_sections,
    available_recipes,
    explained,
    find_recipe,
    load_recipe,
    names_of,
    new_parser,
    parser_of,
    read_text,
    read_yaml,
)
from snflow.train.run_folder import RunFolder

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

SHORT = {
    "--epochs": "--training.epochs",
    "--seed": "--training.seed",
    "--batch_size": "--training.batch_size",
    "--learning_rate": "--optimizer.learning_rate",
    "--device": "--device.accelerator",
}
"""Short forms of common options of ``fit``."""

_MEANT = {"--lr": "--learning_rate", "--bs": "--batch_size", "--gpu": "--device", "--output": "--out"}
"""Names in use elsewhere, which are not similar to ours."""

_MOST_SAMPLES = 10**7


_ONE_LINE = (NumericalWarning, DataWarning)


def run(name: str, argv: Sequence[str]) -> int:
    """Run a command with these arguments, and return the exit code; print each of our warnings in one line."""
    with warnings.catch_warnings():
        for kind in _ONE_LINE:
            warnings.simplefilter("default", kind)
        warnings.showwarning = _show_warning
        return _run(name, argv)


def _run(name: str, argv: Sequence[str]) -> int:
    if name == "fit":
        return _fit(argv)
    if name == "recipes" and not argv:
        _list_recipes()  # without the parser, whose import takes longer than printing the list
        return 0
    functions: dict[str, Callable[..., None]] = {
        "evaluate": evaluate,
        "sample": sample,
        "score": score,
        "recipes": show_recipe,
    }
    function = functions[name]
    parser = new_parser()
    parser.prog, parser.description = f"snflow {name}", _summary(function)
    parser.add_function_arguments(function, as_group=False, as_positional=True)
    words = ["--n" if word == "-n" else word for word in argv]
    function(**vars(_parsed(parser, words)))
    return 0


def evaluate(
    run: str,
    *,
    split: Literal["train", "validation", "test"] = "test",
    checkpoint: str = "best",
    batch_size: int | None = None,
    device: str = "cpu",
) -> None:
    """Print the exact negative log-likelihood of a trained run on a split of its data, summed in float64.

    Args:
        run: Folder of the run.
        split: Split of the data.
        checkpoint: "best" by validation, "last", or the step of a checkpoint.
        batch_size: Number of rows evaluated at a time; null for the recipe's eval_batch_size.
        device: Torch device, such as cpu or cuda.
    """
    if batch_size is not None:
        check_count("--batch_size", "batch_size", batch_size, most=MAX_INT)

    import math

    from snflow.distributions.flow import bits_per_dim
    from snflow.train.evaluation import estimated_nll
    from snflow.train.run_folder import load_run, move

    loaded = load_run(run, checkpoint, _warn)
    flow, training = loaded.flow, loaded.recipe.training
    dataset = loaded.load_dataset()
    move(flow, device)
    rows, context = dataset.split(split)
    nll, error = estimated_nll(flow, rows, batch_size or training.eval_batch_size, training.seed, context)
    bits = "" if dataset.num_values is None else f", {bits_per_dim(nll, math.prod(dataset.event_shape)):.6f} bits/dim"
    kind, margin = ("exact", "") if error is None else ("estimated", f" ± {error:.2g}")
    print(f"{kind} {split} NLL of the {checkpoint} checkpoint: {nll:.6f}{margin} nats{bits}, {len(rows)} rows")


def sample(
    run: str,
    *,
    n: int = 100,
    inverse: Literal["learned", "exact", "refined"] = "exact",
    out: str = "samples.png",
    context: dict[str, float] | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    checkpoint: str = "best",
    device: str = "cpu",
) -> None:
    """Draw samples from a trained run.

    Args:
        run: Folder of the run.
        n: Number of samples.
        inverse: Inversion method of self-normalizing layers: one pass of the learned inverse, a factorization, or an
            iterative solver.
        out: File to write: .png for a picture, .csv for a table, .npy for an array of shape (n, *event).
        context: Value of each column on which the density is conditioned, as in '{age: 40, dose: 2}'.
        temperature: Factor on the scale of the latents.
        seed: Seed of the latents.
        checkpoint: "best" by validation, "last", or the step of a checkpoint.
        device: Torch device, such as cpu or cuda.
    """
    path = Path(out)
    if path.suffix not in (".png", ".npy", ".csv"):
        raise ConfigError("--out", expected="a file that ends in .png, .npy or .csv", got=repr(out))
    check_count("--n", "n", n, most=_MOST_SAMPLES)
    check_seed("--seed", "seed", seed)
    check_positive("--temperature", "temperature", temperature)

    import numpy as np
    import torch

    from snflow.data.tables import write_table
    from snflow.train import pictures
    from snflow.train.run_folder import load_run, move

    loaded = load_run(run, checkpoint, _warn)
    flow, columns = loaded.flow, loaded.columns
    if path.suffix == ".csv" and columns is None:
        raise ConfigError(
            "--out", expected="a file that ends in .png or .npy", got=repr(out), fix="only tables are .csv"
        )
    given = loaded.context(context)
    move(flow, device)
    generator = torch.Generator(flow.base.device).manual_seed(seed)
    if given is not None:
        given = given.to(flow.base.device)
    drawn = flow.sample(n, given, inverse=inverse, temperature=temperature, generator=generator).cpu()
    drawn = drawn if given is None else drawn[:, 0]
    if columns is not None and columns.discrete.any():
        drawn = torch.from_numpy(columns.table(drawn.double().numpy()))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npy":
            np.save(path, drawn.numpy())
        elif columns is not None and path.suffix == ".csv":
            digits = 9 if flow.base.dtype == torch.float32 else 17
            write_table(path, columns, drawn.double().numpy(), digits)
        else:
            pictures.draw_rows(path, flow, drawn)
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise ConfigError("--out", expected="a writable file", got=str(error)) from error
    print(f"{len(drawn)} samples by the {inverse} inverse: {out}")


def score(
    run: str,
    table: str,
    *,
    out: str = "scores.csv",
    quantile: float = 0.05,
    batch_size: int | None = None,
    checkpoint: str = "best",
    device: str = "cpu",
) -> None:
    """Write a table with two more columns: the log-density of each row by a trained run, and whether it is an outlier.

    Args:
        run: Folder of the run.
        table: File with the columns of the run's table, contexts included, in any order, and possibly with others.
        out: File to write: the lines of the table, with the columns log_prob, in nats, and outlier, 0 or 1.
        quantile: Share of the validation data whose densities are below those that are not outliers.
        batch_size: Number of rows evaluated at a time; null for the recipe's eval_batch_size.
        checkpoint: "best" by validation, "last", or the step of a checkpoint.
        device: Torch device, such as cpu or cuda.
    """
    if batch_size is not None:
        check_count("--batch_size", "batch_size", batch_size, most=MAX_INT)
    if not 0 <= quantile <= 1:
        raise ConfigError("--quantile", expected="a number from 0 to 1", got=repr(quantile))

    from snflow.train.run_folder import load_run, move
    from snflow.train.scores import Scores

    loaded = load_run(run, checkpoint, _warn)
    move(loaded.flow, device)
    scores = Scores.of(loaded, Path(table), quantile, batch_size)
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        with open(out, "w", encoding="utf-8", newline="") as file:
            file.writelines(scores.lines())
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise ConfigError("--out", expected="a writable file", got=str(error)) from error
    count = int(scores.outliers.sum())
    print(
        f"{len(scores.outliers)} rows, mean log-density {float(scores.log_prob.mean()):.6f} nats; {count} outliers "
        f"below {scores.threshold:.6f} nats, the {quantile:g} quantile of the validation data: {out}"
    )


def show_recipe(recipe: str) -> None:
    """Print a recipe, as in `snflow recipes digits_conv > mine.yaml`; without a name, list the library's recipes.

    Args:
        recipe: Name of a recipe, or path of a YAML file to check.
    """
    load_recipe(recipe)
    print(read_text(find_recipe(recipe)), end="")


def _list_recipes() -> None:
    # Description, data and flow come first in the library's recipes; parsing the rest would take most of the time.
    tops = {name: read_text(path).partition("\npreprocessing:")[0] for name, path in available_recipes().items()}
    loaded = {name: read_yaml(top.partition("\noptimizer:")[0], name) for name, top in tops.items()}
    rows = [(name, c["data"]["name"], c["flow"]["name"], c["description"]) for name, c in loaded.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for *cells, description in rows:
        print("  ".join([*(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)), description]))


def _fit(argv: Sequence[str]) -> int:
    """Train the flow of a recipe, or continue a run."""
    words = _expanded(argv)
    given = dict(_options(words))
    resumed, reference = given.get("--resume"), _first_positional(words)
    if resumed is not None and reference is not None:
        raise ConfigError("snflow fit", expected="a recipe or --resume RUN", got="both", fix="omit one of them")
    base = RunFolder(Path(resumed)).recipe() if resumed else load_recipe(reference) if reference else None
    content = {} if base is None else base.to_dict()
    for section in ("data", "flow"):
        name = given.get(f"--{section}.name")
        if base is not None and name not in (None, content[section]["name"]):
            content[section] = {"name": name}  # a different dataset or flow has different options
    parsed = _parsed(_fit_parser(content), words)
    if base is None:
        raise ConfigError("snflow fit", expected="a recipe", got="none", fix="`snflow recipes` lists them")
    out, compare = parsed.pop("out"), parsed.pop("compare")
    for name in ("recipe", "resume"):
        parsed.pop(name)
    recipe = Recipe.from_namespace(parsed)
    if resumed is not None:
        for option, value in (("--out", out), ("--compare", compare)):
            if value is not None:
                raise ConfigError(option, expected="no such option with --resume", got=repr(value))
        _check_resumed(base, recipe)
        return _train([("", recipe, Path(resumed))], argv, resume=True)
    folder = Path(out or f"runs/{find_recipe(str(reference)).stem}")
    if compare is None:
        return _train([(recipe.flow["name"], recipe, folder)], argv)
    rule = recipe.flow.get("log_det_rule")
    if rule is None:
        raise ConfigError("--compare", expected="a flow with a log_det_rule", got=f"the flow {recipe.flow['name']!r}")
    if rule == compare:
        raise ConfigError("--compare", expected="a rule that differs from the recipe's", got=repr(rule))
    other = recipe.replace({"flow.log_det_rule": compare})
    return _train([(rule, recipe, folder / rule), (compare, other, folder / compare)], argv)


def _fit_parser(content: Mapping[str, Any]) -> ArgumentParser:
    """The options of a recipe, with its values as defaults; without a recipe, those that all recipes share."""
    parser = parser_of(*names_of(content)) if content else new_parser()
    parser.prog = "snflow fit"
    parser.usage = "snflow fit RECIPE [--key value …]"
    parser.description = content.get("description") or "Train the flow of a recipe into a run folder."
    short = ", ".join(f"{name} for {full}" for name, full in SHORT.items())
    more = "" if content else "`snflow fit RECIPE --help` also lists the options of that recipe's data and flow. "
    parser.epilog = f"{more}Short forms: {short}."
    parser.add_argument(
        "recipe", type=str, nargs="?", help="Name of a recipe (`snflow recipes`), or path of a YAML file."
    )
    parser.add_argument("--out", type=str | None, help="Run folder; null for runs/RECIPE.")
    parser.add_argument("--resume", type=str | None, help="Run folder to continue, instead of a recipe.")
    parser.add_argument(
        "--compare",
        type=str | None,
        help="Train again with this flow.log_det_rule, in a subfolder of the run folder, and compare.",
    )
    if content:
        sections = {name: options for name, options in content.items() if isinstance(options, Mapping)}
        parser.set_defaults(
            {f"{name}.{key}": value for name, options in sections.items() for key, value in options.items()}
        )
        parser.set_defaults(description=content["description"])
    else:
        add_option_sections(parser)
    return parser


def _check_resumed(before: Recipe, after: Recipe) -> None:
    """Reject changes that are not possible when a run is resumed."""
    old, new = before.to_dict(), after.to_dict()
    for section, options in new.items():
        for option, value in options.items() if isinstance(options, dict) else ():
            name = f"{section}.{option}"
            if old[section].get(option) != value and not name.startswith(MAY_CHANGE_ON_RESUME):
                raise ConfigError(
                    f"--{name}",
                    expected="the value with which the run began",
                    got="a different one",
                    fix="only epochs, patience, checkpoints, threads and device may change; or start a new --out",
                )


def _train(runs: list[tuple[str, Recipe, Path]], argv: Sequence[str], *, resume: bool = False) -> int:
    """Train one recipe after the other, and print the results."""
    from snflow.train.fit import fit
    from snflow.train.progress import show, terminal

    console = terminal()
    command = shlex.join(["snflow", "fit", *argv])
    finished = []
    for name, recipe, out in runs:
        result = fit(recipe, out, resume=resume, command=command, console=console)
        if result.signal is not None:
            return 128 + result.signal
        if result.summary is not None:
            finished.append((name or recipe.flow["name"], out, result.summary))
    if finished:
        show(console, finished)
    return 0


def _expanded(argv: Sequence[str]) -> list[str]:
    """The arguments, with short forms written out."""
    words = []
    for word in argv:
        name, equals, value = word.partition("=")
        words.append(SHORT.get(name, name) + equals + value)
    return words


def _options(words: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Each option with its value; every option takes exactly one value.

    Raises:
        ConfigError: an option is given twice.
    """
    seen = set()
    for position, word in enumerate(words):
        name, equals, value = word.partition("=")
        if not word.startswith("--"):
            continue
        if name in seen and not name.endswith("+"):
            raise ConfigError(name, expected="each option once", got="a second value", fix="drop one of them")
        seen.add(name)
        yield name, value if equals else next(iter(words[position + 1 :]), "")


def _first_positional(words: Sequence[str]) -> str | None:
    rest = iter(words)
    for word in rest:
        if word in ("-h", "--help"):
            continue
        if not word.startswith("-"):
            return word
        if "=" not in word:
            next(rest, None)
    return None


def _parsed(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """Parse the arguments of a command, and raise this library's errors."""
    from jsonargparse import ArgumentError

    dict(_options(words))
    try:
        return parser.parse_args(list(words))
    except OverflowError:
        key = next((name for name, value in _options(words) if re.search(r"\d{300}", value)), "arguments")
        raise ConfigError(key, expected="numbers of 64 bits", got="a larger one") from None
    except ArgumentError as error:
        unknown = re.search(r"[Uu]nrecognized arguments: (\S+)", str(error))
        if unknown is None:
            raise explained(error, parser) from None
        word = unknown.group(1).partition("=")[0]
        if not word.startswith("-"):
            raise ConfigError(
                "arguments", expected="nothing more", got=word, fix="write options as --key value"
            ) from None
        known = [*SHORT, *(name for action in parser._actions for name in action.option_strings)]
        meant = _MEANT.get(word)
        fix = f"did you mean {meant!r}?" if meant in known else nearest(word, known)
        raise ConfigError(word, expected="an option of this command", got="an unknown one", fix=fix) from None


def _summary(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").partition("\n")[0]


def _warn(text: str) -> None:
    print(f"snflow: warning: {' '.join(text.split())}", file=sys.stderr)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning about numbers or data as one line, and others as Python does, with their place in the source."""
    if issubclass(category, _ONE_LINE):
        _warn(str(message))
    else:
        (file or sys.stderr).write(warnings.formatwarning(message, category, filename, lineno, line))
