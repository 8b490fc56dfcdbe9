"""Audio windows of a dataset are read, and refused in one line where they cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from degstalk_ns.audio.features import read_windows
from degstalk_ns.errors import UserError


@pytest.mark.parametrize(("name", "shape"), [("mel", (30, 16, 64)), ("ds", (30, 16, 29)), ("hu", (30, 2, 1024))])
def test_window_files_are_read(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    path = tmp_path / f"aud_{name}.npy"
    values = np.random.default_rng(0).standard_normal(shape)
    np.save(path, values)
    found = read_windows(path)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, values, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("ds", (30, 16, 44), "16 x 44, expected 16 x 29"),
        ("mel", (30, 8, 64), "8 x 64, expected 16 x C"),
        ("ds", (30, 29), "expected numbers"),
        ("whisper-base", (30, 64), "64 channels, expected 512"),
    ],
)
def test_window_files_of_the_wrong_shape(tmp_path: Path, name: str, shape: tuple[int, ...], message: str) -> None:
    path = tmp_path / f"aud_{name}.npy"
    np.save(path, np.zeros(shape, np.float32))
    with pytest.raises(UserError, match=message):
        read_windows(path)


def test_window_files_with_nan_or_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "aud_mel.npy"
    with pytest.raises(UserError, match="missing"):
        read_windows(path)
    values = np.zeros((30, 16, 64), np.float32)
    values[12, 3, 4] = np.nan
    np.save(path, values)
    with pytest.raises(UserError, match=r"NaN or infinity.*frame 12"):
        read_windows(path)
    path.write_bytes(b"junk")
    with pytest.raises(UserError, match="not readable as an array"):
        read_windows(path)
    np.save(path, np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="not readable as an array"):
        read_windows(path)
