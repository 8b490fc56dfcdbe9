"""How every kernel here is compiled: without the GIL, cached on disk. It must not know any kernel."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


@cache
def sources_digest(folder: Path) -> str:
    """Eight hexadecimal digits of all Python files in this folder and in ``folder`` (not in folders below them)."""
    digest = hashlib.sha256()
    for place in dict.fromkeys((Path(__file__).resolve().parent, folder)):
        for path in sorted(place.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def kernel(function: Function, **options: Any) -> Function:
    """Compile a function that other Python code calls.

    Numba's cache on disk looks at the file of the kernel alone, but inlined helpers and constants of other files are
    baked into it. So the cached file's name, made of the function's qualified name, carries a digest of this folder and
    of the function's own: a kernel may use helpers and constants of these two folders, and of no other.

    Args:
        options: further ones for :func:`numba.njit`, such as ``fastmath``.
    """
    folder = Path(function.__code__.co_filename).resolve().parent
    function.__qualname__ += f".{sources_digest(folder)}"
    return njit(nogil=True, cache=True, error_model="numpy", **options)(function)  # type: ignore[return-value]


def helper(function: Function) -> Function:
    """Compile a function that kernels call: its text becomes part of theirs.

    Left a function of its own, the process that compiles it may run another copy of it, optimised differently, than the
    one the cache keeps, and the same scene has other bits in another process.
    """
    return njit(nogil=True, error_model="numpy", inline="always")(function)  # type: ignore[return-value]
