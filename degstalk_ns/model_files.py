"""Where the model files of others are (MediaPipe's two, Whisper's): the user's folder, the user's cache, or one checked
download.

It knows names, addresses and hashes only; it must not know MediaPipe or Whisper, nor what the models are used for.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import pooch

from degstalk_ns.errors import UserError

MODELS_VARIABLE: Final[str] = "DEGSTALK_MODELS"
"""Environment variable that names a folder with the model files."""
WHISPER_SIZES: Final[tuple[str, ...]] = ("tiny", "base", "small")
"""Whisper's multilingual models that are used: 39, 74 and 244 million parameters."""

OFFLINE_VARIABLE: Final[str] = "HF_HUB_OFFLINE"
"""Environment variable that keeps programs from fetching Whisper's models, here as in the hub's own tools."""
LARGE_FILE: Final[str] = "model.bin"
"""What takes long enough to fetch that a line says so."""

CONNECT_TIMEOUT: Final[float] = 5.0
"""Seconds to wait for the server, so that a machine without a network fails at once."""


@dataclass(frozen=True)
class ModelFile:
    """One file to find: its ``name``, the ``url`` it is published at and the ``sha256`` of the release that is used."""

    name: str
    url: str
    sha256: str


FACE_LANDMARKER: Final = ModelFile(
    name="face_landmarker.task",
    url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
    sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
)
SELFIE_SEGMENTER: Final = ModelFile(
    name="selfie_multiclass_256x256.tflite",
    url="https://storage.googleapis.com/mediapipe-models/image_segmenter/selfie_multiclass_256x256/float32/latest/"
    "selfie_multiclass_256x256.tflite",
    sha256="c6748b1253a99067ef71f7e26ca71096cd449baefa8f101900ea23016507e0e0",
)


