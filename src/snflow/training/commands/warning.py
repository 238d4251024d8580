"""What a command says beside its result."""

from __future__ import annotations

import sys


def warn(text: str) -> None:
    """Print a warning to the standard error stream."""
    print(f"snflow: warning: {text}", file=sys.stderr)
