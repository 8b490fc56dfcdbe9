"""One path from a row of the recording to its view, plate and true frame."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from degstalk_ns.animation.frames import FrameSource, resized
from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.dataparsers.recording import Recording, read_recording
from degstalk_ns.errors import UserError


@pytest.fixture(scope="module")
def recording(dataset: Path) -> Recording:
    return read_recording(dataset)


def test_plates_and_true_frames_are_those_of_the_files(recording: Recording) -> None:
    source = FrameSource(recording)
    for row in (0, 7, 23):
        frame = read_frame(recording, row)
        assert np.array_equal(source.plate(row), frame.plate)
        assert np.array_equal(source.plate(row, freed=True), frame.freed_plate)
        assert np.array_equal(source.truth(row), frame.image)


def test_plates_show_no_hair_in_front_where_the_avatar_knows_none(recording: Recording) -> None:
    with_hair, without, frame = FrameSource(recording), FrameSource(recording), read_frame(recording, 7)
    without.hair_in_front = False
    for freed in (False, True):
        plate, bare = with_hair.plate(7, freed=freed), without.plate(7, freed=freed)
        assert plate.shape == (64, 64, 4) and plate[..., 3].any()
        assert bare.shape == (64, 64, 3) and bare.flags.c_contiguous
        assert np.array_equal(bare, frame.bare_freed_plate if freed else frame.bare_plate)
        # Not the colours that hair has alone, which lie near the hairline of the other.
        assert not np.array_equal(bare, plate[..., :3])
    with_hair.hair_in_front = False  # what was read before is not shown any more
    assert np.array_equal(with_hair.plate(7), frame.bare_plate)
    with_hair.hair_in_front = True
    assert with_hair.plate(7, (32, 32)).shape == (32, 32, 4) and without.plate(7, (32, 32)).shape == (32, 32, 3)


def test_there_is_one_way_to_resize() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    assert resized(image, (48, 64)) is image
    small = resized(image, (24, 32))
    means = image.reshape(32, 2, 24, 2, 3).mean((1, 3))
    assert small.shape == (32, 24, 3) and np.abs(small - means).max() <= 1
    large = resized(image, (96, 128))
    assert np.array_equal(large, cv2.resize(image, (96, 128), interpolation=cv2.INTER_LINEAR))


def test_the_view_is_the_recorded_camera_at_any_size(recording: Recording) -> None:
    source = FrameSource(recording)
    own, half = source.view(3), source.view(3, (recording.width // 2, recording.height // 2))
    assert torch.equal(own.viewmat, half.viewmat) and torch.allclose(half.K[:2] * 2, own.K[:2])
    assert source.fits(own, 3) and source.fits(half, 3)
    assert source.size_within(10_000) == source.size
    assert source.size_within(recording.width // 2) == (recording.width // 2, recording.height // 2)


def test_rows_without_files_show_the_nearest(recording: Recording) -> None:
    source = FrameSource(recording)
    assert source.nearest(10_000) == 23 and source.nearest(-5) == 0
    assert np.array_equal(source.plate(10_000), source.plate(23))
    rows, path = source.path()
    assert rows.tolist() == list(range(24)) and torch.equal(path[5], source.c2w(5))


def test_a_missing_file_is_one_line(dataset_copy: Path) -> None:
    recording = read_recording(dataset_copy)
    recording.layout.plate(2).unlink(missing_ok=True)
    recording.layout.frame(2).unlink()
    with pytest.raises(UserError, match=r"2\.jpg"):
        FrameSource(recording).truth(2)
