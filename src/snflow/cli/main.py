"""The command line."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from snflow.cli.fit import fit
from snflow.cli.recipes import recipes
from snflow.cli.trained import evaluate, sample
from snflow.errors import ConfigError, SnflowError, nearest
from snflow.train.allocator import keep_freed_memory

_COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "fit": (fit, "train the flow of a recipe, or go on with a run"),
    "evaluate": (evaluate, "exact likelihood of a trained run on a split of its data"),
    "sample": (sample, "draw samples from a trained run into a picture or an array"),
    "recipes": (recipes, "list the recipes that come with the library, or print one"),
}

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words behind ``snflow``; those of the process when ``None``.

    Returns:
        The exit code: 0 done, 2 the user's error, 3 diverged, 4 a checkpoint, 130 and 143 a signal.

    Example:
        >>> main(["fitt"])
        2
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if not words or words[0] in ("-h", "--help"):
            _help()
            return 0
        if words[0] == "--version":
            print(f"snflow {version('snflow')}")
            return 0
        if words[0] not in _COMMANDS:
            raise ConfigError("snflow", expected="a command", got=repr(words[0]), fix=nearest(words[0], _COMMANDS))
        return _COMMANDS[words[0]][0](words[1:])
    except SnflowError as error:
        _complain(" ".join(str(error).split()))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        # `snflow recipes | head`: whoever read has enough.
        sys.stderr.close()
        return 0
    except OSError as error:
        _complain(f"{error.filename or 'the disk'}: {(error.strerror or str(error)).lower()}")
        return SnflowError.exit_code
    except SystemExit as stop:
        return int(stop.code or 0)


def _complain(text: str) -> None:
    print(f"snflow: {text}", file=sys.stderr)


def _help() -> None:
    parser = argparse.ArgumentParser(
        prog="snflow",
        usage="snflow COMMAND [--help] …",
        description="Normalizing flows, trained without determinants: each layer learns its own inverse.",
        epilog="start with: " + shlex.join(["snflow", "fit", "digits_conv"]),
        add_help=False,
    )
    group = parser.add_argument_group("commands (each has its own --help)")
    for name, (_, meaning) in _COMMANDS.items():
        group.add_argument(name, help=meaning)
    parser.print_help()


def command() -> int:
    """Run the words of this process: what the console script ``snflow`` is. The process is ours, its memory too."""
    keep_freed_memory()
    return main()


if __name__ == "__main__":
    sys.exit(command())
