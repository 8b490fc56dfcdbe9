"""`degstalk process --complete`: what a dataset of another project lacks is made, and nothing else is touched."""
# ruff: noqa: F811 (fixtures are asked for by name)

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_person import (
    CONFIG,
    FRAMES,
    DrawnFaceTracker,
    DrawnSegmenter,
    made,  # noqa: F401
    stand_ins,  # noqa: F401
    video,  # noqa: F401
)

from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.dataparsers.layout import PALETTE, Layout
from degstalk_ns.dataparsers.recording import read_recording
from degstalk_ns.errors import UserError
from degstalk_ns.preprocess import completion
from degstalk_ns.preprocess.completion import complete_dataset
from degstalk_ns.preprocess.pipeline import ProcessSummary
from degstalk_ns.scripts import cli

OURS = ("process.json", "3dmm.npz", "au.csv", "aud_mel.npy", "contact_sheet.png")
TRACKED = ("landmarks.npz", "poses.npz")
"""What takes longest; most tests leave it where it is, as if an earlier call had made it."""


@pytest.fixture
def other(made: tuple[Path, ProcessSummary], tmp_path: Path) -> Path:
    """The dataset as ER-NeRF's scripts leave it: hair and mouth are head, DeepSpeech features are called aud.npy."""
    root = Path(shutil.copytree(made[0], tmp_path / "other"))
    layout = Layout(root)
    for name in OURS:
        (root / name).unlink()
    for folder in (layout.teeth(0).parent, layout.plate(0).parent):
        shutil.rmtree(folder)
    for i in range(FRAMES):
        picture = cv2.imread(str(layout.parsing(i)))[..., ::-1].copy()
        for name in ("hair", "mouth"):
            picture[(picture == PALETTE[name]).all(-1)] = PALETTE["head"]
        cv2.imwrite(str(layout.parsing(i)), picture[..., ::-1])
    np.save(root / "aud.npy", np.random.default_rng(0).normal(size=(FRAMES, 16, 29)))
    np.save(root / "bs.npy", np.zeros((FRAMES, 52)))
    (layout.parsing(0).parent / "0_face.png").write_bytes(b"of SyncTalk")
    return root


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_what_is_lacking_is_made_and_the_dataset_loads(other: Path, made: tuple[Path, ProcessSummary]) -> None:
    for name in TRACKED:
        (other / name).unlink()
    with pytest.raises(UserError, match=r"`degstalk process --complete .*` makes the masks"):
        read_recording(other)
    before = _contents(other)
    summary = complete_dataset(other, CONFIG)
    wanted = ["landmarks", "head poses", "expression", "masks", "plates", "audio features", "contact sheet"]
    assert summary.made == wanted and summary.frames == FRAMES
    said = "\n".join(summary.notes)
    for part in ("aud.npy was copied to aud_ds.npy", "bs.npy is not used", "no hair and no mouth", "parsing_original"):
        assert part in said
    after = _contents(other)
    moved = {name: content for name, content in before.items() if name.startswith("parsing/")}
    for name, content in before.items():
        assert after[name.replace("parsing/", "parsing_original/")] == content  # nothing that was there is changed
    assert moved and not (other / "process.json").exists()
    recording, expected = read_recording(other), read_recording(made[0])
    assert recording.audio_name == "mel" and np.allclose(recording.audio, expected.audio)
    assert read_recording(other, "ds").audio.shape == (FRAMES, 16, 29)
    assert np.allclose(recording.expression, expected.expression) and np.allclose(recording.blink, expected.blink)
    for i in (0, 50, FRAMES - 1):
        a, b = read_frame(recording, i), read_frame(expected, i)
        assert np.array_equal(a.hair, b.hair) and np.array_equal(a.mouth, b.mouth) and np.array_equal(a.teeth, b.teeth)
        assert np.array_equal(a.plate, b.plate)


def test_it_goes_on_where_it_was_interrupted_and_then_has_nothing_to_do(other: Path) -> None:
    (other / TRACKED[0]).unlink()
    DrawnSegmenter.fail_at = 40
    with pytest.raises(KeyboardInterrupt):
        complete_dataset(other, CONFIG)
    done = len(list((other / "parsing").glob("*.png")))
    assert 0 < done < FRAMES
    DrawnSegmenter.fail_at, DrawnSegmenter.calls, DrawnFaceTracker.calls = None, 0, 0
    assert complete_dataset(other, CONFIG).made == ["masks", "plates", "audio features", "contact sheet"]
    assert DrawnFaceTracker.calls == 0 and DrawnSegmenter.calls < FRAMES
    before = _contents(other)
    assert complete_dataset(other, CONFIG).made == []
    assert _contents(other) == before


def test_files_of_others_stay(other: Path, made: tuple[Path, ProcessSummary]) -> None:
    layout = Layout(other)
    units = Layout(made[0]).action_units.read_text().replace("0.", "1.")
    layout.action_units.write_text(units)
    # TalkingGaussian's masks have hair and mouth: they stay, and the teeth alone are made.
    shutil.rmtree(layout.parsing(0).parent)
    shutil.copytree(Layout(made[0]).parsing(0).parent, layout.parsing(0).parent)
    torso = {path.name: path.read_bytes() for path in layout.torso(0).parent.iterdir()}
    summary = complete_dataset(other, CONFIG)
    assert "teeth" in summary.made and "masks" not in summary.made
    assert not (other / completion.OLD_MASKS).exists()
    assert layout.action_units.read_text() == units and layout.face_model_npz.exists()
    assert {path.name: path.read_bytes() for path in layout.torso(0).parent.iterdir()} == torso


