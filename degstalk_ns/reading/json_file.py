"""JSON files, and numbers in them. It must not know what any of them is for."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

from degstalk_ns.errors import UserError
from degstalk_ns.reading.access import refuse_unreadable

LARGEST_JSON: Final[int] = 256 << 20
"""Two hours of cameras are 60 MB."""


def read_json(path: Path, remedy: str) -> Any:
    """What ``path`` holds.

    Raises:
        UserError: missing, too large, or no JSON.
    """
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise UserError(
                f"{path}: {path.stat().st_size >> 20} MB of JSON; at most {LARGEST_JSON >> 20} are accepted"
            )
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        refuse_unreadable(path)
        raise UserError(f"{path}: not readable as JSON ({error}); {remedy}") from None


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and no integer of hundreds of digits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def shown(value: Any, most: int = 60) -> str:
    """A value in a message, shortened."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "an integer that is too long"
    return text if len(text) <= most else f"{text[:most]}..."
