"""A visible watermark, the word "synthetic", on every frame. It must not know videos or models."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

TEXT: Final[str] = "synthetic"
HEIGHT: Final[float] = 0.035
"""Height of the letters as a fraction of the shorter side of the image: readable, and clear of the face. Chosen for
this project."""
MARGIN: Final[float] = 0.025
"""Distance from the corner as a fraction of the shorter side of the image. Chosen for this project."""
STRENGTH: Final[float] = 0.8
"""Opacity of the letters (0 to 1); their dark outline keeps them readable on any background. Chosen for this
project."""


class Watermark:
    """The watermark for images of one size, prepared once."""

    def __init__(self, width: int, height: int, text: str = TEXT) -> None:
        side = min(width, height)
        font, thickness = cv2.FONT_HERSHEY_SIMPLEX, max(round(side / 400), 1)
        scale = cv2.getFontScaleFromHeight(font, max(round(HEIGHT * side), 5), thickness)
        (length, _), below = cv2.getTextSize(text, font, scale, thickness)
        scale *= min(1.0, 0.9 * width / max(length, 1))  # a tiny image still gets the whole word
        (length, _), below = cv2.getTextSize(text, font, scale, thickness)
        margin = round(MARGIN * side)
        place = (max(width - margin - length, 0), height - margin - below)
        letters, outline = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
        cv2.putText(letters, text, place, font, scale, (255,), thickness, cv2.LINE_AA)
        cv2.putText(outline, text, place, font, scale, (255,), 3 * thickness, cv2.LINE_AA)
        rows, columns = np.flatnonzero(outline.any(1)), np.flatnonzero(outline.any(0))
        self._box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        white, dark = (mask[self._box][..., None].astype(np.float32) / 255 for mask in (letters, outline))
        self._keep = 1 - STRENGTH * np.maximum(white, dark)
        self._add = STRENGTH * 255 * white

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """``image`` [H, W, 3] uint8 with the mark in its lower right corner; a copy."""
        marked = image.copy()
        marked[self._box] = (marked[self._box] * self._keep + self._add + 0.5).astype(np.uint8)
        return marked
