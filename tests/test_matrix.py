"""The matrix: every kind of file against every kind of fault. Each cell ends with one line on stderr that names the
file and exit code 1, without a traceback, and changes nothing on disk.

What cannot apply is listed with why in :data:`CANNOT`.
"""
# ruff: noqa: F811 (fixtures are asked for by name)

from __future__ import annotations

import io
import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import soundfile
import torch
import yaml
from drawn_person import SIZE, copy, made, stand_ins, video  # noqa: F401
from synthetic import make_dataset

from degstalk_ns.audio.sound import load_sound
from degstalk_ns.avatar.splat_files import load_ply, save_ply
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.errors import UserError
from degstalk_ns.experiment import adapters
from degstalk_ns.preprocess.record import RECORD_NAME
from degstalk_ns.scripts import cli

FAULTS = (
    *("absent", "empty", "truncated", "random bytes", "wrong type", "wrong shape", "NaN", "negative", "huge"),
    "of another set",
)
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
    ("upload", "absent"): "its content is at hand or not sent",
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


def _npy(array: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)  # type: ignore[arg-type]
    return buffer.getvalue()


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _pt(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _face(**changes: Any) -> dict[str, Any]:
    names = {"expression_params": 50, "jaw_params": 3, "eyelid_params": 2}
    return {name: np.zeros((24, width), np.float32) for name, width in names.items()} | changes


def _tensors(**changes: Any) -> dict[str, Any]:
    return {name: torch.from_numpy(value) for name, value in _face(**changes).items()}


def _png(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])


def _jpg(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".jpg", image)[1])


def _said_size(content: bytes, side: int) -> bytes:
    """A PNG or JPEG whose header promises ``side`` x ``side`` pixels."""
    data = bytearray(content)
    if data.startswith(b"\x89PNG"):
        data[16:24] = struct.pack(">II", side, side)
    else:
        place = next(i for i in range(2, len(data)) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC2))
        data[place + 5 : place + 9] = struct.pack(">HH", side, side)
    return bytes(data)


def _edited(content: bytes, edit: Callable[[Any], Any]) -> bytes:
    value = json.loads(content)
    edit(value)
    return json.dumps(value).encode()


def _first_pose(value: Any, row: int, column: int, number: float) -> None:
    value["frames"][0]["transform_matrix"][row][column] = number


