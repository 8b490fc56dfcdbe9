"""Options of `degstalk process`: those of each step, gathered.

It must not know how the steps hang together.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final, Literal

from degstalk_ns.audio.mel import MelConfig
from degstalk_ns.landmarks.brows import BrowConfig
from degstalk_ns.preprocess.steps import alignment, clean_plate, crop, decode, parsing, poses, tracking

_MOST_WORKERS: Final[int] = 4
"""Threads taken by default at most: each holds a segmenter (about 100 MB)."""


@dataclass(frozen=True)
class ProcessConfig:
    """Options of preprocessing."""

    size: int = 512
    """Width and height, in pixels, of the square frames in the dataset."""
    workers: int = 0
    """Number of worker threads; 0 uses one per CPU core, but at most 4."""
    overwrite: bool = False
    """Delete the results of an earlier run in the output folder and start from the beginning."""
    audio: Literal["auto", "whisper", "mel"] = "auto"
    """What new audio will move the mouth by: the phonetic vectors of Whisper's base model (whisper), log-mel bands
    (mel), or auto: whisper where its model is at hand or can be downloaded (145 MB), else mel. Log-mel windows are
    always written. Rendering looks for Whisper's model too, unless --new-sound.ears says mel."""
    features: tuple[str, ...] = ()
    """Further audio features to compute, for avatars that are trained on them (ns-train ... talking-head --audio NAME):
    whisper-tiny, whisper-base, whisper-small, hubert, wav2vec2."""
    sync: Literal["auto", "off"] = "auto"
    """Move the sound of a video in which it is early or late against the lips (auto), which needs whisper, or leave it
    as it is (off)."""
    only: Literal["all", "audio"] = "all"
    """Make everything (all), or only the sound and its features in a dataset that is there already (audio)."""
    minimum_seconds: float = decode.MINIMUM_SECONDS
    """Minimum length of the video, in seconds; shorter videos are rejected."""
    longest_minutes: float = 120.0
    """Maximum length of the video, in minutes; longer videos are rejected."""
    allow_silence: bool = False
    """Accept a video whose sound is silent; otherwise it is rejected."""
    crop: crop.CropConfig = field(default_factory=crop.CropConfig)
    tracking: tracking.TrackingConfig = field(default_factory=tracking.TrackingConfig)
    poses: poses.PoseConfig = field(default_factory=poses.PoseConfig)
    alignment: alignment.AlignmentConfig = field(default_factory=alignment.AlignmentConfig)
    brows: BrowConfig = field(default_factory=BrowConfig)
    parsing: parsing.ParsingConfig = field(default_factory=parsing.ParsingConfig)
    plates: clean_plate.PlatesConfig = field(default_factory=clean_plate.PlatesConfig)
    mel: MelConfig = field(default_factory=MelConfig)

    def worker_count(self) -> int:
        return self.workers if self.workers > 0 else min(os.cpu_count() or 1, _MOST_WORKERS)
