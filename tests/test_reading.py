"""Files of unknown origin: arrays, tensors, JSON. What is broken is one line, and floods are refused beforehand."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from degstalk_ns.errors import UserError
from degstalk_ns.reading import arrays
from degstalk_ns.reading.arrays import npy_shape, read_npy, read_npz
from degstalk_ns.reading.json_file import is_number, read_json, shown
from degstalk_ns.reading.tensors import read_plain


def _npy(array: object, **header: object) -> bytes:
    buffer = io.BytesIO()
    if header:
        np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False} | header)
    else:
        np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def _npz(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", content)
    return buffer.getvalue()


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "random": np.random.default_rng(0).bytes(400),
    "magic alone": b"\x93NUMPY",
    "a header that is no literal": b"\x93NUMPY\x01\x00\x10\x00{'descr': import }",
    "a header with too many brackets": b"\x93NUMPY\x01\x00\x40\x00" + b"(" * 64,
    "a flood": _npy(0, shape=(10**12,)),
    "a negative size": _npy(0, shape=(-3,)),
    "a size of many digits": b"\x93NUMPY\x01\x00\xff\x01"
    + b"{'descr':'<f8','fortran_order':False,'shape':(" + b"9" * 400 + b",)}".ljust(60),
    "cut short": _npy(np.zeros(100))[:-9],
    "objects": _npy(np.array([{}], dtype=object)),
    "text": _npy(np.array(["a"])),
    "a zip": _npz(_npy(np.zeros(3))),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_arrays_are_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(BROKEN[kind])
    for read in (read_npy, npy_shape):
        with pytest.raises(UserError) as refused:
            read(path, "a mask", "make it again")
        line = str(refused.value)
        assert line.startswith(f"{path}: ") and line.endswith("make it again") and "\n" not in line


@pytest.mark.parametrize("kind", [kind for kind in BROKEN if kind != "text"])
def test_broken_archives_are_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for content in (BROKEN[kind], _npz(BROKEN[kind]), _npy(np.zeros(3))):
        path.write_bytes(content)
        if kind == "a zip" and content == BROKEN[kind]:
            assert np.array_equal(read_npz(path, ("a", "b"), "")["a"], np.zeros(3))
            continue
        with pytest.raises(UserError, match=r"a\.npz: not readable as an \.npz file \(.*\); make it again"):
            read_npz(path, ("a", "b"), "make it again")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "LARGEST_BYTES", 1000)
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(200), b=np.zeros(3))
    with pytest.raises(UserError, match="a promises 1600 bytes"):
        read_npz(tmp_path / "a.npz", ("a",), "make it again")
    assert list(read_npz(tmp_path / "a.npz", ("b", "c"), "")) == ["b"]


def test_arrays_are_read_as_they_are(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(3, 4))
    np.save(tmp_path / "a.npy", array)
    found = read_npy(tmp_path / "a.npy", "", "")
    assert np.array_equal(found, array) and found.flags.writeable and not isinstance(found, np.memmap)
    assert npy_shape(tmp_path / "a.npy", "", "") == (3, 4)
    with pytest.raises(UserError, match="missing; make it again"):
        read_npy(tmp_path / "b.npy", "", "make it again")


@pytest.mark.parametrize("core", ["core", "_core"])
@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "int16", "int64", "uint32", "bool"])
def test_arrays_that_numpy_1_or_2_wrote_into_files_of_torch_are_read(core: str, kind: str, tmp_path: Path) -> None:
    array = np.ones((2, 3), kind)
    path = tmp_path / "a.pt"
    torch.save({"a": array, "b": array[0, 0]}, path, _use_new_zipfile_serialization=False)
    other = path.read_bytes().replace(b"numpy.core.multiarray", f"numpy.{core}.multiarray".encode())
    path.write_bytes(other.replace(b"numpy._core.multiarray", f"numpy.{core}.multiarray".encode()))
    found = read_plain(path, "")
    assert np.array_equal(found["a"], array) and found["b"] == array[0, 0]


@pytest.mark.parametrize(
    "content", [b"", b"a", b"t.", b"R", b".", b"\x80\x02.", pickle.dumps({"a": print}), b"PK\x03\x04"]
)
def test_broken_files_of_torch_are_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.pt: not readable as plain tensors .*; make it again") as refused:
        read_plain(tmp_path / "a.pt", "make it again")
    assert "\n" not in str(refused.value)


WRONG: dict[str, Callable[[Path], object]] = {
    "no JSON": lambda path: path.write_text("{"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "no text": lambda path: path.write_bytes(b"\xff\xfe"),
    "digits without end": lambda path: path.write_text("9" * 10_000),
}


@pytest.mark.parametrize("kind", WRONG)
def test_broken_json_is_one_line(kind: str, tmp_path: Path) -> None:
    WRONG[kind](tmp_path / "a.json")
    with pytest.raises(UserError, match=r"a\.json: not readable as JSON .*; make it again"):
        read_json(tmp_path / "a.json", "make it again")


def test_numbers_are_finite_and_of_few_digits() -> None:
    assert [is_number(value) for value in (1, -2.5, 0, 10**300)] == [True] * 4
    wrong = (True, None, "1", float("nan"), float("inf"), 10**400, json.loads("1e999"), [1])
    assert not any(is_number(value) for value in wrong)
    assert shown("x" * 100).endswith("...") and shown(3) == "3" and shown(10**5_000) == "an integer that is too long"
