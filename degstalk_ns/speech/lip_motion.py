"""What the lips of any speaker do for a sound (open, shut, round, spread, meet the teeth), from Whisper's vectors.

A small network, trained by `scripts/train_lip_motion.py` on speech of espeak-ng whose phonemes and times are known, in
many languages and voices; no recording of a person went into it. It must not know files of datasets or a person's face.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.speech.phonemes import LIP_TARGETS

WEIGHTS: Final[Path] = Path(__file__).with_name("lip_motion.npz")
"""The trained network, for the vectors of Whisper's base model."""


def lip_motion(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """The movement of the lips that goes with a sound.

    Args:
        vectors: [V, 512], 50 a second, of :func:`~degstalk_ns.audio.whisper.whisper_vectors` with the base model.

    Returns:
        float32 [V, 5] in (0, 1), in the order of :data:`~degstalk_ns.speech.phonemes.LIP_TARGETS`.

    Raises:
        ValueError: vectors of another width.
    """
    net = _weights()
    if vectors.ndim != 2 or vectors.shape[1] != len(net["mean"]):
        raise ValueError(f"vectors [V, {len(net['mean'])}] of Whisper's base model are expected, got {vectors.shape}")
    if not len(vectors):
        return np.empty((0, len(LIP_TARGETS)), np.float32)
    x = np.tanh(_convolved((vectors - net["mean"]) / net["scale"], net["narrow_w"], net["narrow_b"]))
    for layer in ("wide", "near"):
        x = x + np.maximum(_convolved(x, net[f"{layer}_w"], net[f"{layer}_b"]), 0.0)
    logits = _convolved(x, net["lips_w"], net["lips_b"])
    return (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)


def _convolved(x: NDArray[np.floating], weight: NDArray[np.float32], bias: NDArray[np.float32]) -> NDArray[np.floating]:
    """A convolution over time with zeros beyond the ends: [V, I] with [O, I, K] -> [V, O]."""
    taps = weight.shape[2]
    padded = np.pad(x, ((taps // 2, taps // 2), (0, 0)))
    return sum((padded[k : k + len(x)] @ weight[:, :, k].T for k in range(taps)), start=bias[None])


@lru_cache(maxsize=1)
def _weights() -> dict[str, NDArray[np.float32]]:
    with np.load(WEIGHTS, allow_pickle=False) as file:
        return {name: file[name].astype(np.float32) for name in file.files}
