"""Memory of the process."""

from __future__ import annotations

import ctypes
import os
import platform

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Numbers of the options in the C library's header."""
_WISHES = {
    TRIM_THRESHOLD: ("MALLOC_TRIM_THRESHOLD_", 2**31 - 1),
    TOP_PAD: ("MALLOC_TOP_PAD_", 64 * 2**20),
    MMAP_THRESHOLD: ("MALLOC_MMAP_THRESHOLD_", 32 * 2**20),
}


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for the next tensor of a step, where it is GNU's.

    A training step frees and asks for the same activations and gradients again and again. GNU's C library gives the
    larger ones back to the system, which then has to hand out, and clear, every page of them anew: up to a third of a
    step of a large flow. The process keeps its largest size until it ends; nothing it computes changes. A library has
    no business to decide this for the process of somebody else: only the command line calls it. What the environment
    says (``MALLOC_TRIM_THRESHOLD_`` and so on, or ``GLIBC_TUNABLES``) is left alone.

    Returns:
        Whether every wish was granted: False with another C library or where the environment decides.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    if platform.libc_ver()[0] != "glibc" or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    free = {option: wish for option, (variable, wish) in _WISHES.items() if variable not in os.environ}
    granted = [mallopt(option, wish) == 1 for option, wish in free.items()]
    return all(granted) and len(free) == len(_WISHES)