def test_without_torso_images_they_are_made(other: Path) -> None:  # as AD-NeRF's
    layout = Layout(other)
    shutil.rmtree(layout.torso(0).parent)
    layout.clean_plate.unlink()
    assert "plates" in complete_dataset(other, CONFIG).made
    assert len(list(layout.torso(0).parent.glob("*.png"))) == FRAMES and layout.clean_plate.exists()


def test_a_torso_image_or_teeth_that_are_missing_alone_are_made(other: Path, made: tuple[Path, ProcessSummary]) -> None:
    layout = Layout(other)
    layout.torso(50).unlink()
    shutil.copytree(Layout(made[0]).teeth(0).parent, layout.teeth(0).parent)
    for i in (3, 7):
        np.save(layout.teeth(i), np.ones((64, 64), bool))
    layout.teeth(9).unlink()
    before = _contents(other)
    complete_dataset(other, CONFIG)
    after = _contents(other)
    assert layout.torso(50).exists() and layout.teeth(9).exists()
    for name, content in before.items():
        assert after[name.replace("parsing/", "parsing_original/")] == content


def test_masks_of_which_one_is_missing_are_all_made_anew(other: Path) -> None:
    layout = Layout(other)
    layout.parsing(50).unlink()
    complete_dataset(other, CONFIG)
    recording = read_recording(other)
    assert all(read_frame(recording, i).hair.any() for i in (0, 49, 50, 51))
    assert len(list((other / completion.OLD_MASKS).glob("*.png"))) == FRAMES  # and SyncTalk's


def test_what_was_said_in_a_call_that_was_interrupted_is_said_again(other: Path) -> None:
    Layout(other).landmarks(30).unlink()
    _one_camera_less(other)
    DrawnSegmenter.fail_at = 5
    with pytest.raises(KeyboardInterrupt):
        complete_dataset(other, CONFIG)
    DrawnSegmenter.fail_at = None
    said = "\n".join(complete_dataset(other, CONFIG).notes)
    assert "cameras fewer" in said and "parsing_original" in said


def _one_camera_less(root: Path) -> None:
    path = Layout(root).transforms("val")
    content = json.loads(path.read_text())
    content["frames"].pop()
    path.write_text(json.dumps(content))


def test_cameras_that_may_be_shifted_are_told(other: Path) -> None:
    layout = Layout(other)
    layout.landmarks(30).unlink()
    _one_camera_less(other)
    notes = complete_dataset(other, CONFIG).notes
    assert any("1 frames had no landmarks, the first 30, and there are 1 cameras fewer" in note for note in notes)
    assert layout.landmarks(30).exists()


def test_other_audio_of_that_name_is_not_taken_for_deepspeech(other: Path) -> None:
    np.save(other / "aud.npy", np.zeros((FRAMES, 16, 32)))
    notes = complete_dataset(other, CONFIG).notes
    assert any("aud.npy is not used: it holds [104, 16, 32]" in note for note in notes)
    assert not Layout(other).audio_features("ds").exists()


def _no_transforms(root: Path) -> None:
    Layout(root).transforms("train").unlink()


def _gap(root: Path) -> None:
    Layout(root).frame(7).unlink()


def _no_sound(root: Path) -> None:
    for path in (*root.glob("aud*.npy"), root / "aud.wav"):
        path.unlink()


def _small_background(root: Path) -> None:
    cv2.imwrite(str(Layout(root).clean_plate), np.zeros((32, 32, 3), np.uint8))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "ours": (lambda root: (root / "process.json").write_text("{}"), "was made by `degstalk process`"),
    "no cameras": (_no_transforms, "transforms_train.json: missing; expected a dataset of ER-NeRF"),
    "no frames": (lambda root: shutil.rmtree(root / "ori_imgs"), "ori_imgs: holds no frame"),
    "a gap": (_gap, "7.jpg: missing; expected frames numbered from 0"),
    "no folder": (shutil.rmtree, "no such dataset folder"),
    "broken audio": (lambda root: (root / "aud.npy").write_bytes(b"no array"), "aud.npy: not readable as audio"),
    "zipped audio": (lambda root: np.savez((root / "aud.npy").open("wb"), a=[1]), "aud.npy: holds several arrays"),
    "no sound": (_no_sound, "aud.wav: missing, and no audio features either"),
    "a small background": (_small_background, "bc.jpg: is 32 x 32 pixels, expected 64 x 64"),
    "broken units": (lambda root: (root / "au.csv").write_text("AU45_r\nx\n"), "column AU45_r must hold one number"),
    "broken 3dmm": (lambda root: (root / "3dmm.pt").write_bytes(b"a"), "3dmm.pt: not readable as plain tensors"),
    "broken cameras": (lambda root: (root / "transforms_val.json").write_text("{"), "not readable as JSON"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_folders_are_refused_and_left(case: str, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, expected = REFUSED[case]
    damage(other)
    before = _contents(other)
    with pytest.raises(SystemExit) as ended:
        cli.main(["process", "--complete", str(other), "--audio", "mel"])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and expected in said and said.count("\n") == 1
    assert _contents(other) == before


def test_the_command_says_what_it_made(other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--audio", "mel", "--poses.iterations", "4", "--poses.reweightings", "0", "--workers", "2"]
    cli.main(["process", "--complete", str(other), *arguments])
    said = capsys.readouterr().out
    assert f"{other}: made expression, masks" in said and "note: bs.npy is not used" in said
    assert f"next: ns-train degstalk-fast --data {other}" in said
    for more in (["--overwrite"], ["--only", "audio"], ["--features", "nonsense"]):
        with pytest.raises(SystemExit):
            cli.main(["process", "--complete", str(other), *arguments, *more])
        assert more[0] in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["process", "--complete", str(other), str(other)])
    assert "leave" in capsys.readouterr().err
