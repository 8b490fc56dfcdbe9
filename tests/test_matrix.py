"""The matrix: every kind of file against every kind of fault. Each cell ends with one line on stderr that names the
file and exit code 1, without a traceback, and changes nothing on disk.

What cannot apply is listed with why in :data:`CANNOT`.
"""
# ruff: noqa: F811 (fixtures are asked for by name)

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from drawn_person import SIZE, copy, made, stand_ins, video  # noqa: F401
from file_faults import DAMAGE_OF, FAULTS, SMALL, damage, face_tensors, jpg, torch_file
from ordinary_rights import ordinary_rights
from synthetic import make_dataset

from degstalk_ns.audio.sound import load_sound
from degstalk_ns.avatar.splat_files import load_ply, save_ply
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.errors import UserError
from degstalk_ns.experiment import adapters
from degstalk_ns.preprocess.record import RECORD_NAME
from degstalk_ns.scripts import cli

FILES = {  # of a dataset, by their names in the copy that is damaged
    "transforms": "transforms_train.json",
    "frame": "ori_imgs/0.jpg",
    "mask": "parsing/0.png",
    "teeth": "teeth_mask/0.npy",
    "landmarks": "ori_imgs/0.lms",
    "3dmm npz": "3dmm.npz",
    "3dmm pt": "3dmm.pt",
    "features": "aud_mel.npy",
    "action units": "au.csv",
    "torso": "torso_imgs/0.png",
    "clean plate": "bc.jpg",
}
OTHERS = ("video", "process record", "sound", "upload", "config", "checkpoint", "camera path", "ply")
NO_NUMBERS = "holds no number that could be so"
CANNOT: dict[tuple[str, str], str] = {
    ("3dmm pt", "absent"): "then 3dmm.npz is read",
    ("action units", "absent"): "a note says that the landmarks take its place",
    **{(kind, "NaN"): NO_NUMBERS for kind in ("frame", "mask", "torso", "clean plate", "video", "sound", "upload")},
    **{(kind, "negative"): NO_NUMBERS for kind in ("frame", "mask", "teeth", "torso", "clean plate", "video", "sound")},
    ("upload", "negative"): NO_NUMBERS,
    **{("upload", fault): "its content is at hand or not sent" for fault in ("absent", "no permission", "a folder")},
    ("teeth", "NaN"): "a mask of numbers counts what is not 0",
    ("teeth", "huge"): "the same",
    ("landmarks", "huge"): "points outside of the frame are allowed: a face may lean out of it",
    ("landmarks", "negative"): "the same",
    (
        "landmarks",
        "of another set",
    ): "of all frames it is seen by their masks: see test_plausibility.py",
    ("frame", "of another set"): "a picture of the right size; nothing in a frame tells whose it is",
    ("torso", "of another set"): "the same",
    ("clean plate", "of another set"): "the same",
    ("teeth", "of another set"): "the same",
    ("3dmm npz", "of another set"): "of equal length it is pointed out, not refused: see test_plausibility.py",
    ("3dmm pt", "of another set"): "the same",
    ("features", "of another set"): "the same",
    ("action units", "of another set"): "the same",
    **{("3dmm npz", fault): "coefficients have no range" for fault in ("negative", "huge")},
    **{("3dmm pt", fault): "coefficients have no range" for fault in ("negative", "huge")},
    **{("features", fault): "features have no range" for fault in ("negative", "huge")},
    **{
        ("action units", fault): "intensities below 0 are trackers' noise and count as 0"
        for fault in ("negative", "huge")
    },
    ("action units", "wrong shape"): "a table of other columns has what is looked for or not: see its tests",
    ("video", "of another set"): "a video is what a dataset is made from",
    ("sound", "of another set"): "any voice may drive an avatar",
    ("upload", "of another set"): "the same",
    ("sound", "huge"): "see test_streams.py and the limits on length and size",
    ("upload", "huge"): "the same",
    ("sound", "wrong shape"): "any number of channels is mixed",
    ("upload", "wrong shape"): "the same",
    ("video", "wrong shape"): "any size and orientation is cropped",
    ("config", "NaN"): "an option of a config may be any number of its kind; the model checks those that matter",
    ("config", "negative"): "the same",
    ("config", "huge"): "refused by its size: see test_config_file.py",
    ("config", "wrong shape"): "a mapping of options has no shape",
    ("checkpoint", "a folder"): "is none then: as where it is absent",
    ("checkpoint", "negative"): "parameters have no range",
    ("checkpoint", "huge"): "the same",
    ("ply", "NaN"): "splats of others may hold some; they are not drawn",
    ("ply", "negative"): "numbers of a splat have no range",
    ("ply", "huge"): "the same",
    ("ply", "of another set"): "any splat may be read",
    ("camera path", "of another set"): "any path may be followed",
    ("camera path", "wrong shape"): "is its wrong type",
    **{
        ("process record", fault): "what cannot be read is made again, with a line that says so: see test_process.py"
        for fault in FAULTS
        if fault not in ("absent", "of another set")
    },
}


