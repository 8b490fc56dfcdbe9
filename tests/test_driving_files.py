"""Audio windows, 3DMM, action units and landmarks: what drives the head frame by frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_edits import edit_face_model, edit_transforms, refuses

from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.dataparsers.options import ReadOptions
from degstalk_ns.dataparsers.recording import Recording, read_recording


@pytest.fixture(scope="module")
def recording(dataset: Path) -> Recording:
    return read_recording(dataset)


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


@pytest.mark.parametrize(("delimiter", "encoding"), [(";", "utf-8"), ("\t", "utf-8-sig"), (";", "utf-16")])
def test_action_units_as_spreadsheets_save_them(dataset_copy: Path, delimiter: str, encoding: str) -> None:
    path, expected = Layout(dataset_copy).action_units, read_recording(dataset_copy)
    text = path.read_text().replace(".", "\0").replace(",", delimiter).replace("\0", ",")
    path.write_bytes(text.encode(encoding))
    found = read_recording(dataset_copy)
    assert np.array_equal(found.blink, expected.blink) and found.blink.max() > 0.5
    assert np.array_equal(found.mouth_opening, expected.mouth_opening)


def test_deepspeech_features_under_their_extractors_name_are_pointed_out(reference_copy: Path) -> None:
    Layout(reference_copy).audio_features("ds").rename(reference_copy / "aud.npy")
    refuses(reference_copy, "aud.npy", "call the file aud_ds.npy")


def test_large_differences_in_length_are_refused(dataset_copy: Path) -> None:
    np.save(dataset_copy / "aud_mel.npy", np.zeros((40, 16, 32)))
    refuses(dataset_copy, "aud_mel.npy 40", "3dmm.npz 24", "differ by more than 10")
    assert read_recording(dataset_copy, options=ReadOptions(length_tolerance=16)).num_frames == 24
