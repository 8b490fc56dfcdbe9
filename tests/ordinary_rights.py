"""Permissions that hold for root too, as whom tests run in containers."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_VERSION_3 = 0x20080522
_OVERRIDES = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: whose bearer no permission of a file stops."""


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Rights(ctypes.Structure):
    """The lower 32 and the upper 32 capabilities, each effective, permitted and inheritable."""

    _fields_ = (("low", ctypes.c_uint32 * 3), ("high", ctypes.c_uint32 * 3))


@contextmanager
def ordinary_rights() -> Iterator[None]:
    """Inside, what the permissions of files say holds for this thread and for those that it starts.

    Skips the test where root's rights cannot be laid down.
    """
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("this user may read and write anywhere")
    libc, header, rights = ctypes.CDLL(None, use_errno=True), _Header(_VERSION_3, 0), _Rights()
    if libc.capget(ctypes.byref(header), ctypes.byref(rights)):
        pytest.skip("this user may read and write anywhere")
    held = rights.low[0]
    rights.low[0] = held & ~_OVERRIDES
    if libc.capset(ctypes.byref(header), ctypes.byref(rights)):
        pytest.skip("this user may read and write anywhere")
    try:
        yield
    finally:
        rights.low[0] = held
        libc.capset(ctypes.byref(header), ctypes.byref(rights))
