"""The faults of the matrix (test_matrix.py): what each of them makes of a file of each kind."""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml

FAULTS = (
    *("absent", "empty", "truncated", "random bytes", "wrong type", "wrong shape", "NaN", "negative", "huge"),
    *("of another set", "no permission", "a folder"),
)


def _npy(array: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)  # type: ignore[arg-type]
    return buffer.getvalue()


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def torch_file(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _face(**changes: Any) -> dict[str, Any]:
    names = {"expression_params": 50, "jaw_params": 3, "eyelid_params": 2}
    return {name: np.zeros((24, width), np.float32) for name, width in names.items()} | changes


def face_tensors(**changes: Any) -> dict[str, Any]:
    return {name: torch.from_numpy(value) for name, value in _face(**changes).items()}


def _png(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])


def jpg(image: np.ndarray) -> bytes:
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
DAMAGE_OF: dict[tuple[str, str], Damage] = {
    ("process record", "of another set"): lambda old: re.sub(rb'"sha1": "\w+"', b'"sha1": "0"', old),
    ("transforms", "wrong type"): lambda _: b'["a", "list"]',
    ("transforms", "wrong shape"): lambda old: _edited(old, lambda v: v["frames"][0].update(transform_matrix=[[1, 2]])),
    ("transforms", "NaN"): lambda old: _edited(old, lambda v: _first_pose(v, 0, 3, float("nan"))),
    ("transforms", "negative"): lambda old: _edited(old, lambda v: v["frames"][0].update(img_id=-3)),
    ("transforms", "huge"): lambda old: _edited(old, lambda v: v["frames"][0].update(img_id=10**400)),
    ("transforms", "of another set"): lambda old: _edited(old, lambda v: v["frames"][0].update(img_id=999)),
    ("frame", "wrong type"): lambda _: b"GIF89a" + bytes(100),
    ("frame", "wrong shape"): lambda _: jpg(SMALL),
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
    ("3dmm pt", "wrong type"): lambda _: torch_file([1, 2, 3]),
    ("3dmm pt", "wrong shape"): lambda _: torch_file(face_tensors(eyelid_params=np.zeros((24, 9), np.float32))),
    ("3dmm pt", "NaN"): lambda _: torch_file(face_tensors(expression_params=NAN)),
    ("features", "wrong type"): lambda _: _npy(np.array(["a", "b"])),
    ("features", "wrong shape"): lambda _: _npy(np.zeros((24, 5, 64), np.float32)),
    ("features", "NaN"): lambda _: _npy(np.full((24, 16, 64), np.nan, np.float32)),
    ("action units", "wrong type"): lambda _: b"AU25_r,AU45_r\nyes,no\n",
    ("action units", "NaN"): lambda _: b"AU25_r,AU45_r\n" + b"nan,0\n" * 24,
    ("torso", "wrong type"): lambda _: _png(np.zeros((64, 64, 3), np.uint8)),  # no alpha
    ("torso", "wrong shape"): lambda _: _png(np.zeros((32, 32, 4), np.uint8)),
    ("torso", "huge"): lambda old: _said_size(old, 60_000),
    ("clean plate", "wrong type"): lambda _: b"RIFF" + bytes(40),
    ("clean plate", "wrong shape"): lambda _: jpg(SMALL),
    ("clean plate", "huge"): lambda old: _said_size(old, 60_000),
    ("video", "wrong type"): lambda _: jpg(SMALL),
    ("video", "huge"): lambda old: old.replace(b"\xb0\x81\x40", b"\xb0\x84\x7f\xff\xff\xff", 1),
    ("sound", "wrong type"): lambda _: jpg(SMALL),
    ("upload", "wrong type"): lambda _: jpg(SMALL),
    ("config", "wrong type"): lambda _: b"just: a mapping\n",
    ("config", "of another set"): lambda _: yaml.dump(_other_method()).encode(),
    ("checkpoint", "wrong type"): lambda _: torch_file({"weights": torch.zeros(3)}),
    ("checkpoint", "wrong shape"): lambda old: _changed_state(old, lambda t: torch.zeros(3, 5)),
    ("checkpoint", "NaN"): lambda old: _changed_state(old, lambda t: t * torch.nan),
    ("checkpoint", "of another set"): lambda _: torch_file({"step": 3, "pipeline": {"_model.means": torch.zeros(4)}}),
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
    return torch_file(state)


def damage(path: Path, kind: str, fault: str) -> None:
    """Puts the fault into the file."""
    old = path.read_bytes() if path.exists() else b""
    if fault == "absent":
        path.unlink()
    elif fault == "a folder":
        path.unlink()
        path.mkdir()
    elif fault == "no permission":
        path.chmod(0)
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "truncated":
        path.write_bytes(old[: len(old) * 2 // 3])
    elif fault == "random bytes":
        path.write_bytes(np.random.default_rng(0).bytes(3_000))
    else:
        path.write_bytes(DAMAGE_OF[kind, fault](old))
