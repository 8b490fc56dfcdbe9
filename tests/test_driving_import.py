"""`degstalk process --import`: driving features of other programs replace ours, and stay."""
# ruff: noqa: F811 (fixtures are asked for by name)

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_person import (
    CONFIG,
    FRAMES,
    copy,  # noqa: F401
    made,  # noqa: F401
    stand_ins,  # noqa: F401
    video,  # noqa: F401
)

from degstalk_ns.dataparsers.recording import read_recording
from degstalk_ns.errors import UserError
from degstalk_ns.preprocess.driving_import import read_features
from degstalk_ns.preprocess.pipeline import process
from degstalk_ns.scripts import cli

ARGUMENTS = ["--size", "64", "--audio", "mel", "--poses.iterations", "4", "--poses.reweightings", "0", "--workers", "2"]


def _table(frames: int, faces: int = 1) -> str:
    lines = ["frame, face_id, timestamp, confidence, success, AU01_r, AU25_r, AU45_r"]
    lines += [f"{i + 1}, {i % faces}, {i / 25:.3f}, 0.98, 1, 0.5, {i % 5}, {i % 3}" for i in range(frames)]
    return "\n".join(lines) + "\n"


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """A folder with SMIRK's and OpenFace's files, a few frames shorter than the video."""
    folder = tmp_path / "features"
    folder.mkdir()
    length = FRAMES - 3
    tensors = {"expression_params": torch.rand(length, 50), "jaw_params": torch.rand(length, 3)}
    tensors |= {"eyelid_params": torch.rand(length, 2), "shape_params": torch.zeros(length, 300)}
    torch.save(tensors, folder / "3dmm.pt")
    (folder / "au.csv").write_text(_table(length))
    np.save(folder / "aud_ds.npy", np.zeros((FRAMES + 2, 16, 29), np.float32))
    return folder


def test_imported_features_drive_the_dataset_and_stay(
    copy: Path, video: Path, features: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["process", str(video), str(copy), "--import", str(features), *ARGUMENTS])
    said = capsys.readouterr().out
    assert "3dmm.pt, au.csv, aud_ds.npy; they are left as they are from now on" in said
    assert "shape_params describe the person, not a frame, and are not used" in said
    recording = read_recording(copy)
    assert recording.num_frames == FRAMES - 3 and recording.expression_names == ()
    expected = torch.load(features / "3dmm.pt")["expression_params"]
    assert np.allclose(recording.expression, expected) and recording.mouth_opening[4] == 4.0
    assert any("3dmm.npz is there too and is not read" in note for note in recording.notes)
    # What is made anew afterwards leaves them: the landmarks are tracked otherwise, and the sound's features go.
    changed = replace(CONFIG, tracking=replace(CONFIG.tracking, smoothing=0.9))
    process(video, copy, changed)
    assert (copy / "au.csv").read_bytes() == (features / "au.csv").read_bytes()
    assert (copy / "aud_ds.npy").exists() and np.allclose(read_recording(copy).expression, expected)
    # --overwrite starts from the beginning.
    process(video, copy, replace(CONFIG, overwrite=True))
    assert not (copy / "3dmm.pt").exists() and not (copy / "aud_ds.npy").exists()
    assert read_recording(copy).expression.shape[1] != 50


def test_a_dataset_of_another_project_takes_them_too(copy: Path, features: Path) -> None:
    (copy / "process.json").unlink()
    (features / "au.csv").unlink()
    (features / "aud_ds.npy").rename(features / "aud_eo.npy")
    np.save(features / "aud_eo.npy", np.zeros((FRAMES, 16, 44)))
    cli.main(["process", "--complete", str(copy), "--import", str(features), *ARGUMENTS])
    assert read_recording(copy).num_frames == FRAMES - 3


def _short(folder: Path) -> None:
    (folder / "au.csv").write_text(_table(FRAMES - 20))


def _nan(folder: Path) -> None:
    content = torch.load(folder / "3dmm.pt")
    content["jaw_params"][5] = torch.nan
    torch.save(content, folder / "3dmm.pt")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "too short": (_short, f"au.csv: tells of {FRAMES - 20} frames, and"),
    "several faces": (lambda f: (f / "au.csv").write_text(_table(FRAMES, 2)), "rows of 2 faces"),
    "no units": (lambda f: (f / "au.csv").write_text("frame, AU12_r\n1, 2\n"), "neither AU45_r nor AU25_r"),
    "NaN": (_nan, "jaw_params holds NaN or infinite values at frame 5"),
    "no torch file": (lambda f: (f / "3dmm.pt").write_bytes(b"x"), "not readable as plain tensors"),
    "other windows": (lambda f: np.save(f / "aud_ds.npy", np.zeros((FRAMES, 8, 29))), "windows are 8 x 29"),
    "empty": (lambda f: [path.unlink() for path in f.iterdir()], "holds no driving features; expected some of 3dmm.pt"),
    "no folder": (shutil.rmtree, "no such folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_made(
    case: str, features: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, expected = REFUSED[case]
    damage(features)
    with pytest.raises(SystemExit) as ended:
        cli.main(["process", str(video), str(tmp_path / "out"), "--import", str(features), *ARGUMENTS])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and expected in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_files_of_others_in_the_dataset_are_not_replaced(
    copy: Path, features: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "process.json").unlink()
    before = (copy / "au.csv").read_bytes()
    with pytest.raises(SystemExit):
        cli.main(["process", "--complete", str(copy), "--import", str(features), *ARGUMENTS])
    assert "au.csv: is there already and was not made here" in capsys.readouterr().err
    assert (copy / "au.csv").read_bytes() == before and not (copy / "3dmm.pt").exists()


def test_an_imported_file_that_was_deleted_is_made_again(copy: Path, video: Path, features: Path) -> None:
    read_features(features).copy_to(copy)
    (copy / "au.csv").unlink()
    process(video, copy, CONFIG)
    assert len((copy / "au.csv").read_text().splitlines()) == FRAMES + 1


def test_what_would_have_no_effect_or_lose_itself_is_refused(copy: Path, features: Path) -> None:
    read_features(features).copy_to(copy)
    (features / "3dmm.pt").unlink()
    np.savez(features / "3dmm.npz", expression_params=np.ones((FRAMES, 3)), jaw_params=np.ones((FRAMES, 3)),
             eyelid_params=np.ones((FRAMES, 2)))  # fmt: skip
    with pytest.raises(UserError, match=r"3dmm\.pt: is there, and is read before"):
        read_features(features).copy_to(copy)
    with pytest.raises(UserError, match="is the dataset itself"):
        read_features(copy).copy_to(copy)


def test_no_output_folder_is_refused(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["process", str(video)])
    assert "no output folder given" in capsys.readouterr().err


def test_features_that_are_made_here_are_not_imported(features: Path) -> None:
    np.save(features / "aud_whisper-base.npy", np.zeros((50, 512), np.float16))
    assert set(read_features(features).lengths) == {"3dmm.pt", "au.csv", "aud_ds.npy"}
    with pytest.raises(UserError, match="no such folder"):
        read_features(features / "nowhere")
