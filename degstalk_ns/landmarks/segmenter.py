"""MediaPipe's multiclass selfie segmenter on one image: what each pixel is made of.

It must not know regions of a portrait, nor files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import mediapipe as mp
import numpy as np
from mediapipe.tasks import python as tasks
from mediapipe.tasks.python import vision
from numpy.typing import NDArray

SEGMENTER_SIZE: Final[int] = 256
"""Side of the image that the segmenter sees, pixels (its model card)."""


class Segmenter:
    """Class confidences of one image. One instance serves one thread at a time; close it when done."""

    def __init__(self, model: Path) -> None:
        self._task = vision.ImageSegmenter.create_from_options(
            vision.ImageSegmenterOptions(
                base_options=tasks.BaseOptions(model_asset_buffer=model.read_bytes()),
                running_mode=vision.RunningMode.IMAGE,
                output_category_mask=False,
                output_confidence_masks=True,
            )
        )

    def confidences(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB [H, W, 3] uint8 -> [256, 256, 6] probabilities of the segmenter's classes."""
        small = cv2.resize(frame, (SEGMENTER_SIZE, SEGMENTER_SIZE), interpolation=cv2.INTER_AREA)
        result = self._task.segment(mp.Image(image_format=mp.ImageFormat.SRGB, data=small))
        masks = [mask.numpy_view().reshape(SEGMENTER_SIZE, SEGMENTER_SIZE) for mask in result.confidence_masks]
        return np.stack(masks, -1)

    def close(self) -> None:
        self._task.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
