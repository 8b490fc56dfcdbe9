"""The two rates that everything here runs at: frames of video and samples of sound."""

from __future__ import annotations

from typing import Final

FRAME_RATE: Final[float] = 25.0
"""Frames per second of every dataset."""


SAMPLE_RATE: Final[int] = 16_000
"""Samples per second of ``aud.wav`` (mono)."""
