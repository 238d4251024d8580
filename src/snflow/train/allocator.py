"""Memory allocation of the process."""

from __future__ import annotations

import ctypes
import os
import platform

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Option numbers from the C library's header."""
_WISHES = {
    TRIM_THRESHOLD: ("MALLOC_TRIM_THRESHOLD_", 2**31 - 1),
    TOP_PAD: ("MALLOC_TOP_PAD_", 64 * 2**20),
    MMAP_THRESHOLD: ("MALLOC_MMAP_THRESHOLD_", 32 * 2**20),
}


def keep_freed_memory() -> bool:
    """Make GNU's C library keep freed memory for reuse by the next training step.

    Each training step allocates and frees the same activations and gradients. By default the C library returns large
    blocks to the system, which must then map and clear every page again: up to a third of the time of a step of a
    large flow. With this setting the process keeps its peak size until it ends; results do not change. Only the
    command line calls it, since a library should not change the allocator of its host process. Settings in the
    environment (``MALLOC_TRIM_THRESHOLD_`` and others, ``GLIBC_TUNABLES``) take precedence.

    Returns:
        Whether all settings were applied: False with another C library or when the environment sets one of them.

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
