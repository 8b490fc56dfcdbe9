"""Strange bytes and strange values: of the readers, only our own errors come out.

A few dozen examples of each here; `HYPOTHESIS_PROFILE=long` has thousands.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_plausibility import make_dataset

from degstalk_ns.animation.camera_path import read_camera_path
from degstalk_ns.audio.sound import load_sound
from degstalk_ns.configs.methods import degstalk_fast
from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.dataparsers.recording import read_recording
from degstalk_ns.errors import UserError, errors_caught_outside
from degstalk_ns.plugin.config_file import read_config_file
from degstalk_ns.reading.arrays import npy_shape, read_npy, read_npz
from degstalk_ns.reading.tensors import read_plain
from degstalk_ns.release.checkpoint import read_checkpoint
from degstalk_ns.viewer.access import TOKEN_NAME, _Flow, page_token, refusal

usual = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}
settings.register_profile("short", max_examples=40, **usual)
settings.register_profile("long", max_examples=5_000, **(usual | {"derandomize": False}))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


def _only_ours(read: Callable[[], object]) -> None:
    try:
        with errors_caught_outside():
            read()
    except UserError as error:
        assert "\n" not in str(error).strip()


NUMBERS = [b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7, b"99999999"]


def _flawed(content: bytes) -> st.SearchStrategy[bytes]:
    """``content`` cut, with bytes exchanged, put in or left out."""

    @st.composite
    def make(draw: st.DrawFn) -> bytes:
        data = bytearray(content)
        for _ in range(draw(st.integers(1, 6))):
            place = draw(st.integers(0, max(len(data) - 1, 0)))
            kind = draw(st.sampled_from(["cut", "exchange", "put in", "leave out", "number"]))
            if kind == "cut":
                del data[place:]
            elif kind == "exchange" and data:
                data[place] = draw(st.integers(0, 255))
            elif kind == "put in":
                data[place:place] = draw(st.binary(max_size=12))
            elif kind == "leave out":
                del data[place : place + draw(st.integers(1, 40))]
            else:
                data[place : place + 8] = draw(
                    st.sampled_from([b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7, b"99999999"])
                )
        return bytes(data)

    return make()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(string.ascii_letters, max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


def _sound(kind: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * np.sin(np.arange(4_000) / 9), 8_000, format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF"])
@given(data=st.data())
def test_sounds(kind: str, data: st.DataObject) -> None:
    _only_ours(lambda: load_sound(data.draw(_flawed(_sound(kind))), name="a"))


FLAC_OF_68_BILLION_SAMPLES = (
    b"fLaC\x80\x00\x00\x22\x10\x00\x10\x00" + bytes(6) + b"\x0a\xc4\x42\xff\xff\xff\xff\xff" + bytes(16)
)


@given(content=st.binary(max_size=300))
@example(
    b"fLaC" + bytes([0x80, 0, 0, 34]) + b"\x10\x00\x10\x00" + bytes(6) + b"\x0a\xc4\x42\xff\xff\xff\xff\xff" + bytes(16)
)
def test_bytes_that_are_no_sound(content: bytes) -> None:
    _only_ours(lambda: load_sound(content, name="a"))


CONFIG = yaml.dump(degstalk_fast.config)


@given(content=_flawed(CONFIG.encode()))
def test_configs(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz_config.yml"
    path.write_bytes(content)
    _only_ours(lambda: read_config_file(path, "expected a config"))


PATH = {
    "camera_type": "perspective",
    **{"render_width": 64, "render_height": 48, "fps": 5, "seconds": 1},
    "camera_path": [{"camera_to_world": np.eye(4).flatten().tolist(), "fov": 24.0, "aspect": 1.0, "render_time": 0.5}],
}


@given(data=st.data())
def test_camera_paths(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz_path.json"
    content: dict[str, Any] = json.loads(json.dumps(PATH))
    if data.draw(st.booleans()):
        path.write_bytes(data.draw(_flawed(json.dumps(content).encode())))
    else:
        place = data.draw(st.sampled_from([content, content["camera_path"][0]]))
        place[data.draw(st.sampled_from(sorted(place)))] = data.draw(anything)
        path.write_text(json.dumps(content))
    _only_ours(lambda: read_camera_path(path).at(3))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("fuzz") / "me", frames=12)


FILES = (
    "transforms_train.json",
    "ori_imgs/0.jpg",
    "parsing/0.png",
    "ori_imgs/3.lms",
    "3dmm.npz",
    "aud_mel.npy",
    "au.csv",
)


@pytest.mark.parametrize("name", (*FILES, "teeth_mask/0.npy", "torso_imgs/0.png"))
@given(data=st.data())
def test_files_of_a_dataset(name: str, data: st.DataObject, small: Path) -> None:
    path, aside = small / name, small.parent / "aside"
    shutil.copy(path, aside)
    try:
        path.write_bytes(data.draw(_flawed(aside.read_bytes())))
        _only_ours(lambda: read_frame(read_recording(small), 0, ("image", "masks", "teeth", "plate", "torso_image")))
    finally:
        shutil.copy(aside, path)


@given(data=st.data())
def test_values_of_transforms(data: st.DataObject, small: Path) -> None:
    path = Layout(small).transforms("train")
    old = path.read_text()
    content = json.loads(old)
    place = data.draw(st.sampled_from([content, content["frames"][0]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(anything)
    try:
        path.write_text(json.dumps(content))
        _only_ours(lambda: read_recording(small))
    finally:
        path.write_text(old)


def _torch_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"expression_params": torch.zeros(3, 5), "a": [np.zeros(3), 1.5, "b"]}, buffer)
    return buffer.getvalue()


def _arrays(compressed: bool) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, a=np.arange(12.0), b=np.ones((3, 4), np.float32))
    return buffer.getvalue()


def _array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(30.0).reshape(5, 6))
    return buffer.getvalue()


@given(data=st.data())
def test_arrays_and_tensors(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    for name, content, read in (
        ("fuzz.npy", _array(), lambda path: (read_npy(path, "a", "b"), npy_shape(path, "a", "b"))),
        ("fuzz.npz", _arrays(False), lambda path: read_npz(path, ("a", "b"), "c")),
        ("fuzz_c.npz", _arrays(True), lambda path: read_npz(path, ("a", "b"), "c")),
        ("fuzz.pt", _torch_file(), lambda path: read_plain(path, "a")),
        ("fuzz.pth", _torch_file(), read_checkpoint),
    ):
        (folder / name).write_bytes(data.draw(_flawed(content)))
        _only_ours(lambda read=read, name=name: read(folder / name))  # type: ignore[misc]


@given(message=st.binary(max_size=200) | anything.map(lambda value: _packed(value)) | st.text())
def test_messages_of_pages(message: bytes | str) -> None:
    why = _Flow().unwanted(message)
    assert why is None or isinstance(why, str)


def _packed(value: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, ValueError, TypeError):
        return b""


text = st.text(max_size=30)


@given(path=text, headers=st.dictionaries(st.sampled_from(["Host", "Origin", "Cookie"]), text, max_size=3))
def test_requests(path: str, headers: dict[str, str]) -> None:
    try:
        why = refusal(f"/{path}", headers, {"studio"}, (), page_token())
    except (ValueError, LookupError):  # answered as nonsense
        return
    assert isinstance(why, str)  # nobody guesses the token
    assert TOKEN_NAME not in why
