"""What each pixel of a real frame is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from degstalk_ns import model_files
from degstalk_ns.landmarks.segmenter import Segmenter
from degstalk_ns.preprocess.steps import decode


def test_segmenter_finds_a_person(shared: Path) -> None:
    video = shared / "data" / "clip_a.mp4"
    if not video.is_file() or not (shared / "models" / model_files.SELFIE_SEGMENTER.name).is_file():
        pytest.skip("the clip or the segmenter's file is absent")
    _, frame = next(decode.frames(decode.probe(video)))
    with Segmenter(model_files.selfie_segmenter()) as segmenter:
        found = segmenter.confidences(frame)
    assert found.shape == (256, 256, 6)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-3)
    share = [(found.argmax(-1) == code).mean() for code in range(5)]
    assert min(share) > 0.01
