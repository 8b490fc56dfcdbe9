"""The two rates of every dataset: video frames and audio samples per second."""

from __future__ import annotations

from typing import Final

FRAME_RATE: Final[float] = 25.0
"""Video frames per second of every dataset."""


SAMPLE_RATE: Final[int] = 16_000
"""Audio samples per second of ``aud.wav`` (mono)."""
