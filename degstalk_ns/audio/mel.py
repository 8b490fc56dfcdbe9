"""Waveform -> windows of log-mel vectors, one window a video frame: the default audio features.

It must not know files, videos or networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import librosa
import numpy as np
from numpy.typing import NDArray

from degstalk_ns.audio.windows import windows_of
from degstalk_ns.frame_rate import FRAME_RATE, SAMPLE_RATE


@dataclass(frozen=True)
class MelConfig:
    """Options of the log-mel audio features. Their rate and window length are those of the DeepSpeech features of
    AD-NeRF and DEGSTalk (50 vectors per second, 16 per window); the other values were chosen for this project."""

    channels: int = 64
    """Number of mel bands."""
    vectors_per_second: int = 50
    """Number of feature vectors per second; 50 are two per video frame."""
    window: int = 16
    """Number of feature vectors in the window of one video frame; 16 vectors are 320 ms."""
    fft_samples: int = 1024
    """Length of the Fourier transform, in samples at 16 kHz; 1024 samples are 64 ms, which the lowest bands need."""
    window_samples: int = 640
    """Length of the Hann window, in samples at 16 kHz; 640 samples are 40 ms, twice the distance between two
    vectors."""
    lowest_hz: float = 60.0
    """Lower edge of the lowest mel band, in Hz; the default leaves out hum and rumble below the voice."""
    highest_hz: float = 7600.0
    """Upper edge of the highest mel band, in Hz; the default is just below half the sample rate."""
    floor_db: float = -80.0
    """Power in dB, relative to a full-scale sine, below which a band counts as silent."""
    centre_db: float = -50.0
    """Power in dB that is mapped to 0; the default is about the mean over speech at usual levels. It is fixed, so that
    features do not depend on the speaker."""
    scale_db: float = 16.0
    """Difference in dB that is mapped to 1; the default is about the standard deviation over speech."""

    @property
    def silence(self) -> float:
        """Value of every band where there is no sound."""
        return (self.floor_db - self.centre_db) / self.scale_db


def frame_count(num_samples: int) -> int:
    """Video frames at 25 fps that ``num_samples`` samples at 16 kHz cover, the last one perhaps in part."""
    return -(-num_samples * int(FRAME_RATE) // SAMPLE_RATE)


def log_mel(waveform: NDArray[np.float32], config: MelConfig | None = None) -> NDArray[np.float32]:
    """Log-mel vectors: [S] samples at 16 kHz in [-1, 1] -> [V, C], vector ``j`` centred on ``j / 50`` s.

    About zero mean and unit scale over speech; silence is the constant ``config.silence``.
    """
    config = config or MelConfig()
    waveform = np.asarray(waveform, np.float32)
    if waveform.ndim != 1:
        raise ValueError(f"a mono waveform [S] is expected, got {waveform.shape}")
    hop = SAMPLE_RATE // config.vectors_per_second
    # A sound shorter than one transform is filled up with silence, which its vectors beyond the end would see anyway.
    padded = np.pad(waveform, (0, max(config.fft_samples - len(waveform), 0)))
    power = librosa.feature.melspectrogram(
        y=padded,
        sr=SAMPLE_RATE,
        n_fft=config.fft_samples,
        win_length=config.window_samples,
        hop_length=hop,
        center=True,
        pad_mode="constant",
        power=2.0,
        n_mels=config.channels,
        fmin=config.lowest_hz,
        fmax=config.highest_hz,
        norm=None,
    )[:, : len(waveform) // hop + 1]
    # Power of a full-scale sine in one band is (window sum / 2)^2: that is 0 dB.
    full_scale = (config.window_samples / 4) ** 2
    level = np.maximum(10 * np.log10(power / full_scale + 1e-12), config.floor_db)
    return np.ascontiguousarray(((level - config.centre_db) / config.scale_db).T, dtype=np.float32)


def mel_windows(
    waveform: NDArray[np.float32], num_frames: int | None = None, config: MelConfig | None = None
) -> NDArray[np.float32]:
    """Windows of log-mel vectors for the frames of a 25 fps video that starts with the sound.

    Args:
        waveform: [S] samples at 16 kHz in [-1, 1].
        num_frames: T; None is as many frames as the sound lasts. A longer video gets silence, a shorter one cuts.

    Returns:
        float32 [T, L, C], read-only. Window ``i`` is centred on frame ``i`` (its vectors are those from
        ``2 i - L / 2 + 1`` on); before the start and after the end there is silence.
    """
    config = config or MelConfig()
    vectors = log_mel(waveform, config)
    count = frame_count(len(waveform)) if num_frames is None else num_frames
    return windows_of(vectors, count, config.silence, config.window, config.vectors_per_second)
