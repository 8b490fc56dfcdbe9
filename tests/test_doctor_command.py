"""`degstalk doctor`: what is there and what is missing, without paths and without a download."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from degstalk_ns import model_files
from degstalk_ns.scripts import cli
from degstalk_ns.scripts.commands import doctor


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refused(*_: object) -> None:
        raise AssertionError("it went to the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    yield


def test_everything_is_said_without_paths_or_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert all(line[:7] in ("[ ok ] ", "[note] ", "[BAD ] ") for line in lines)
    said = "\n".join(lines)
    for part in ("degstalk-ns", "torch ", "nerfstudio ", "cores", "GB of memory", "face_landmarker.task", "libx264"):
        assert part in said
    assert "the rasterizer draws a Gaussian" in said and "degstalk-fast" in said and "BAD" not in said
    assert str(Path.home()) not in said and str(Path.cwd()) not in said and f"/{getpass.getuser()}/" not in said


def test_what_is_missing_or_damaged_is_named_with_what_it_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(model_files.MODELS_VARIABLE, str(tmp_path))
    monkeypatch.setattr(model_files, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "face_landmarker.task").write_bytes(b"half of it")
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "--fast"])
    said = capsys.readouterr()
    assert ended.value.code == 1 and "1 of these lines say BAD" in said.err
    assert "[BAD ] face_landmarker.task: damaged" in said.out
    assert "[note] selfie_multiclass_256x256.tflite: not there yet" in said.out
    assert "[note] whisper-base/model.bin: not there yet" in said.out and "perceptual losses" in said.out
    assert str(tmp_path) not in said.out and "rasterizer" not in said.out
    assert not (tmp_path / "cache").exists()


def test_packages_that_are_absent_or_too_old_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["torch>=99", "no-such-package", "numpy<2 ; python_version < '3'", "av>=1", "pytest ; extra == 'dev'"]
    monkeypatch.setattr(doctor, "requires", lambda name: wanted)
    marks = [(finding.mark, finding.text) for finding in doctor._installation()]
    bad = [text for mark, text in marks if mark == "bad"]
    assert len(bad) == 2 and "torch>=99 is needed" in bad[0] and "no-such-package is not installed" in bad[1]
    assert marks[-1][1].startswith("torch ") and "av " in marks[-1][1] and "pytest" not in marks[-1][1]
