"""Whisper's encoder: waveform -> phonetic vectors that hardly depend on the speaker, 50 a second.

It must not know files of datasets, videos or faces.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import librosa
import numpy as np
from numpy.typing import NDArray

from degstalk_ns import model_files
from degstalk_ns.audio.windows import VECTORS_PER_SECOND
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import SAMPLE_RATE

WhisperSize = Literal["tiny", "base", "small"]
_FFT, _HOP, _BANDS = 400, 160, 80
_LONGEST_SECONDS: Final[float] = 30.0
"""What the encoder was trained on; it takes no longer input."""


@dataclass(frozen=True)
class WhisperConfig:
    """How a sound is heard by Whisper's encoder (Radford et al. 2022)."""

    size: WhisperSize = "base"
    """Which of Whisper's multilingual models: tiny, base or small."""
    step_seconds: float = 20.0
    """Length of the parts in which a long sound is encoded, in seconds."""
    context_seconds: float = 5.0
    """Sound before and after a part that the encoder hears too, in seconds."""
    look_ahead_seconds: float | None = None
    """Maximum time, in seconds, by which vectors depend on sound that comes after them. None lets them depend on all of
    their part and its context, which is best for recorded sound; live use needs a limit."""
    causal_step_seconds: float = 0.08
    """With a limit, the length of the parts, in seconds. Each is encoded with all that it may hear."""
    causal_context_seconds: float = 3.0
    """With a limit, sound before a part that the encoder hears too, in seconds."""


def whisper_vectors(waveform: NDArray[np.float32], config: WhisperConfig | None = None) -> NDArray[np.float32]:
    """The encoder's last layer for a sound.

    Args:
        waveform: [S] samples at 16 kHz in [-1, 1].
        config: which model, and in which parts; the defaults for None.

    Returns:
        float32 [V, C], vector ``j`` centred on ``j / 50`` s, V = ceil(S / 320); C is 384 (tiny), 512
        (base) or 768 (small).

    Raises:
        UserError: the model cannot be had or read.
        ValueError: not a mono waveform, or parts longer than 30 s.
    """
    config = config or WhisperConfig()
    waveform = np.asarray(waveform, np.float32)
    if waveform.ndim != 1:
        raise ValueError(f"a mono waveform [S] is expected, got {waveform.shape}")
    limit = config.look_ahead_seconds
    step = config.step_seconds if limit is None else config.causal_step_seconds
    before = config.context_seconds if limit is None else config.causal_context_seconds
    # The last sound of a part is heard by its first vector.
    after = config.context_seconds if limit is None else max(limit - step, 0.0)
    if before + step + after > _LONGEST_SECONDS:
        raise ValueError(f"parts of {before + step + after:g} s: the encoder takes {_LONGEST_SECONDS:g} s")
    model = _model(model_files.whisper_model(config.size))
    per_vector = SAMPLE_RATE // VECTORS_PER_SECOND
    count = -(-len(waveform) // per_vector)
    vectors: list[NDArray[np.float32]] = []
    length, ahead = max(_whole(step), 1), _whole(after)
    for first in range(0, count, length):
        last = min(first + length, count)
        begin = max(first - _whole(before), 0)
        end = last + ahead
        heard = waveform[begin * per_vector : end * per_vector]
        missing = (last - begin) * per_vector - len(heard)
        encoded = _encode(model, np.pad(heard, (0, max(missing, 0))))
        vectors.append(encoded[first - begin : last - begin])
    return np.concatenate(vectors) if vectors else np.empty((0, 0), np.float32)


def _whole(seconds: float) -> int:
    """Vectors in a time, rounded down, so that no look-ahead is exceeded."""
    return math.floor(seconds * VECTORS_PER_SECOND + 1e-6)


def whisper_availability(size: WhisperSize = "base") -> str | None:
    """None if the model can be had, else why not and what to do, in one line. It may download the model, which is tried
    once in a process."""
    return _availability(size, os.environ.get(model_files.MODELS_VARIABLE), str(model_files.cache_folder()))


@lru_cache(maxsize=8)
def _availability(size: WhisperSize, models: str | None, cache: str) -> str | None:
    try:
        _model(model_files.whisper_model(size))
    except UserError as error:
        return str(error)
    return None


def log_mel_bands(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Whisper's input, float32 [80, F]: log-mel bands every 10 ms, at most 80 dB below the loudest (Radford et al.
    2022, section 2.2; Slaney's filters)."""
    power = librosa.feature.melspectrogram(
        y=waveform, sr=SAMPLE_RATE, n_fft=_FFT, hop_length=_HOP, n_mels=_BANDS, center=True, pad_mode="reflect"
    )[:, : -(-len(waveform) // _HOP)]
    level = np.log10(np.maximum(power, 1e-10))
    level = np.maximum(level, level.max() - 8.0)
    return ((level + 4.0) / 4.0).astype(np.float32)


def _encode(model: Any, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    import ctranslate2

    short = max(_FFT - len(waveform), 0)
    bands = log_mel_bands(np.pad(waveform, (0, short)))
    bands = np.pad(bands, ((0, 0), (0, bands.shape[1] % 2)), mode="edge")
    features = ctranslate2.StorageView.from_array(np.ascontiguousarray(bands[None]))
    return np.asarray(model.encode(features, to_cpu=True))[0].astype(np.float32)


@lru_cache(maxsize=2)
def _model(folder: Path) -> Any:
    """The model of a folder, loaded once."""
    import ctranslate2

    missing = [name for name in ("model.bin", "config.json") if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder}: has no {' and no '.join(missing)}; expected a Whisper model as CTranslate2 reads it"
        )
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # On the CPU also where there is a GPU: it takes a tenth of the sound's length there, and CTranslate2 needs a
        # release of CUDA's libraries that may not be the one that torch brought.
        model = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32", intra_threads=_threads())
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{folder}: cannot be read as a Whisper model ({reason}); remove it, and it is fetched again, or put a "
            "whole one there"
        ) from None
    if not model.is_multilingual or model.n_mels != _BANDS:
        raise UserError(
            f"{folder}: is not one of Whisper's multilingual models of 80 bands; expected tiny, base or small"
        )
    return model


def _threads() -> int:
    """CPU threads of the encoder: as many as the user allows."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    return int(named) if named.isdigit() and int(named) else os.cpu_count() or 1
