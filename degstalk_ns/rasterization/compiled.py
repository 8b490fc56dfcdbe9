"""How every kernel here is compiled: without the GIL, cached on disk. It must not know any kernel."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

_SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))
VERSION = _SOURCES.hexdigest()[:8]


def kernel(function: Function) -> Function:
    """Compile a function that other Python code calls.

    Numba's cache on disk looks at the file of the kernel alone, but inlined helpers and constants of other files are
    baked into it. So the cached file's name, made of the function's qualified name, carries a digest of this folder.
    """
    function.__qualname__ += f".{VERSION}"
    return njit(nogil=True, cache=True, error_model="numpy")(function)  # type: ignore[return-value]


def helper(function: Function) -> Function:
    """Compile a function that kernels call: its text becomes part of theirs.

    Left a function of its own, the process that compiles it may run another copy of it, optimised differently, than the
    one the cache keeps, and the same scene has other bits in another process.
    """
    return njit(nogil=True, error_model="numpy", inline="always")(function)  # type: ignore[return-value]
