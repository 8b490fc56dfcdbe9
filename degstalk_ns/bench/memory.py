"""How much memory this process holds, and has held at most. It must not know what for."""

from __future__ import annotations

import sys

import psutil

MIB = 2**20


def resident_memory() -> float:
    """Memory of this process that lies in RAM now, MiB."""
    return psutil.Process().memory_info().rss / MIB


def peak_resident_memory() -> float:
    """The most memory of this process that has lain in RAM so far, MiB.

    POSIX systems carry this number over when a process starts another program: a benchmark that a larger program
    starts reports at least what that program held then.
    """
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / MIB
    import resource  # POSIX only

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB
