"""Where MediaPipe's two model files are: the user's folder, the user's cache, or one checked download.

It knows names, addresses and hashes only; it must not know MediaPipe, nor what the models are used for.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pooch

from degstalk_ns.errors import UserError

MODELS_VARIABLE: Final[str] = "DEGSTALK_MODELS"
"""Environment variable that names a folder with the model files."""

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


def face_landmarker() -> Path:
    """Path of the FaceLandmarker bundle (478 landmarks, 52 blendshapes). Raises ``UserError``; see :func:`locate`."""
    return locate(FACE_LANDMARKER)


def selfie_segmenter() -> Path:
    """Path of the multiclass selfie segmenter. Raises ``UserError``; see :func:`locate`."""
    return locate(SELFIE_SEGMENTER)


def cache_folder() -> Path:
    """The user's cache folder of this package (need not exist)."""
    return Path(pooch.os_cache("degstalk-ns"))


def locate(model: ModelFile) -> Path:
    """A file with the right hash: ``$DEGSTALK_MODELS`` first, then the user's cache, else downloaded into the cache.

    Raises:
        UserError: a file of that name with another hash lies in ``$DEGSTALK_MODELS`` or the cache; or there is none
            and it cannot be downloaded.
    """
    folder = os.environ.get(MODELS_VARIABLE)
    if folder:
        own = Path(folder).expanduser() / model.name
        if own.is_file():
            return _checked(own, model)
    cached = cache_folder() / model.name
    if cached.is_file():
        return _checked(cached, model)
    return _download(model)


def _checked(path: Path, model: ModelFile) -> Path:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); make it readable or remove it") from error
    if digest != model.sha256:
        raise UserError(
            f"{path}: sha256 is {digest[:12]}..., expected {model.sha256[:12]}...; the file is damaged or another "
            f"release: remove it, or replace it with {model.url}"
        )
    return path


def _download(model: ModelFile) -> Path:
    logger = pooch.get_logger()
    level = logger.level
    # pooch announces each download at INFO and each failed attempt with a traceback-like line; ours is one line.
    logger.setLevel(logging.ERROR)
    try:
        return Path(
            pooch.retrieve(
                url=model.url,
                known_hash=f"sha256:{model.sha256}",
                fname=model.name,
                path=cache_folder(),
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
