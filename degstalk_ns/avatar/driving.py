"""The driving signals of every frame: audio windows, expression, eyelids and jaw, looked up by frame or by time.

It must not know where the numbers come from (files, a microphone, sliders), nor the fields that consume them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

AUDIO_NEIGHBOURS_BEFORE: int = 4
AUDIO_NEIGHBOURS_AFTER: int = 4
"""The audio attention covers 8 frames: 4 before the current one, the current one and 3 after it. Values of the official
DEGSTalk code and of the methods it builds on."""


def windows_tensor(windows: NDArray[np.float32]) -> Tensor:
    """Audio windows [T, L, C] as a tensor of its own; windows that are views of the same vectors stay such views."""
    hop = windows.strides[0] // windows.strides[1] if windows.strides[1] else 0
    _, length, channels = windows.shape
    if not 0 < hop < length:
        return torch.from_numpy(windows.copy())
    vectors = np.concatenate([windows[:, :hop].reshape(-1, channels), windows[-1, hop:]])
    return torch.from_numpy(vectors).as_strided(windows.shape, (hop * channels, channels, 1))


def no_sound(shape: tuple[int, ...]) -> Tensor:
    """Audio windows [T, L, C] of zeros, as where a track has no sound; one number in memory."""
    return torch.zeros(()).expand(shape)


@dataclass
class Conditions:
    """The driving signals of one frame.

    Attributes:
        audio: [8, C, L] audio windows of the 8 neighbouring frames, zero where the track has none.
        expression: [E] expression coefficients (E = 50 for a monocular 3DMM tracker).
        eyelids: [2] eyelid closure, right and left, 0 (open) to 1.
        jaw: [3] jaw coefficients; a target of the jaw loss, never an input.
    """

    audio: Tensor
    expression: Tensor
    eyelids: Tensor
    jaw: Tensor

    def to(self, device: torch.device) -> Conditions:
        return Conditions(
            self.audio.to(device), self.expression.to(device), self.eyelids.to(device), self.jaw.to(device)
        )

    def without_sound(self) -> Conditions:
        """The same frame with audio windows of zeros, as where a track has no sound."""
        return replace(self, audio=torch.zeros_like(self.audio))


@dataclass(frozen=True)
class DrivingTrack:
    """The driving signals of all T frames of a recording or of new audio.

    Attributes:
        audio: [T, L, C] float32, one window of L feature vectors per frame (in the order of the dataset).
        expression: [T, E] expression coefficients.
        eyelids: [T, 2] eyelid closure, 0 (open) to 1.
        jaw: [T, 3] jaw coefficients.
    """

    audio: Tensor
    expression: Tensor
    eyelids: Tensor
    jaw: Tensor

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in ("audio", "expression", "eyelids", "jaw")}
        if len(set(lengths.values())) != 1 or not len(self.audio):
            raise ValueError(f"a driving track needs equally long, non-empty parts, got {lengths}")
        if self.audio.ndim != 3:
            raise ValueError(f"audio windows must be [T, L, C], got {tuple(self.audio.shape)}")

    def __len__(self) -> int:
        return len(self.audio)

    @property
    def audio_channels(self) -> int:
        return self.audio.shape[2]

    @property
    def audio_length(self) -> int:
        """L, the number of feature vectors in a window."""
        return self.audio.shape[1]

    @property
    def expression_dim(self) -> int:
        return self.expression.shape[1]

    def frame_at(self, time: float) -> int:
        """The frame nearest to ``time`` in [0, 1] (0 is the first frame, 1 the last); outside it is clamped."""
        last = len(self) - 1
        return int(min(max(round(time * last), 0), last))

    def time_of(self, frame: int) -> float:
        """The time in [0, 1] of ``frame``."""
        return frame / max(len(self) - 1, 1)

    def at(self, time: float) -> Conditions:
        """Conditions at ``time`` in [0, 1]."""
        return self.at_frame(self.frame_at(time))

    def at_frame(self, frame: int) -> Conditions:
        """Conditions of ``frame`` in 0..T-1; copies, which may be changed.

        Raises:
            IndexError: the track has no such frame.
        """
        if not 0 <= frame < len(self):
            raise IndexError(f"frame {frame} of a driving track of {len(self)}")
        first, last = frame - AUDIO_NEIGHBOURS_BEFORE, frame + AUDIO_NEIGHBOURS_AFTER
        inside = self.audio[max(first, 0) : last]
        windows = self.audio.new_zeros(last - first, *self.audio.shape[1:])
        windows[max(-first, 0) : max(-first, 0) + len(inside)] = inside
        return Conditions(
            audio=windows.transpose(1, 2).contiguous(),
            expression=self.expression[frame].clone(),
            eyelids=self.eyelids[frame].clone(),
            jaw=self.jaw[frame].clone(),
        )

    def frozen(self, frame: int = 0) -> DrivingTrack:
        """A track of the same length in which every frame has the driving signals of ``frame``: nothing moves."""
        return DrivingTrack(
            *(part[frame : frame + 1].expand_as(part) for part in (self.audio, self.expression, self.eyelids, self.jaw))
        )

    def with_audio(self, audio: Tensor) -> DrivingTrack:
        """The same track with other audio windows [T, L, C].

        Raises:
            ValueError: the windows have another shape.
        """
        if audio.shape != self.audio.shape:
            raise ValueError(f"audio windows must be {tuple(self.audio.shape)}, got {tuple(audio.shape)}")
        return replace(self, audio=audio)
