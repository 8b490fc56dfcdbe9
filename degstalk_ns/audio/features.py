"""Audio features, one interface: what each is called, its width, how far it looks ahead, how it is computed from any
sound, and how a dataset stores it (``aud_<name>.npy``).

Vectors are stored once, [V, C]; the windows of frames, which overlap, are views of them. Files of the AD-NeRF family's
extractors hold the windows themselves, [T, L, C]. It must not know networks that are driven by features, or nerfstudio.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.audio.mel import MelConfig, log_mel
from degstalk_ns.audio.transformer_features import CONTEXT_SECONDS, STEP_SECONDS, hidden_states
from degstalk_ns.audio.whisper import WhisperConfig, whisper_vectors
from degstalk_ns.audio.windows import VECTORS_PER_SECOND, windows_of
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import FRAME_RATE, SAMPLE_RATE
from degstalk_ns.reading.access import refuse_unreadable
from degstalk_ns.reading.arrays import read_npy

SHAPES: Final[dict[str, tuple[int, int | None]]] = {"mel": (16, None), "ds": (16, 29), "hu": (2, 1024)}
"""Window length L and width C of the features with known names; None is any width."""


@dataclass(frozen=True)
class Feature:
    """A kind of audio features that can be computed for any sound.

    Attributes:
        name: ``<name>`` of ``aud_<name>.npy``.
        channels: C; None where it is that of the model which is used.
        look_ahead: seconds by which a vector depends on sound that comes after it; the window of a frame adds 0.16 s,
            and the attention over neighbouring frames 0.12 s.
        compute: [S] samples at 16 kHz -> [V, C], vector ``j`` centred on ``j / 50`` s.
        silence: value of every channel where there is no sound; None where that is not one value.
    """

    name: str
    channels: int | None
    look_ahead: float
    compute: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    silence: float | None = None


_WHISPER_AHEAD: Final[float] = WhisperConfig().step_seconds + WhisperConfig().context_seconds
FEATURES: Final[dict[str, Feature]] = {
    feature.name: feature
    for feature in (
        Feature("mel", MelConfig().channels, 0.032, log_mel, MelConfig().silence),
        Feature("whisper-tiny", 384, _WHISPER_AHEAD, lambda s: whisper_vectors(s, WhisperConfig("tiny"))),
        Feature("whisper-base", 512, _WHISPER_AHEAD, lambda s: whisper_vectors(s, WhisperConfig("base"))),
        Feature("whisper-small", 768, _WHISPER_AHEAD, lambda s: whisper_vectors(s, WhisperConfig("small"))),
        Feature("hubert", None, STEP_SECONDS + CONTEXT_SECONDS, lambda s: hidden_states("hubert", s)),
        Feature("wav2vec2", None, STEP_SECONDS + CONTEXT_SECONDS, lambda s: hidden_states("wav2vec2", s)),
    )
}
"""Features that can be computed here."""


def feature_availability(name: str) -> str | None:
    """None if the features called ``name`` can be computed, else why not and what to do, in one line. It may download
    the model that they need."""
    if name not in FEATURES:
        return f"features {name!r} cannot be computed here; expected some of {', '.join(FEATURES)}"
    try:
        FEATURES[name].compute(np.zeros(SAMPLE_RATE // 10, np.float32))
    except UserError as error:
        return str(error)
    return None


def silent_windows(name: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Windows [T, L, C] of silence for the features called ``name``; None where silence is not a known constant
    (networks answer to silence with what they make of it)."""
    silence = FEATURES[name].silence if name in FEATURES else None
    return None if silence is None else np.full(shape, silence, np.float32)


def computed_windows(name: str, waveform: NDArray[np.float32], num_frames: int) -> NDArray[np.float32]:
    """Windows [T, 16, C] of a sound [S] (16 kHz) for the features called ``name``, one of :data:`FEATURES`.

    Raises:
        UserError: the model that they need cannot be had.
    """
    feature = FEATURES[name]
    return windows_of(feature.compute(waveform), num_frames, feature.silence)


def read_vectors(path: Path) -> NDArray[np.floating]:
    """Read the vectors [V, C] of ``aud_<name>.npy``, as they are stored (float16 or float32).

    Raises:
        UserError: the file is missing or unreadable, of the wrong rank or width, or holds NaN.
    """
    return _checked(_read(path), path)


def _checked(vectors: NDArray[np.floating], path: Path) -> NDArray[np.floating]:
    feature = FEATURES.get(_name(path))
    if vectors.ndim != 2 or not len(vectors):
        raise UserError(f"{path}: expected vectors [V, C], got {list(vectors.shape)}; make it again")
    if feature is not None and feature.channels not in (None, vectors.shape[1]):
        raise UserError(
            f"{path}: vectors have {vectors.shape[1]} channels, expected {feature.channels} of {feature.name}; make it "
            "again"
        )
    if not np.isfinite(vectors).all():
        raise UserError(f"{path}: holds NaN or infinity; make it again")
    return vectors


def read_windows(path: Path) -> NDArray[np.float32]:
    """Read the audio windows of a dataset.

    Args:
        path: ``aud_<name>.npy``: mel [T, 16, C], ds (DeepSpeech) [T, 16, 29], hu (HuBERT) [T, 2, 1024], the vectors
            [V, C] of a feature of :data:`FEATURES`; another name may have any [T, L, C].

    Returns:
        float32 [T, L, C].

    Raises:
        UserError: the file is missing or unreadable, or of the wrong rank or width, or holds NaN.
    """
    name = _name(path)
    windows = _read(path)
    if windows.ndim == 2 and name in FEATURES:
        vectors = _checked(windows, path)
        return windows_of(vectors, len(vectors) * int(FRAME_RATE) // VECTORS_PER_SECOND, FEATURES[name].silence)
    if windows.ndim != 3:
        raise UserError(f"{path}: expected numbers [frames, vectors, channels], got {windows.shape}; make it again")
    windows = windows.astype(np.float32, copy=False)
    length, width = SHAPES.get(name, (windows.shape[1], None))
    if windows.shape[1] != length or (width is not None and windows.shape[2] != width):
        raise UserError(
            f"{path}: windows are {windows.shape[1]} x {windows.shape[2]}, expected {length} x {width or 'C'}; "
            "is it the file of another feature extractor?"
        )
    if not np.isfinite(windows).all():
        frame = int(np.flatnonzero(~np.isfinite(windows).all((1, 2)))[0])
        raise UserError(f"{path}: holds NaN or infinity (first in frame {frame}); make it again")
    return windows


def _name(path: Path) -> str:
    return path.stem.removeprefix("aud_")


def _read(path: Path) -> NDArray[np.floating]:
    refuse_unreadable(path)
    if not path.is_file():
        raise UserError(
            f"{path}: missing; expected audio features, made by `degstalk process` ({', '.join(FEATURES)}) "
            f"or by the extractor of {_name(path)!r}"
        )
    return read_npy(path, "an array [frames, vectors, channels]", "make it again")
