from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from dataset_edits import edit_transforms, refuses
from synthetic import make_dataset

from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.dataparsers.layout import Layout, train_count
from degstalk_ns.dataparsers.options import ReadOptions
from degstalk_ns.dataparsers.recording import Recording, read_recording


@pytest.fixture(scope="module")
def recording(dataset: Path) -> Recording:
    return read_recording(dataset)


def test_synthetic_data_are_deterministic(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        make_dataset(tmp_path / name, frames=4, size=32, seed=seed)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) > 4 * 6
    same = {
        name: [(tmp_path / "one" / file).read_bytes() == (tmp_path / name / file).read_bytes() for file in files]
        for name in ("two", "three")
    }
    assert all(is_same or file.suffix == ".npz" for is_same, file in zip(same["two"], files, strict=True))
    assert not all(same["three"])


def test_reads_our_layout(recording: Recording) -> None:
    assert (recording.width, recording.height, recording.num_frames) == (64, 64, 24)
    assert (recording.focal, recording.cx, recording.cy) == pytest.approx((2.3 * 64, 32, 32))
    assert recording.train.img_ids.tolist() == list(range(train_count(24)))
    assert recording.val.img_ids.tolist() == list(range(train_count(24), 24))
    assert recording.audio_name == "mel" and recording.audio.shape == (24, 16, 64)
    assert recording.expression.shape == (24, 50) and recording.eyelids.shape == (24, 2)
    assert recording.jaw.shape == (24, 3) and recording.lips_rect.shape == (24, 4)
    for array in (recording.audio, recording.expression, recording.jaw, recording.blink, recording.mouth_opening):
        assert array.dtype == np.float32 and array.flags.c_contiguous and not array.flags.writeable
    assert recording.blink.min() == 0 and recording.blink.max() == 1
    assert recording.notes == ()
    assert recording.track_rows == {i: i for i in range(24)}
    assert recording.time_of(0) == 0 and recording.time_of(23) == 1


def test_copies_share_the_recording(recording: Recording) -> None:
    assert copy.deepcopy({"recording": recording})["recording"] is recording


def test_reads_data_of_the_reference_scripts(reference_dataset: Path, recording: Recording) -> None:
    reference = read_recording(reference_dataset)
    assert reference.audio_name == "ds" and reference.audio.shape == (24, 16, 29)
    np.testing.assert_array_equal(reference.expression, recording.expression)
    np.testing.assert_array_equal(reference.jaw, recording.jaw)
    # OpenFace's column names start with a space.
    np.testing.assert_allclose(reference.blink, recording.blink)
    np.testing.assert_allclose(reference.mouth_opening, recording.mouth_opening)


def test_downscale_and_scene_scale(dataset: Path, recording: Recording) -> None:
    small = read_recording(dataset, options=ReadOptions(downscale=2, scene_scale=3.0))
    assert (small.width, small.height, small.focal, small.cx) == pytest.approx((32, 32, recording.focal / 2, 16))
    frame = read_frame(small, 5)
    for picture in (frame.image, frame.plate, frame.head, frame.teeth, frame.torso_image):
        assert picture.shape[:2] == (32, 32)
    rows, columns = np.nonzero(frame.mouth)
    y0, y1, x0, x1 = small.lips_rect[5]
    assert y0 <= rows.min() and rows.max() < y1 and x0 <= columns.min() and columns.max() < x1
    np.testing.assert_allclose(small.train.c2w[:, :3, 3], 3 * recording.train.c2w[:, :3, 3], rtol=1e-6)
    np.testing.assert_array_equal(small.train.c2w[:, :3, :3], recording.train.c2w[:, :3, :3])
    refuses(dataset, "downscale 3", "64 x 64", options=ReadOptions(downscale=3))
    refuses(dataset, "scene_scale", options=ReadOptions(scene_scale=0.0))


@pytest.mark.parametrize("extra", [-2, -1, 1, 9])
def test_small_differences_in_length_are_trimmed_with_a_note(dataset_copy: Path, extra: int) -> None:
    path = dataset_copy / "aud_mel.npy"
    windows = np.load(path)
    np.save(path, windows[:extra] if extra < 0 else np.concatenate([windows, windows[:extra]]))
    recording = read_recording(dataset_copy)
    length = 24 + min(extra, 0)
    for array in (recording.audio, recording.expression, recording.blink, recording.mouth_opening, recording.lips_rect):
        assert len(array) == length
    assert max(recording.val.aud_ids) == length - 1
    assert len(recording.notes) == 1 and "trimmed to" in recording.notes[0]


def test_validation_split_trimmed_to_nothing_is_refused(dataset_copy: Path) -> None:
    np.save(dataset_copy / "aud_mel.npy", np.load(dataset_copy / "aud_mel.npy")[:18])
    refuses(dataset_copy, "transforms_val.json", "no frame left within the 18 frames")


def test_frames_left_out_by_the_tracker_are_no_mistake(dataset_copy: Path) -> None:
    layout = Layout(dataset_copy)
    edit_transforms(dataset_copy, "train", lambda content: content["frames"].pop(7))
    before = read_recording(dataset_copy).lips_rect
    layout.landmarks(7).unlink()
    recording = read_recording(dataset_copy)
    assert 7 not in recording.train.img_ids and recording.num_frames == 24
    assert np.abs(recording.lips_rect[7] - before[7]).max() <= 2


def test_no_folder(tmp_path: Path) -> None:
    refuses(tmp_path / "nowhere", "nowhere", "degstalk process VIDEO")


@pytest.mark.parametrize("kind", ["frame", "landmarks", "parsing", "teeth"])
def test_missing_files_of_a_listed_frame(dataset_copy: Path, kind: str) -> None:
    layout = Layout(dataset_copy)
    paths = [getattr(layout, kind)(i) for i in (5, 6, 9)]
    for path in paths:
        path.unlink()
    refuses(dataset_copy, f"{paths[0]}: missing (and 2 more", "degstalk process")


def test_plate_or_what_makes_it(dataset_copy: Path) -> None:
    layout = Layout(dataset_copy)
    layout.torso(5).unlink()
    layout.clean_plate.unlink()
    read_recording(dataset_copy)
    layout.plate(5).unlink()
    refuses(dataset_copy, "torso_imgs/5.png: missing")
    layout.torso(5).write_bytes(layout.torso(4).read_bytes())
    refuses(dataset_copy, "bc.jpg: missing")
