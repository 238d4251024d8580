"""The command line, ``snflow COMMAND``. Torch is imported only if it is needed."""

from __future__ import annotations

import ctypes
import os
import platform
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

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Option numbers of ``mallopt`` in the C library's header."""
_SETTINGS = {
    TRIM_THRESHOLD: ("MALLOC_TRIM_THRESHOLD_", 2**31 - 1),
    TOP_PAD: ("MALLOC_TOP_PAD_", 64 * 2**20),
    MMAP_THRESHOLD: ("MALLOC_MMAP_THRESHOLD_", 32 * 2**20),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments after ``snflow``; those of the process if ``None``.

    Returns:
        The exit code: 0 for success, 2 for wrong usage or data, 3 for divergence, 4 for a damaged checkpoint, 130 and
        143 for a signal.

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
        # As in `snflow recipes | head`, the reader has closed the pipe.
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
            "Normalizing flows, trained without an expensive determinant: each layer learns its own inverse.",
            "",
            "commands (use --help after each for its options):",
            *lines,
            "",
            "start with: snflow fit digits_conv",
        ]
    )


def command() -> int:
    """Run the arguments of this process; the console script ``snflow``."""
    keep_freed_memory()
    return main()


def keep_freed_memory() -> bool:
    """Make GNU's C library keep freed memory for reuse by the next training step.

    Each training step allocates and frees the same activations and gradients. By default the C library returns large
    blocks to the system, which must then map and clear every page again; this takes up to a third of the time of a
    training step of a large flow. With this setting the process keeps its peak size until it ends; results do not
    change. Only the command line calls it, because a library should not change the allocator of its host process.
    Settings in the environment (``MALLOC_TRIM_THRESHOLD_`` and others, ``GLIBC_TUNABLES``) take precedence.

    Returns:
        Whether all settings were applied: False with another C library or when the environment sets one of them.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    if platform.libc_ver()[0] != "glibc" or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    free = {option: value for option, (variable, value) in _SETTINGS.items() if variable not in os.environ}
    applied = [mallopt(option, value) == 1 for option, value in free.items()]
    return all(applied) and len(free) == len(_SETTINGS)