NAN = np.full((24, 50), np.nan, np.float32)
SMALL = np.zeros((32, 32, 3), np.uint8)
Damage = Callable[[bytes], bytes]
DAMAGE: dict[tuple[str, str], Damage] = {
    ("process record", "of another set"): lambda old: re.sub(rb'"sha1": "\w+"', b'"sha1": "0"', old),
    ("transforms", "wrong type"): lambda _: b'["a", "list"]',
    ("transforms", "wrong shape"): lambda old: _edited(old, lambda v: v["frames"][0].update(transform_matrix=[[1, 2]])),
    ("transforms", "NaN"): lambda old: _edited(old, lambda v: _first_pose(v, 0, 3, float("nan"))),
    ("transforms", "negative"): lambda old: _edited(old, lambda v: v["frames"][0].update(img_id=-3)),
    ("transforms", "huge"): lambda old: _edited(old, lambda v: v["frames"][0].update(img_id=10**400)),
    ("transforms", "of another set"): lambda old: _edited(old, lambda v: v["frames"][0].update(img_id=999)),
    ("frame", "wrong type"): lambda _: b"GIF89a" + bytes(100),
    ("frame", "wrong shape"): lambda _: _jpg(SMALL),
    ("frame", "huge"): lambda old: _said_size(old, 60_000),
    ("mask", "wrong type"): lambda _: _npy(np.zeros((64, 64))),
    ("mask", "wrong shape"): lambda _: _png(SMALL),
    ("mask", "huge"): lambda old: _said_size(old, 60_000),
    ("mask", "of another set"): lambda _: _png(np.full((64, 64, 3), 77, np.uint8)),
    ("teeth", "wrong type"): lambda _: _npy(np.array([["a"]])),
    ("teeth", "wrong shape"): lambda _: _npy(np.zeros((32, 64), bool)),
    ("landmarks", "wrong type"): lambda _: b"x y\n" * 68,
    ("landmarks", "wrong shape"): lambda _: b"1 2\n" * 5,
    ("landmarks", "NaN"): lambda _: b"nan 2\n" * 68,
    ("3dmm npz", "wrong type"): lambda _: _npy(np.zeros(3)),
    ("3dmm npz", "wrong shape"): lambda _: _npz(**_face(jaw_params=np.zeros((24, 7)))),
    ("3dmm npz", "NaN"): lambda _: _npz(**_face(expression_params=NAN)),
    ("3dmm pt", "wrong type"): lambda _: _pt([1, 2, 3]),
    ("3dmm pt", "wrong shape"): lambda _: _pt(_tensors(eyelid_params=np.zeros((24, 9), np.float32))),
    ("3dmm pt", "NaN"): lambda _: _pt(_tensors(expression_params=NAN)),
    ("features", "wrong type"): lambda _: _npy(np.array(["a", "b"])),
    ("features", "wrong shape"): lambda _: _npy(np.zeros((24, 5, 64), np.float32)),
    ("features", "NaN"): lambda _: _npy(np.full((24, 16, 64), np.nan, np.float32)),
    ("action units", "wrong type"): lambda _: b"AU25_r,AU45_r\nyes,no\n",
    ("action units", "NaN"): lambda _: b"AU25_r,AU45_r\n" + b"nan,0\n" * 24,
    ("torso", "wrong type"): lambda _: _png(np.zeros((64, 64, 3), np.uint8)),  # no alpha
    ("torso", "wrong shape"): lambda _: _png(np.zeros((32, 32, 4), np.uint8)),
    ("torso", "huge"): lambda old: _said_size(old, 60_000),
    ("clean plate", "wrong type"): lambda _: b"RIFF" + bytes(40),
    ("clean plate", "wrong shape"): lambda _: _jpg(SMALL),
    ("clean plate", "huge"): lambda old: _said_size(old, 60_000),
    ("video", "wrong type"): lambda _: _jpg(SMALL),
    ("video", "huge"): lambda old: old.replace(b"\xb0\x81\x40", b"\xb0\x84\x7f\xff\xff\xff", 1),
    ("sound", "wrong type"): lambda _: _jpg(SMALL),
    ("upload", "wrong type"): lambda _: _jpg(SMALL),
    ("config", "wrong type"): lambda _: b"just: a mapping\n",
    ("config", "of another set"): lambda _: yaml.dump(_other_method()).encode(),
    ("checkpoint", "wrong type"): lambda _: _pt({"weights": torch.zeros(3)}),
    ("checkpoint", "wrong shape"): lambda old: _changed_state(old, lambda t: torch.zeros(3, 5)),
    ("checkpoint", "NaN"): lambda old: _changed_state(old, lambda t: t * torch.nan),
    ("checkpoint", "of another set"): lambda _: _pt({"step": 3, "pipeline": {"_model.means": torch.zeros(4)}}),
    ("camera path", "wrong type"): lambda _: b'{"camera_path": "along"}',
    ("camera path", "NaN"): lambda old: _edited(old, lambda v: v["camera_path"][0].update(fov=float("nan"))),
    ("camera path", "negative"): lambda old: _edited(old, lambda v: v["camera_path"][0].update(fov=-5)),
    ("camera path", "huge"): lambda old: _edited(old, lambda v: v.update(render_width=10**400)),
    ("ply", "wrong type"): lambda _: _npy(np.zeros(3)),
    ("ply", "wrong shape"): lambda old: old.replace(b"property float f_dc_1\n", b"property float other\n"),
}


def _other_method() -> Any:
    from nerfstudio.engine.trainer import TrainerConfig

    return TrainerConfig(method_name="splatfacto")


def _changed_state(old: bytes, change: Callable[[torch.Tensor], torch.Tensor]) -> bytes:
    state = torch.load(io.BytesIO(old), weights_only=True)
    name = "_model.avatar.face_field.output_layers.layers.0.weight"
    state["pipeline"][name] = change(state["pipeline"][name])
    return _pt(state)


