"""The command line, ``snflow COMMAND``. Torch is imported only if it is needed."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from snflow import __version__
from snflow.errors import ConfigError, SnflowError, nearest

_COMMANDS = {
    "fit": "train the flow of a recipe, or continue a run",
    "evaluate": "exact likelihood of a trained run on a split of its data",
    "sample": "draw samples from a trained run into a picture or an array",
    "score": "log-density of each row of a table by a trained run, and which rows are outliers",
    "recipes": "list the recipes that come with the library, or print one",
}

_INTERRUPTED = 130

_TOO_LARGE = ("can't allocate memory", "out of memory", "overflow")
"""What torch says of a tensor that does not fit, in an error of a general kind."""

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
        The exit code: 0 for success, 2 for wrong usage or data, 3 for divergence, 4 for a damaged checkpoint, 5
        for a lost process of several, 130 and 143 for a signal.

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
        return _failed(str(error), error.exit_code)
    except KeyboardInterrupt:
        print(_STOPPED, file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # As in `snflow recipes | head`, the reader has closed the pipe.
        sys.stderr.close()
        return 0
    except OSError as error:
        return _failed(f"{error.filename or 'the disk'}: {(error.strerror or str(error)).lower()}")
    except (MemoryError, OverflowError) as error:
        return _failed(f"{' '.join(words)}: {str(error) or 'out of memory'}; use smaller numbers")
    except RuntimeError as error:
        if not any(text in str(error).lower() for text in _TOO_LARGE):
            raise  # an error in this library, whose traceback should be reported
        return _failed(f"{' '.join(words)}: out of memory ({error}); use smaller numbers")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0


def _failed(text: str, exit_code: int = SnflowError.exit_code) -> int:
    print(f"snflow: error: {' '.join(text.split())}", file=sys.stderr)
    return exit_code


_STOPPED = "snflow: interrupted"


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Handle SIGINT: end the process within an import, and raise ``KeyboardInterrupt`` elsewhere.

    The error would leave half a module behind: torch's C++ code aborts on it, and NumPy recurses without end.
    """
    caller = frame
    while caller is not None:
        if caller.f_code.co_filename == "<frozen importlib._bootstrap>":
            os.write(2, f"{_STOPPED}\n".encode())
            os._exit(_INTERRUPTED)
        caller = caller.f_back
    signal.default_int_handler(number, frame)


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
    signal.signal(signal.SIGINT, _interrupt)
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
