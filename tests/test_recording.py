from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from synthetic import make_dataset

from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.dataparsers.layout import Layout, train_count
from degstalk_ns.dataparsers.options import ReadOptions
from degstalk_ns.dataparsers.recording import Recording, read_recording
from degstalk_ns.errors import UserError
from degstalk_ns.landmarks.ibug68 import eye_aspect_ratio, inner_lip_opening, lips_rectangles
from degstalk_ns.plates.build import frame_plate


@pytest.fixture(scope="module")
def recording(dataset: Path) -> Recording:
    return read_recording(dataset)


def edit_transforms(root: Path, split: str, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = Layout(root).transforms(split)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def edit_face_model(root: Path, edit: Callable[[dict[str, np.ndarray]], Any]) -> None:
    path = Layout(root).face_model_npz
    with np.load(path) as archive:
        arrays = dict(archive)
    edit(arrays)
    np.savez(path, **arrays)


def refuses(root: Path, *parts: str, audio: str = "auto", options: ReadOptions | None = None) -> None:
    """Reading fails with one line that holds all ``parts``."""
    with pytest.raises(UserError) as caught:
        read_recording(root, audio, options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


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


# --- what is read ---------------------------------------------------------------------------------------------------


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


def test_auto_prefers_mel_then_hubert_then_deepspeech(dataset_copy: Path) -> None:
    np.save(dataset_copy / "aud_hu.npy", np.zeros((24, 2, 1024)))
    np.save(dataset_copy / "aud_ds.npy", np.zeros((24, 16, 29)))
    assert read_recording(dataset_copy).audio_name == "mel"
    assert read_recording(dataset_copy, "ds").audio.shape == (24, 16, 29)
    (dataset_copy / "aud_mel.npy").unlink()
    assert read_recording(dataset_copy).audio_name == "hu"
    refuses(dataset_copy, "aud_mel.npy", "there is audio ds, hu", "degstalk process", audio="mel")


@pytest.mark.parametrize("style", ["leading", "middle", "nested", "list", "numpy"])
def test_torch_files_of_any_nesting(reference_copy: Path, style: str) -> None:
    path = Layout(reference_copy).face_model_pt
    flat = torch.load(path, weights_only=True)
    before = read_recording(reference_copy)
    content: Any = {
        "leading": {key: value[None] for key, value in flat.items()},
        "middle": {key: value[:, None].double().requires_grad_() for key, value in flat.items()},
        "nested": {"subject": {"params": flat}},
        "list": [{key: value[i] for key, value in flat.items()} for i in range(24)],
        "numpy": {key: value.numpy() for key, value in flat.items()},
    }[style]
    torch.save(content, path)
    after = read_recording(reference_copy)
    np.testing.assert_allclose(after.expression, before.expression)
    assert after.eyelids.shape == (24, 2) and after.jaw.shape == (24, 3)


def test_torch_file_with_code_is_refused(reference_copy: Path) -> None:
    torch.save({"expression_params": Path("x")}, Layout(reference_copy).face_model_pt)
    refuses(reference_copy, "3dmm.pt", "not readable as plain tensors")


def test_blink_and_opening_fall_back_to_landmarks(dataset_copy: Path, recording: Recording) -> None:
    Layout(dataset_copy).action_units.unlink()
    found = read_recording(dataset_copy)
    assert found.blink.max() > 0.7 and found.blink.min() < 0.1
    assert np.corrcoef(found.blink, recording.blink)[0, 1] > 0.9
    assert np.corrcoef(found.mouth_opening, recording.mouth_opening)[0, 1] > 0.95


def test_eyes_that_never_blink_are_open(dataset_copy: Path) -> None:
    layout = Layout(dataset_copy)
    layout.action_units.unlink()
    for i in range(24):
        layout.landmarks(i).write_text(layout.landmarks(0).read_text())
    assert read_recording(dataset_copy).blink.max() < 0.05


def test_measures_on_landmarks() -> None:
    points = np.zeros((1, 68, 2), np.float32)
    points[0, [48, 54]] = [[0, 0], [40, 0]]
    for upper, lower in ((61, 67), (62, 66), (63, 65)):
        points[0, upper], points[0, lower] = [20, -5], [20, 5]
    assert inner_lip_opening(points) == pytest.approx(10 / 40)
    for k in (36, 42):
        points[0, k : k + 6] = [[0, 0], [5, -3], [15, -3], [20, 0], [15, 3], [5, 3]]
    assert eye_aspect_ratio(points) == pytest.approx(6 / 20)


def test_lips_rectangles_are_clamped_and_never_empty() -> None:
    points = np.zeros((3, 68, 2), np.float32)
    points[0, 48:] = np.linspace([20, 30], [40, 36], 20)
    points[1, 48:] = np.linspace([-20, -30], [-4, -10], 20)
    points[2, 48:] = np.linspace([90, 90], [95, 99], 20)
    rectangles = lips_rectangles(points, 64, 64, 0.1)
    assert rectangles[0].tolist() == [28, 38, 18, 42]
    for y0, y1, x0, x1 in rectangles:
        assert 0 <= y0 < y1 <= 64 and 0 <= x0 < x1 <= 64


# --- frames ---------------------------------------------------------------------------------------------------------


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


def test_poses_put_the_head_where_its_mask_is(recording: Recording) -> None:
    for row in range(0, len(recording.train), 5):
        w2c = np.linalg.inv(recording.train.c2w[row].astype(np.float64))
        x, y, z = w2c[:3, 3]
        rows, columns = np.nonzero(read_frame(recording, row, ["masks"]).head)
        u, v = recording.cx + recording.focal * x / -z, recording.cy - recording.focal * y / -z
        assert columns.min() < u < columns.max() and rows.min() < v < rows.max()


def test_plate_is_read_or_computed(dataset_copy: Path) -> None:
    recording = read_recording(dataset_copy)
    layout = recording.layout
    stored = read_frame(recording, 3).plate
    np.testing.assert_array_equal(stored, cv2.imread(str(layout.plate(3)))[..., ::-1])
    layout.plate(3).unlink()
    frame = read_frame(read_recording(dataset_copy), 3, ["plate", "torso_image"])
    clean = np.asarray(cv2.imread(str(layout.clean_plate))[..., ::-1])
    expected = frame_plate(frame.image, frame.head | frame.mouth, frame.torso_image, clean)
    np.testing.assert_array_equal(frame.plate, expected)
    assert (frame.plate != frame.image).any()


def test_parts_are_read_once_and_only_when_asked_for(dataset_copy: Path) -> None:
    recording = read_recording(dataset_copy)
    Layout(dataset_copy).parsing(2).unlink()
    frame = read_frame(recording, 2, ["image"])
    assert frame.image is frame.image
    with pytest.raises(UserError, match=r"parsing/2\.png.*degstalk process"):
        _ = frame.head
    with pytest.raises(ValueError, match="parts"):
        read_frame(recording, 2, ["picture"])


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


# --- lengths and clocks ---------------------------------------------------------------------------------------------


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


def test_large_differences_in_length_are_refused(dataset_copy: Path) -> None:
    np.save(dataset_copy / "aud_mel.npy", np.zeros((40, 16, 32)))
    refuses(dataset_copy, "aud_mel.npy 40", "3dmm.npz 24", "differ by more than 10")
    assert read_recording(dataset_copy, options=ReadOptions(length_tolerance=16)).num_frames == 24


def test_validation_split_trimmed_to_nothing_is_refused(dataset_copy: Path) -> None:
    np.save(dataset_copy / "aud_mel.npy", np.load(dataset_copy / "aud_mel.npy")[:18])
    refuses(dataset_copy, "transforms_val.json", "no frame left within the 18 frames")


@pytest.mark.parametrize("shift", [2, -2])
def test_audio_that_starts_early_or_late(dataset_copy: Path, recording: Recording, shift: int) -> None:
    # Rows 4, 5 ... hold the same audio as before, found under another number.
    path = dataset_copy / "aud_mel.npy"
    windows = np.load(path)
    np.save(path, np.concatenate([windows[:shift], windows]) if shift > 0 else windows[-shift:])

    def renumber(content: dict[str, Any]) -> None:
        content["frames"] = [frame for frame in content["frames"] if frame["aud_id"] + shift >= 0]
        for frame in content["frames"]:
            frame["aud_id"] += shift

    for split in ("train", "val"):
        edit_transforms(dataset_copy, split, renumber)
    found = read_recording(dataset_copy)
    np.testing.assert_array_equal(found.audio[4:], recording.audio[4:])
    np.testing.assert_array_equal(found.train.aud_ids, found.train.img_ids)
    assert len(found.notes) == 1

    edit_transforms(dataset_copy, "val", lambda content: content["frames"][0].update(aud_id=0))
    refuses(dataset_copy, '"aud_id" minus "img_id"')


def test_frames_left_out_by_the_tracker_are_no_mistake(dataset_copy: Path) -> None:
    layout = Layout(dataset_copy)
    edit_transforms(dataset_copy, "train", lambda content: content["frames"].pop(7))
    before = read_recording(dataset_copy).lips_rect
    layout.landmarks(7).unlink()
    recording = read_recording(dataset_copy)
    assert 7 not in recording.train.img_ids and recording.num_frames == 24
    assert np.abs(recording.lips_rect[7] - before[7]).max() <= 2


# --- what is refused ------------------------------------------------------------------------------------------------


def test_no_folder(tmp_path: Path) -> None:
    refuses(tmp_path / "nowhere", "nowhere", "degstalk process VIDEO")


def test_transforms_missing_invalid_or_empty(dataset_copy: Path) -> None:
    path = Layout(dataset_copy).transforms("val")
    whole = path.read_text()
    for content, part in (
        (whole[:100], "not readable as JSON"),
        ("[1]", '"frames"'),
        ('{"focal_len": 100, "frames": []}', "empty"),
        (whole.replace("focal_len", "focal"), "focal_len"),
        (whole.replace('"focal_len": ', '"focal_len": -'), "focal_len"),
        (whole.replace('"focal_len": ', '"focal_len": 1'), "share one camera"),
    ):
        path.write_text(content)
        refuses(dataset_copy, "transforms_val.json", part)
    path.unlink()
    refuses(dataset_copy, "transforms_val.json: missing", f"degstalk process VIDEO {dataset_copy}")


def test_bad_poses(dataset_copy: Path) -> None:
    path = Layout(dataset_copy).transforms("train")
    whole = path.read_text()

    def entry(value: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda content: content["frames"][4].update(transform_matrix=value)

    eye = np.eye(4)
    for value, part in (
        ((eye * np.nan).tolist(), "of img_id 4 holds NaN"),
        (np.eye(3).tolist(), "4 x 4"),
        ("unit", "4 x 4"),
        ((2 * eye).tolist(), "no rigid motion"),
        (np.diag([1, 1, -1, 1]).tolist(), "no rigid motion"),
    ):
        path.write_text(whole)
        edit_transforms(dataset_copy, "train", entry(value))
        refuses(dataset_copy, "transforms_train.json", part)
    path.write_text(whole)

    def to_opencv(content: dict[str, Any]) -> None:
        for frame in content["frames"]:
            frame["transform_matrix"] = (np.array(frame["transform_matrix"]) @ np.diag([1, -1, -1, 1])).tolist()

    edit_transforms(dataset_copy, "train", to_opencv)
    refuses(dataset_copy, "behind every camera", "OpenGL")
    path.write_text(whole)
    edit_transforms(dataset_copy, "train", lambda content: content["frames"][2].update(img_id="2"))
    refuses(dataset_copy, '"img_id" of frame entry 2')


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


def test_audio_windows_of_the_wrong_width(reference_copy: Path) -> None:
    path = reference_copy / "aud_ds.npy"
    for bad in (np.zeros((24, 16, 44)), np.zeros((24, 8, 29)), np.zeros((24, 29)), np.array(["x"])):
        np.save(path, bad)
        refuses(reference_copy, "aud_ds.npy", "expected")


def test_nan_in_3dmm_names_file_array_and_frame(dataset_copy: Path) -> None:
    edit_face_model(dataset_copy, lambda arrays: arrays["eyelid_params"].__setitem__((13, 1), np.nan))
    refuses(dataset_copy, "3dmm.npz", "eyelid_params", "frame 13")


def test_3dmm_missing_or_of_wrong_shape(dataset_copy: Path) -> None:
    path = Layout(dataset_copy).face_model_npz
    whole = path.read_bytes()
    edit_face_model(dataset_copy, lambda arrays: arrays.update(jaw_params=np.zeros((24, 4))))
    refuses(dataset_copy, "3dmm.npz", "jaw_params is [24, 4], expected [T, 3]")
    path.write_bytes(whole)
    edit_face_model(dataset_copy, lambda arrays: arrays.update(jaw_params=np.zeros((20, 3))))
    refuses(dataset_copy, "3dmm.npz", "differ in length", "jaw_params 20")
    path.write_bytes(whole)
    edit_face_model(dataset_copy, lambda arrays: arrays.pop("expression_params"))
    refuses(dataset_copy, "3dmm.npz", "no expression_params")
    path.write_bytes(whole[:500])
    refuses(dataset_copy, "3dmm.npz", "not readable")
    path.unlink()
    refuses(dataset_copy, "3dmm.npz", "missing")


def test_action_units_that_are_no_numbers(dataset_copy: Path) -> None:
    path = Layout(dataset_copy).action_units
    path.write_text("AU25_r,AU45_r\n0.1,x\n")
    refuses(dataset_copy, "au.csv", "AU45_r")
    path.write_text("AU25_r,AU45_r\n")
    refuses(dataset_copy, "au.csv", "no rows")


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