_HUB: Final[str] = "https://huggingface.co/Systran/faster-whisper-{size}/resolve/{revision}/{file}"
"""Whisper's models (MIT) as CTranslate2 reads them."""
_WHISPER_REVISIONS: Final[dict[str, str]] = {
    "tiny": "d90ca5fe260221311c53c58e660288d3deb8d356",
    "base": "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
    "small": "536b0662742c02347bc0e980a01041f333bce120",
}
_WHISPER_HASHES: Final[dict[str, dict[str, str]]] = {
    "tiny": {
        "config.json": "a73a28cdfe1c43ccc7202fa333d1f89c202477271407ae9a7f19afa52039cac8",
        "model.bin": "dcb76c6586fc06cbdac6dd21f14cfd129cc4cdd9dce19bf4ffa62e59cbe6e6d1",
    },
    "base": {
        "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    },
    "small": {
        "config.json": "b55496ac7940a7ae47d2c01eab40edfd8701feec1229d9cce3b40014383fb828",
        "model.bin": "3e305921506d8872816023e4c273e75d2419fb89b24da97b4fe7bce14170d671",
    },
}
_WHISPER_VOCABULARY: Final[tuple[str, str]] = (
    "vocabulary.txt",
    "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
)


def face_landmarker() -> Path:
    """Path of the FaceLandmarker bundle (478 landmarks, 52 blendshapes). Raises ``UserError``; see :func:`locate`."""
    return locate(FACE_LANDMARKER)


def selfie_segmenter() -> Path:
    """Path of the multiclass selfie segmenter. Raises ``UserError``; see :func:`locate`."""
    return locate(SELFIE_SEGMENTER)


def whisper_model(size: str) -> Path:
    """Folder of a Whisper model as CTranslate2 reads it: ``whisper-<size>`` in ``$DEGSTALK_MODELS``, which may be the
    user's own conversion, else in the user's cache, else downloaded into it (tiny 76 MB, base 145 MB, small 484 MB).

    Raises:
        UserError: no such size; a file in the cache is damaged; or it cannot be downloaded.
    """
    if size not in WHISPER_SIZES:
        raise UserError(f"Whisper has no model {size!r} here; expected one of {', '.join(WHISPER_SIZES)}")
    name = f"whisper-{size}"
    folder = os.environ.get(MODELS_VARIABLE)
    if folder and (own := Path(folder).expanduser() / name).is_dir():
        return own
    for file in whisper_files(size):
        if os.environ.get(OFFLINE_VARIABLE, "0") not in ("", "0") and not (cache_folder() / file.name).is_file():
            raise UserError(
                f"{file.name}: not found in ${MODELS_VARIABLE} nor {cache_folder()}, and {OFFLINE_VARIABLE} is set: "
                f"unset it, or put the model into a folder and set {MODELS_VARIABLE} to it"
            )
        locate(file)
    return cache_folder() / name


def cache_folder() -> Path:
    """The user's cache folder of this package (need not exist)."""
    return Path(pooch.os_cache("degstalk-ns"))


def present(model: ModelFile) -> Path | None:
    """The file that :func:`locate` would take, without a download; None where there is none.

    Raises:
        UserError: it has another hash.
    """
    folder = os.environ.get(MODELS_VARIABLE)
    places = [Path(folder).expanduser()] if folder else []
    found = next((place / model.name for place in (*places, cache_folder()) if (place / model.name).is_file()), None)
    return None if found is None else _checked(found, model)


def whisper_files(size: str) -> list[ModelFile]:
    """The files of a Whisper model; ``size`` is one of :data:`WHISPER_SIZES`."""
    hashes = dict([*_WHISPER_HASHES[size].items(), _WHISPER_VOCABULARY])
    revision = _WHISPER_REVISIONS[size]
    return [
        ModelFile(f"whisper-{size}/{file}", _HUB.format(size=size, revision=revision, file=file), sha256)
        for file, sha256 in hashes.items()
    ]


def locate(model: ModelFile) -> Path:
    """A file with the right hash: ``$DEGSTALK_MODELS`` first, then the user's cache, else downloaded into the cache.

    Raises:
        UserError: a file of that name with another hash lies in ``$DEGSTALK_MODELS`` or the cache; or there is none
            and it cannot be downloaded.
    """
    found = present(model)
    return _download(model) if found is None else found


@lru_cache(maxsize=32)
def _sha256(path: Path, size: int, modified: int) -> str:
    """Hash of a file, computed again if its ``size`` or time (ns) changes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _checked(path: Path, model: ModelFile) -> Path:
    try:
        stat = path.stat()
        digest = _sha256(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); make it readable or remove it") from error
    if digest != model.sha256:
        raise UserError(
            f"{path}: sha256 is {digest[:12]}..., expected {model.sha256[:12]}...; the file is damaged or another "
            f"release: remove it, or replace it with {model.url}"
        )
    return path


def _download(model: ModelFile) -> Path:
    if Path(model.name).name == LARGE_FILE:
        print(f"fetching {model.url} ...", file=sys.stderr, flush=True)
    logger = pooch.get_logger()
    level = logger.level
    # pooch announces each download at INFO and each failed attempt with a traceback-like line; ours is one line.
    logger.setLevel(logging.ERROR)
    try:
        return Path(
            pooch.retrieve(
                url=model.url,
                known_hash=f"sha256:{model.sha256}",
                fname=Path(model.name).name,
                path=cache_folder() / Path(model.name).parent,
                downloader=pooch.HTTPDownloader(timeout=CONNECT_TIMEOUT),
            )
        )
    except Exception as error:  # requests, urllib3, OSError and pooch's ValueError (wrong hash) all end here
        raise UserError(
            f"{model.name}: not found in ${MODELS_VARIABLE} nor in {cache_folder()}, and downloading it failed "
            f"({type(error).__name__}); fetch {model.url} elsewhere, put it in a folder and set {MODELS_VARIABLE} to "
            "that folder"
        ) from error
    finally:
        logger.setLevel(level)
