"""UserError, the exception for mistakes that a user can correct, and how it ends a command with one line.

It must not know nerfstudio or file formats.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class UserError(Exception):
    """Bad input. The message is one line: which file or option, what was expected, what to do.

    Command lines and adapters print the message and exit with a code other than 0; library callers catch it.
    """


class UnwritableError(UserError):
    """A file cannot be written: the disk is full, or a permission is missing. What was made before is sound."""


_CAUGHT_OUTSIDE: ContextVar[bool] = ContextVar("_CAUGHT_OUTSIDE", default=False)


@contextmanager
def errors_caught_outside() -> Iterator[None]:
    """Inside, :func:`one_line_errors` lets a UserError through: whoever opened this block catches it."""
    token = _CAUGHT_OUTSIDE.set(True)
    try:
        yield
    finally:
        _CAUGHT_OUTSIDE.reset(token)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a :class:`~degstalk_ns.errors.UserError` into ``[degstalk] error: ...`` on stderr and exit code 1.

    Works as a context manager (``with one_line_errors():``) and as a decorator (``@one_line_errors()``). Any other
    exception passes through with its traceback: it is a bug of the program, not a mistake of the user.

    Raises:
        SystemExit: code 1, in place of the UserError; the UserError itself inside :func:`errors_caught_outside`.
    """
    try:
        yield
    except UserError as error:
        if _CAUGHT_OUTSIDE.get():
            raise
        # A message of several lines would no longer be one line; whitespace is all that is changed.
        print("[degstalk] error: " + " ".join(str(error).split()), file=sys.stderr, flush=True)
        raise SystemExit(1) from None
