"""The command line, ``snflow COMMAND``. Torch is imported only when there is work for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from snflow import __version__
from snflow.errors import ConfigError, SnflowError, nearest

_COMMANDS = {
    "fit": "train the flow of a recipe, or continue a run",
    "evaluate": "exact likelihood of a trained run on a split of its data",
    "sample": "draw samples from a trained run into a picture or an array",
    "recipes": "list the recipes that come with the library, or print one",
}

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``snflow``; those of the process when ``None``.

    Returns:
        The exit code: 0 done, 2 wrong usage, 3 training diverged, 4 a bad checkpoint, 130 and 143 a signal.

    Example:
        >>> main(["fitt"])
        2
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_help())
            return 0
        if words[0] == "--version":
            print(f"snflow {__version__}")
            return 0
        if words[0] not in _COMMANDS:
            raise ConfigError("snflow", expected="a command", got=repr(words[0]), fix=nearest(words[0], _COMMANDS))
        from snflow.cli import commands

        return commands.run(words[0], words[1:])
    except SnflowError as error:
        _complain(" ".join(str(error).split()))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        # `snflow recipes | head`: the reader has closed the pipe.
        sys.stderr.close()
        return 0
    except OSError as error:
        _complain(f"{error.filename or 'the disk'}: {(error.strerror or str(error)).lower()}")
        return SnflowError.exit_code
    except SystemExit as stop:
        return int(stop.code or 0)


def _complain(text: str) -> None:
    print(f"snflow: {text}", file=sys.stderr)


def _help() -> str:
    width = max(map(len, _COMMANDS))
    lines = [f"  {name:<{width}}  {meaning}" for name, meaning in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: snflow COMMAND [--help] …",
            "",
            "Normalizing flows, trained without determinants: each layer learns its own inverse.",
            "",
            "commands (each has its own --help):",
            *lines,
            "",
            "start with: snflow fit digits_conv",
        ]
    )


def command() -> int:
    """Run the words of this process: the console script ``snflow``."""
    from snflow.train.allocator import keep_freed_memory

    keep_freed_memory()
    return main()
