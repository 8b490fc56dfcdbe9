import hashlib
import subprocess
import sys
from pathlib import Path

import pooch
import pytest

from degstalk_ns import model_files
from degstalk_ns.errors import UserError

CONTENT = b"a model"
MODEL = model_files.ModelFile("a.task", "https://example.invalid/a.task", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    own, cache = tmp_path / "own", tmp_path / "cache"
    own.mkdir()
    cache.mkdir()
    monkeypatch.setenv(model_files.MODELS_VARIABLE, str(own))
    monkeypatch.setattr(model_files, "cache_folder", lambda: cache)
    return own, cache


def test_own_folder_comes_before_the_cache(folders: tuple[Path, Path]) -> None:
    own, cache = folders
    (cache / MODEL.name).write_bytes(CONTENT)
    assert model_files.locate(MODEL) == cache / MODEL.name
    (own / MODEL.name).write_bytes(CONTENT)
    assert model_files.locate(MODEL) == own / MODEL.name


@pytest.mark.parametrize("which", [0, 1])
def test_wrong_hash_is_refused_and_named(folders: tuple[Path, Path], which: int) -> None:
    path = folders[which] / MODEL.name
    path.write_bytes(b"something else")
    with pytest.raises(UserError) as caught:
        model_files.locate(MODEL)
    assert str(path) in str(caught.value) and "sha256" in str(caught.value) and MODEL.url in str(caught.value)


def test_absent_and_offline_says_what_to_put_where(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(self: pooch.HTTPDownloader, *args: object, **kwargs: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", no_network)
    with pytest.raises(UserError) as caught:
        model_files.locate(MODEL)
    message = str(caught.value)
    assert "\n" not in message
    for part in (MODEL.name, MODEL.url, "DEGSTALK_MODELS"):
        assert part in message
    assert not list(folders[1].iterdir()), "nothing half-written stays in the cache"


def test_download_is_checked_by_hash(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    content = CONTENT

    def server(self: pooch.HTTPDownloader, url: str, output_file: str, *args: object, **kwargs: object) -> None:
        Path(output_file).write_bytes(content)

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", server)
    content = b"tampered with"
    with pytest.raises(UserError):
        model_files.locate(MODEL)
    content = CONTENT
    assert model_files.locate(MODEL).read_bytes() == CONTENT
    assert model_files.locate(MODEL).parent == folders[1]


def test_importing_downloads_nothing() -> None:
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise SystemExit('network used at import')\n"
        "socket.socket.connect = refuse\n"
        "import degstalk_ns.model_files"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
