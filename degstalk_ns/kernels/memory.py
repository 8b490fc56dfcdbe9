"""Freed memory is kept for the next step instead of being handed back to the system. It must not know who asks for it.

A training step allocates and frees the same tensors of some megabytes again and again. By default the C library returns
blocks of that size to the system at once, which then clears every page anew: a third of a step on two cores.
"""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
KEPT_BELOW = 32 << 20
"""Bytes: blocks below are kept; the most that glibc takes. The largest tensor of a step at 1024 x 1024 has 20 MiB."""
KEPT_ON_TOP = 512 << 20
"""Bytes: so much may lie unused at the end of the heap before it is returned. A step's tensors are 100 to 200 MiB."""

HEAPS = 2
"""The main heap, and one for all other threads. By default there are up to eight for every core, and each would keep
its own freed memory: with the threads of every page that opens, some hundred MiB more."""


def keep_freed_memory() -> bool:
    """Tells the C library to keep what is freed; for the whole process.

    Returns:
        Whether it could be told: only glibc (Linux) offers it. Elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_MMAP_THRESHOLD, KEPT_BELOW), (_TRIM_THRESHOLD, KEPT_ON_TOP), (_ARENA_MAX, HEAPS))
    return all([mallopt(name, value) == 1 for name, value in settings])
