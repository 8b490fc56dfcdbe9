"""Options of `degstalk process`: those of each step, gathered.

It must not know how the steps hang together.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

from degstalk_ns.audio.mel import MelConfig
from degstalk_ns.preprocess import alignment, clean_plate, crop, decode, parsing, poses, tracking

_MOST_WORKERS: Final[int] = 4
"""Threads taken by default at most: each holds a segmenter (about 100 MB)."""


@dataclass(frozen=True)
class ProcessConfig:
    """Options of `degstalk process`."""

    size: int = 512
    """Side of the dataset's square frames, pixels."""
    workers: int = 0
    """Worker threads; 0 takes the number of cores, at most 4."""
    overwrite: bool = False
    """Start anew: remove what an earlier run made in the output folder first."""
    minimum_seconds: float = decode.MINIMUM_SECONDS
    """Shorter videos are refused, seconds."""
    crop: crop.CropConfig = field(default_factory=crop.CropConfig)
    tracking: tracking.TrackingConfig = field(default_factory=tracking.TrackingConfig)
    poses: poses.PoseConfig = field(default_factory=poses.PoseConfig)
    alignment: alignment.AlignmentConfig = field(default_factory=alignment.AlignmentConfig)
    parsing: parsing.ParsingConfig = field(default_factory=parsing.ParsingConfig)
    plates: clean_plate.PlatesConfig = field(default_factory=clean_plate.PlatesConfig)
    mel: MelConfig = field(default_factory=MelConfig)

    def worker_count(self) -> int:
        return self.workers if self.workers > 0 else min(os.cpu_count() or 1, _MOST_WORKERS)
