"""What is written is what is read, and a failed write leaves what was there."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from degstalk_ns import files
from degstalk_ns.dataparsers import contact_sheet, writing
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.dataparsers.options import ReadOptions
from degstalk_ns.dataparsers.transforms import read_transforms
from degstalk_ns.dataparsers.writing import write_face_model, write_lms
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import SAMPLE_RATE
from degstalk_ns.landmarks import blendshapes as ex
from degstalk_ns.landmarks import mesh478 as lm


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(200, 40, (6, lm.NUM_POINTS, 3))


@pytest.fixture
def blendshapes() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 1, (6, 52))


def test_files_are_written_whole(blendshapes: np.ndarray, points: np.ndarray, tmp_path: Path) -> None:
    values = ex.expression(blendshapes, points)
    write_face_model(tmp_path / "3dmm.npz", values)
    with np.load(tmp_path / "3dmm.npz") as stored:
        np.testing.assert_array_equal(stored["expression_params"], values.expression_params)
        assert stored["expression_names"].tolist() == list(values.names)
        assert stored["jaw_params"].shape == (6, 3) and stored["eyelid_params"].shape == (6, 2)
    write_lms(tmp_path / "0.lms", points[0])
    np.testing.assert_allclose(np.loadtxt(tmp_path / "0.lms"), lm.to_68(points[0]), atol=0.006)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.lms", "3dmm.npz"], "no temporary file is left"


def test_a_failed_write_leaves_the_old_file(
    points: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "0.lms"
    path.write_text("old")
    points[0, lm.TO_68[5], 0] = np.nan
    with pytest.raises(UserError, match=r"0\.lms"):
        write_lms(path, points[0])

    def full_disk(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError):
        write_lms(path, points[1])
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_action_units_are_openfaces_table(blendshapes: np.ndarray, points: np.ndarray, tmp_path: Path) -> None:
    table = ex.au_table(blendshapes, points, np.array([1, 1, 1, 1, 0, 1], bool))
    writing.write_action_units(tmp_path / "au.csv", table)
    with (tmp_path / "au.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(table)
    assert [row["frame"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert [row["success"] for row in rows] == ["1", "1", "1", "1", "0", "1"]
    assert rows[5]["timestamp"] == "0.200"
    for name, values in table.items():
        np.testing.assert_allclose([float(row[name]) for row in rows], values, atol=5e-4)


def test_cameras_are_split_by_time_and_come_back(tmp_path: Path) -> None:
    c2w = np.tile(np.eye(4), (22, 1, 1))
    c2w[:, :3, 3] = np.random.default_rng(0).uniform([-0.1, -0.1, 0.5], [0.1, 0.1, 0.7], (22, 3))
    writing.write_transforms(Layout(tmp_path), c2w, 500.0, 128.0, 127.0)
    camera, splits = read_transforms(Layout(tmp_path), ReadOptions())
    assert (camera["focal_len"], camera["cx"], camera["cy"]) == (500.0, 128.0, 127.0)
    assert splits["train"].img_ids.tolist() == list(range(20)) and splits["val"].img_ids.tolist() == [20, 21]
    np.testing.assert_allclose(np.concatenate([splits["train"].c2w, splits["val"].c2w]), c2w, rtol=1e-6)


def test_sound_is_16_bits_of_mono(tmp_path: Path) -> None:
    samples = np.sin(np.arange(1600) / 7).astype(np.float32)
    writing.write_sound(tmp_path / "aud.wav", samples)
    found, rate = soundfile.read(tmp_path / "aud.wav", dtype="float32")
    assert rate == SAMPLE_RATE and soundfile.info(tmp_path / "aud.wav").subtype == "PCM_16"
    np.testing.assert_allclose(found, samples, atol=2**-15)


def test_windows_and_teeth_come_back(tmp_path: Path) -> None:
    windows = np.random.default_rng(0).normal(size=(3, 16, 4)).astype(np.float32)
    writing.write_audio_features(tmp_path / "aud_mel.npy", windows)
    writing.write_teeth(tmp_path / "0.npy", windows[0] > 0)
    np.testing.assert_array_equal(np.load(tmp_path / "aud_mel.npy"), windows)
    np.testing.assert_array_equal(np.load(tmp_path / "0.npy"), windows[0] > 0)


def test_the_contact_sheet_shows_frames_from_the_first_to_the_last(dataset_copy: Path) -> None:
    layout = Layout(dataset_copy)
    landmarks = np.full((24, 68, 2), 40.0)
    axes = np.full((24, 4, 2), np.nan)
    writing.write_contact_sheet(layout, landmarks, axes)
    sheet = files.read_rgb(layout.contact_sheet)
    side, top = contact_sheet.CELL, contact_sheet.HEADER
    assert sheet.shape == (top + contact_sheet.SHEET_ROWS * side, 6 * side, 3)
    marked = sheet[top + 40 * side // 64, 2 * side + 40 * side // 64]
    assert marked[1] > 200 and marked[0] < 100  # the landmarks' green, where they are
