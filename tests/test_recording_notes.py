"""What of a dataset's driving files is replaced by something else is said in `Recording.notes`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.dataparsers.recording import read_recording


def _only_note(root: Path, audio: str = "auto") -> str:
    (note,) = read_recording(root, audio).notes
    return note


def test_a_choice_between_audio_features_is_said(dataset_copy: Path) -> None:
    np.save(dataset_copy / "aud_ds.npy", np.zeros((24, 16, 29)))
    note = _only_note(dataset_copy)
    assert note.startswith("aud_mel.npy drives the mouth") and "aud_ds.npy" in note and "--audio" in note
    assert read_recording(dataset_copy, "mel").notes == ()


def test_no_action_units(dataset_copy: Path) -> None:
    Layout(dataset_copy).action_units.unlink()
    assert _only_note(dataset_copy) == (
        "no au.csv: blinks and the opening of the mouth are measured on the 68 landmarks"
    )


@pytest.mark.parametrize(("column", "what"), [("AU45_r", "blinks are"), ("AU25_r", "the opening of the mouth is")])
def test_a_missing_column_of_action_units(dataset_copy: Path, column: str, what: str) -> None:
    path = Layout(dataset_copy).action_units
    path.write_text(path.read_text().replace(column, "AU99_r"))
    assert _only_note(dataset_copy) == f"au.csv has no column {column}: {what} measured on the 68 landmarks"


def test_interpolated_landmarks_are_counted(dataset_copy: Path) -> None:
    layout = Layout(dataset_copy)
    layout.landmarks(7).write_text("0 0\n")
    content = json.loads(layout.transforms("train").read_text())
    content["frames"] = [frame for frame in content["frames"] if frame["img_id"] != 7]
    layout.transforms("train").write_text(json.dumps(content))
    note = _only_note(dataset_copy)
    assert note.startswith("landmarks (.lms) of 1 of 24 frames") and "interpolated" in note


def test_expression_names_that_do_not_fit(dataset_copy: Path) -> None:
    path = Layout(dataset_copy).face_model_npz
    arrays = dict(np.load(path))
    np.savez(path, **arrays | {"expression_names": np.array(["jawOpen", "smile"])})
    note = _only_note(dataset_copy)
    assert note == "3dmm.npz: 2 expression_names for 50 columns of expression_params: the names are not used"
    assert read_recording(dataset_copy).expression_names == ()


def test_plates_that_are_made_at_each_read_are_counted(dataset_copy: Path) -> None:
    for image in (2, 5):
        Layout(dataset_copy).plate(image).unlink()
    assert _only_note(dataset_copy).startswith("bg/<i>.png is absent for 2 of 24 frames")
