"""The pictures, masks and plates of one frame."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from dataset_edits import refuses

from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.dataparsers.options import ReadOptions
from degstalk_ns.dataparsers.recording import Recording, read_recording
from degstalk_ns.errors import UserError
from degstalk_ns.plates.build import frame_plate
from degstalk_ns.plates.hair import hair_matte, with_hair_in_front


@pytest.fixture(scope="module")
def recording(dataset: Path) -> Recording:
    return read_recording(dataset)


def test_frame_masks_agree_with_the_landmarks(recording: Recording) -> None:
    wide_open = int(np.argmax(recording.mouth_opening))
    frame = read_frame(recording, wide_open)
    assert frame.image.shape == (64, 64, 3) and frame.image.dtype == np.uint8
    regions = [frame.head, frame.hair, frame.neck, frame.torso, frame.mouth, frame.background]
    assert (sum(region.astype(int) for region in regions) == 1).all()
    assert all(region.any() and region.dtype == bool for region in [*regions, frame.teeth])
    assert not (frame.teeth & ~frame.mouth).any()
    y0, y1, x0, x1 = recording.lips_rect[wide_open]
    rows, columns = np.nonzero(frame.mouth)
    assert y0 <= rows.min() and rows.max() < y1 and x0 <= columns.min() and columns.max() < x1
    # RGB, not BGR: the torso is blue, the mouth red.
    torso, mouth = frame.image[frame.torso].mean(0), frame.image[frame.mouth & ~frame.teeth].mean(0)
    assert torso[2] > torso[0] + 30 and mouth[0] > mouth[2] + 30


def test_plate_is_read_or_computed(dataset_copy: Path) -> None:
    recording = read_recording(dataset_copy)
    layout = recording.layout
    stored = read_frame(recording, 3).plate
    masked = read_frame(recording, 3)
    seen = (masked.image, masked.head | masked.mouth, masked.hair)
    colours = np.ascontiguousarray(cv2.imread(str(layout.plate(3)))[..., ::-1])
    np.testing.assert_array_equal(stored, with_hair_in_front(colours, *seen))
    # What `degstalk process` writes has its hair already.
    written = np.dstack([colours, np.full((64, 64), 77, np.uint8)])
    cv2.imwrite(str(layout.plate(3)), cv2.cvtColor(written, cv2.COLOR_RGBA2BGRA))
    np.testing.assert_array_equal(read_frame(read_recording(dataset_copy), 3).plate, written)
    layout.plate(3).unlink()
    frame = read_frame(read_recording(dataset_copy), 3, ["plate", "torso_image"])
    clean = np.asarray(cv2.imread(str(layout.clean_plate))[..., ::-1])
    expected = frame_plate(frame.image, frame.head | frame.mouth, frame.torso_image, clean)
    np.testing.assert_array_equal(frame.plate, with_hair_in_front(expected, *seen))
    assert (frame.plate[..., :3] != frame.image).any()


@pytest.mark.parametrize("name", ["plate", "freed_plate"])
def test_the_fourth_channel_of_a_plate_is_the_hair_in_front_of_the_face(recording: Recording, name: str) -> None:
    frame = read_frame(recording, 3)
    plate = getattr(frame, name)
    assert plate.shape == (64, 64, 4) and plate.dtype == np.uint8
    matte = hair_matte(frame.image, frame.hair)
    assert (plate[..., 3] >= matte).all()  # the shadow of the hair, on the face, comes on top
    apart = ~(frame.head | frame.mouth | frame.hair)
    np.testing.assert_array_equal(plate[apart, 3], matte[apart])
    assert plate[frame.hair, 3].mean() > 150 and plate[~frame.hair, 3].mean() < 20


def test_a_plate_is_reduced_with_the_frames(dataset: Path, recording: Recording) -> None:
    half = read_frame(read_recording(dataset, options=ReadOptions(downscale=2)), 3).plate
    full = read_frame(recording, 3).plate
    means = full.reshape(32, 2, 32, 2, 4).mean((1, 3))
    assert half.shape == (32, 32, 4) and np.abs(half - means).max() <= 0.5


def test_parts_are_read_once_and_only_when_asked_for(dataset_copy: Path) -> None:
    recording = read_recording(dataset_copy)
    Layout(dataset_copy).parsing(2).unlink()
    frame = read_frame(recording, 2, ["image"])
    assert frame.image is frame.image
    with pytest.raises(UserError, match=r"parsing/2\.png.*degstalk process"):
        _ = frame.head
    with pytest.raises(ValueError, match="parts"):
        read_frame(recording, 2, ["picture"])


def test_frame_of_another_size_or_cut_short(dataset_copy: Path) -> None:
    recording = read_recording(dataset_copy)
    layout = recording.layout
    picture = np.zeros((32, 48, 3), np.uint8)
    cv2.imwrite(str(layout.frame(1)), picture)
    cv2.imwrite(str(layout.parsing(1)), picture)
    np.save(layout.teeth(1), np.zeros((48, 64), bool))
    layout.frame(2).write_bytes(layout.frame(3).read_bytes()[:700])
    layout.parsing(2).write_bytes(layout.parsing(3).read_bytes()[:-40])
    layout.torso(2).write_bytes(b"")
    layout.teeth(2).write_bytes(b"no numpy")
    cv2.imwrite(str(layout.torso(4)), np.zeros((64, 64, 3), np.uint8))
    for i, part, expected in (
        (1, "image", "ori_imgs/1.jpg: is 48 x 32 pixels, expected 64 x 64"),
        (1, "masks", "parsing/1.png: is 48 x 32 pixels, expected 64 x 64"),
        (1, "teeth", "teeth_mask/1.npy: is 64 x 48 pixels, expected 64 x 64"),
        (2, "image", "ori_imgs/2.jpg: not a readable"),
        (2, "masks", "parsing/2.png: not a readable"),
        (2, "torso_image", "torso_imgs/2.png: not a readable"),
        (2, "teeth", "teeth_mask/2.npy: not readable"),
        (4, "torso_image", "torso_imgs/4.png: expected an RGBA image"),
    ):
        with pytest.raises(UserError, match=re.escape(expected)) as caught:
            read_frame(recording, i, [part])
        assert "degstalk process" in str(caught.value)


def test_masks_without_hair(dataset_copy: Path) -> None:
    layout = Layout(dataset_copy)
    for i in range(24):
        parsing = cv2.imread(str(layout.parsing(i)))
        parsing[(parsing == 0).all(-1)] = [255, 0, 0]
        cv2.imwrite(str(layout.parsing(i)), parsing)
    refuses(dataset_copy, "(0, 2, 5, 8, 10, 12, 15, 18, 20)", "hair pixel", "allow_no_hair")
    assert read_recording(dataset_copy, options=ReadOptions(allow_no_hair=True)).num_frames == 24


def test_masks_that_are_no_masks(dataset_copy: Path) -> None:
    layout = Layout(dataset_copy)
    whole = layout.parsing(0).read_bytes()
    layout.parsing(0).write_bytes(layout.plate(0).read_bytes())
    refuses(dataset_copy, "parsing/0.png", "palette")
    cv2.imwrite(str(layout.parsing(0)), np.zeros((64, 64, 3), np.uint8))
    refuses(dataset_copy, "parsing/0.png", "no pixel of the head")
    layout.parsing(0).write_bytes(whole)
    layout.landmarks(3).write_text("1 2\n3 4\n")
    refuses(dataset_copy, "ori_imgs/3.lms", "68 lines")


@pytest.mark.parametrize("name", ["plate", "freed_plate"])
def test_a_bare_plate_is_the_same_whether_the_stored_one_has_hair_in_it_or_not(dataset_copy: Path, name: str) -> None:
    layout = Layout(dataset_copy)
    layout.plate(3).unlink()  # made from the frame
    frame = read_frame(read_recording(dataset_copy), 3)
    before = getattr(frame, f"bare_{name}")
    assert before.shape == (64, 64, 3)
    mixed = frame.plate[..., :3] != frame.bare_plate
    assert mixed.any()  # near the hairline the colours of the hair are not those that were recorded
    cv2.imwrite(str(layout.plate(3)), cv2.cvtColor(frame.plate, cv2.COLOR_RGBA2BGRA))
    stored = read_frame(read_recording(dataset_copy), 3)
    np.testing.assert_array_equal(stored.plate, frame.plate)
    np.testing.assert_array_equal(getattr(stored, f"bare_{name}"), before)