def _contents(root: Path) -> dict[str, bytes]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files if os.access(path, os.R_OK)}


BARRED = {"no permission": "cannot be read (Permission denied)", "a folder": "is a folder; expected a file"}
"""What is said of files that are not let into, whatever they hold: none of them is damaged."""


def _refused(fault: str, root: Path, path: Path, run: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> None:
    before = _contents(root)
    capsys.readouterr()
    with ordinary_rights(), pytest.raises(SystemExit) as ended:
        run()
    said = capsys.readouterr()
    lines = [
        line for line in said.err.splitlines() if not line.startswith(("W0000", "I0000", "WARNING: All log", "INFO:"))
    ]
    assert ended.value.code == 1 and len(lines) == 1, said.err
    assert path.name in lines[0] and "Traceback" not in said.err + said.out
    if fault in BARRED:
        assert BARRED[fault] in lines[0]
    assert _contents(root) == before


CELLS = [(kind, fault) for kind in (*FILES, *OTHERS) for fault in FAULTS if (kind, fault) not in CANNOT]


def test_the_matrix_is_whole() -> None:
    assert len(CELLS) >= 150
    generic = ("absent", "empty", "truncated", "random bytes", "no permission", "a folder")
    assert {cell for cell in CELLS if cell[1] not in generic} == set(DAMAGE_OF)
    assert all(fault in FAULTS and kind in (*FILES, *OTHERS) for kind, fault in CANNOT)


@pytest.mark.parametrize("name", ["talk.mp4", "speech.wav", "me", "config.yml", "path.json"])
def test_what_lies_in_a_closed_folder(
    name: str, trained_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = tmp_path / "closed"
    path = closed / name
    (path if name == "me" else closed).mkdir(parents=True)
    if name != "me":
        path.write_text("of another user")
    output = str(tmp_path / "out.mp4")
    render = ["render", "--output", output, "--load-config"]
    command = {
        "talk.mp4": ["process", str(path), str(tmp_path / "me")],
        "speech.wav": [*render, str(trained_config), "--audio", str(path)],
        "me": ["experiment", "table2", "--data", str(path), "--budget", "8", "--output", str(tmp_path / "out")],
        "config.yml": [*render, str(path), "--track", "val"],
        "path.json": [*render, str(trained_config), "--camera-path", str(path)],
    }[name]
    closed.chmod(0)
    try:
        _refused("no permission", tmp_path, path, lambda: cli.main(command), capsys)
    finally:
        closed.chmod(0o700)
    assert path.exists()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A dataset with all kinds of files, without finished plates, so that what they are made of is read."""
    root = make_dataset(tmp_path / "data" / "me")
    shutil.rmtree(Layout(root).plate(0).parent)
    return root


@pytest.mark.parametrize(("kind", "fault"), [cell for cell in CELLS if cell[0] in FILES])
def test_a_file_of_a_dataset(
    kind: str, fault: str, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = small / FILES[kind]
    if kind == "3dmm pt":
        path.write_bytes(torch_file(face_tensors()))
    damage(path, kind, fault)
    monkeypatch.setattr(adapters, "probed", lambda *_: pytest.fail("the dataset was accepted"))
    # Of two files that contradict each other, either may be named.
    named = {("transforms", "of another set"): "999.jpg", ("frame", "wrong shape"): "parsing/0.png"}
    path = small / named.get((kind, fault), FILES[kind])
    output = str(small.parent.parent / "out")
    command = ["experiment", "table2", "--data", str(small), "--budget", "8", "--output", output]
    _refused(fault, small, path, lambda: cli.main(command), capsys)


@pytest.mark.parametrize("fault", [fault for kind, fault in CELLS if kind == "video"])
def test_a_video(fault: str, video: Path, stand_ins: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(shutil.copy(video, tmp_path / "talk.mkv"))
    damage(path, "video", fault)
    command = ["process", str(path), str(tmp_path / "me"), "--size", "64", "--audio", "mel"]
    _refused(fault, tmp_path, path, lambda: cli.main(command), capsys)


@pytest.mark.parametrize("fault", [fault for kind, fault in CELLS if kind == "process record"])
def test_a_process_record(
    fault: str, copy: Path, video: Path, stand_ins: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / RECORD_NAME
    damage(path, "process record", fault)
    command = ["process", str(video), str(copy), "--size", str(SIZE), "--audio", "mel"]
    _refused(fault, copy, path if fault == "absent" else copy, lambda: cli.main(command), capsys)


@pytest.mark.parametrize("fault", [fault for kind, fault in CELLS if kind == "sound"])
def test_a_sound(fault: str, trained_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "speech.wav"
    soundfile.write(path, 0.1 * np.ones(800), 16_000)
    if (
        fault == "truncated"
    ):  # a wav that was cut short is played as far as it goes; of a compressed one, nothing is left
        path.write_bytes(path.read_bytes()[:40])
    else:
        damage(path, "sound", fault)
    output = tmp_path / "a.mp4"
    command = ["render", "--load-config", str(trained_config), "--audio", str(path), "--output", str(output)]
    _refused(fault, tmp_path, path, lambda: cli.main(command), capsys)


@pytest.mark.parametrize("fault", [fault for kind, fault in CELLS if kind == "upload"])
def test_an_upload(fault: str) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * np.ones(800), 16_000, format="WAV")
    content = {
        "empty": b"",
        "truncated": buffer.getvalue()[:40],
        "random bytes": np.random.default_rng(0).bytes(3_000),
        "wrong type": jpg(SMALL),
    }[fault]
    with pytest.raises(UserError, match=r"^mine\.wav: ") as refused:
        load_sound(content, name="mine.wav")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("kind", "fault"), [cell for cell in CELLS if cell[0] in ("config", "checkpoint")])
def test_a_run(kind: str, fault: str, trained_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(trained_config.parent, tmp_path / "outputs/tiny/degstalk-fast/only"))
    path = run / "config.yml" if kind == "config" else next(run.glob("nerfstudio_models/*.ckpt"))
    damage(path, kind, fault)
    command = ["export", "--load-config", str(run / "config.yml"), "--output", str(tmp_path / "a.ply")]
    named = path if path.exists() and fault in ("wrong type", "wrong shape", "NaN", "of another set") else path.parent
    _refused(fault, tmp_path, path if kind == "config" else named, lambda: cli.main(command), capsys)


@pytest.mark.parametrize("fault", [fault for kind, fault in CELLS if kind == "camera path"])
def test_a_camera_path(fault: str, trained_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    camera = {"camera_to_world": np.eye(4).flatten().tolist(), "fov": 24.0, "aspect": 1.0, "render_time": 0.0}
    content = {"camera_type": "perspective", "render_width": 64, "render_height": 64, "fps": 5, "camera_path": [camera]}
    path = tmp_path / "path.json"
    path.write_text(json.dumps(content))
    damage(path, "camera path", fault)
    output = tmp_path / "a.mp4"
    command = ["render", "--load-config", str(trained_config), "--camera-path", str(path), "--output", str(output)]
    _refused(fault, tmp_path, path, lambda: cli.main(command), capsys)


@pytest.mark.parametrize("fault", [fault for kind, fault in CELLS if kind == "ply"])
def test_a_splat(fault: str, tmp_path: Path) -> None:
    from degstalk_ns.avatar.gaussians import EmbeddedGaussians, GaussiansConfig

    path = tmp_path / "a.ply"
    save_ply(path, EmbeddedGaussians(GaussiansConfig(num_points=50)))
    damage(path, "ply", fault)
    with ordinary_rights(), pytest.raises(UserError) as refused:  # read by the Python interface alone
        load_ply(path)
    assert str(refused.value).startswith(f"{path}: ") and "\n" not in str(refused.value)
    assert BARRED.get(fault, "") in str(refused.value)