def _damaged(path: Path, kind: str, fault: str) -> None:
    """Puts the fault into the file."""
    old = path.read_bytes() if path.exists() else b""
    if fault == "absent":
        path.unlink()
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "truncated":
        path.write_bytes(old[: len(old) * 2 // 3])
    elif fault == "random bytes":
        path.write_bytes(np.random.default_rng(0).bytes(3_000))
    else:
        path.write_bytes(DAMAGE[kind, fault](old))


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _refused(root: Path, path: Path, run: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> None:
    before = _contents(root)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run()
    said = capsys.readouterr()
    lines = [
        line for line in said.err.splitlines() if not line.startswith(("W0000", "I0000", "WARNING: All log", "INFO:"))
    ]
    assert ended.value.code == 1 and len(lines) == 1, said.err
    assert path.name in lines[0] and "Traceback" not in said.err + said.out
    assert _contents(root) == before


CELLS = [(kind, fault) for kind in (*FILES, *OTHERS) for fault in FAULTS if (kind, fault) not in CANNOT]


def test_the_matrix_is_whole() -> None:
    assert len(CELLS) >= 120
    generic = ("absent", "empty", "truncated", "random bytes")
    assert {cell for cell in CELLS if cell[1] not in generic} == set(DAMAGE)
    assert all(fault in FAULTS and kind in (*FILES, *OTHERS) for kind, fault in CANNOT)


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
        path.write_bytes(_pt(_tensors()))
    _damaged(path, kind, fault)
    monkeypatch.setattr(adapters, "probed", lambda *_: pytest.fail("the dataset was accepted"))
    # Of two files that contradict each other, either may be named.
    named = {("transforms", "of another set"): "999.jpg", ("frame", "wrong shape"): "parsing/0.png"}
    path = small / named.get((kind, fault), FILES[kind])
    output = str(small.parent.parent / "out")
    command = ["experiment", "table2", "--data", str(small), "--budget", "8", "--output", output]
    _refused(small, path, lambda: cli.main(command), capsys)


@pytest.mark.parametrize("fault", [fault for kind, fault in CELLS if kind == "video"])
def test_a_video(fault: str, video: Path, stand_ins: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(shutil.copy(video, tmp_path / "talk.mkv"))
    _damaged(path, "video", fault)
    command = ["process", str(path), str(tmp_path / "me"), "--size", "64", "--audio", "mel"]
    _refused(tmp_path, path, lambda: cli.main(command), capsys)


@pytest.mark.parametrize("fault", [fault for kind, fault in CELLS if kind == "process record"])
def test_a_process_record(
    fault: str, copy: Path, video: Path, stand_ins: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / RECORD_NAME
    _damaged(path, "process record", fault)
    command = ["process", str(video), str(copy), "--size", str(SIZE), "--audio", "mel"]
    _refused(copy, path if fault == "absent" else copy, lambda: cli.main(command), capsys)


@pytest.mark.parametrize("fault", [fault for kind, fault in CELLS if kind == "sound"])
def test_a_sound(fault: str, trained_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "speech.wav"
    soundfile.write(path, 0.1 * np.ones(800), 16_000)
    if (
        fault == "truncated"
    ):  # a wav that was cut short is played as far as it goes; of a compressed one, nothing is left
        path.write_bytes(path.read_bytes()[:40])
    else:
        _damaged(path, "sound", fault)
    output = tmp_path / "a.mp4"
    command = ["render", "--load-config", str(trained_config), "--audio", str(path), "--output", str(output)]
    _refused(tmp_path, path, lambda: cli.main(command), capsys)


@pytest.mark.parametrize("fault", [fault for kind, fault in CELLS if kind == "upload"])
def test_an_upload(fault: str) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * np.ones(800), 16_000, format="WAV")
    content = {
        "empty": b"",
        "truncated": buffer.getvalue()[:40],
        "random bytes": np.random.default_rng(0).bytes(3_000),
        "wrong type": _jpg(SMALL),
    }[fault]
    with pytest.raises(UserError, match=r"^mine\.wav: ") as refused:
        load_sound(content, name="mine.wav")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("kind", "fault"), [cell for cell in CELLS if cell[0] in ("config", "checkpoint")])
def test_a_run(kind: str, fault: str, trained_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(trained_config.parent, tmp_path / "outputs/tiny/degstalk-fast/only"))
    path = run / "config.yml" if kind == "config" else next(run.glob("nerfstudio_models/*.ckpt"))
    _damaged(path, kind, fault)
    command = ["export", "--load-config", str(run / "config.yml"), "--output", str(tmp_path / "a.ply")]
    named = path if path.exists() and fault in ("wrong type", "wrong shape", "NaN", "of another set") else path.parent
    _refused(tmp_path, path if kind == "config" else named, lambda: cli.main(command), capsys)


@pytest.mark.parametrize("fault", [fault for kind, fault in CELLS if kind == "camera path"])
def test_a_camera_path(fault: str, trained_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    camera = {"camera_to_world": np.eye(4).flatten().tolist(), "fov": 24.0, "aspect": 1.0, "render_time": 0.0}
    content = {"camera_type": "perspective", "render_width": 64, "render_height": 64, "fps": 5, "camera_path": [camera]}
    path = tmp_path / "path.json"
    path.write_text(json.dumps(content))
    _damaged(path, "camera path", fault)
    output = tmp_path / "a.mp4"
    command = ["render", "--load-config", str(trained_config), "--camera-path", str(path), "--output", str(output)]
    _refused(tmp_path, path, lambda: cli.main(command), capsys)


@pytest.mark.parametrize("fault", [fault for kind, fault in CELLS if kind == "ply"])
def test_a_splat(fault: str, tmp_path: Path) -> None:
    from degstalk_ns.avatar.gaussians import EmbeddedGaussians, GaussiansConfig

    path = tmp_path / "a.ply"
    save_ply(path, EmbeddedGaussians(GaussiansConfig(num_points=50)))
    _damaged(path, "ply", fault)
    with pytest.raises(UserError) as refused:  # read by the Python interface alone
        load_ply(path)
    assert str(refused.value).startswith(f"{path}: ") and "\n" not in str(refused.value)
