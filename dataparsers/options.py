"""How a recording is read: every number of the reader."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReadOptions:
    """How a recording is read."""

    scene_scale: float = 1.0
    """Factor on the camera positions, for datasets whose unit is not about a metre (head within 0.1 of the origin)."""
    downscale: int = 1
    """Frames, masks and plates are read at 1/downscale of their size (pixels)."""
    allow_no_hair: bool = False
    """Accept masks without any hair pixel (a bald person); otherwise they are refused."""
    length_tolerance: int = 10
    """Frames by which audio, 3DMM, action units and video may differ in length; the longer are trimmed. DeepSpeech and
    HuBERT features of the family end up to some frames early or late (0.4 s at 25 fps)."""
    mask_samples: int = 9
    """How many frames, spread over the training split, have their masks looked at when a dataset is opened."""
    palette_share: float = 0.98
    """Share of a mask's pixels that must have a colour of the palette exactly."""
    lips_margin: float = 0.2
    """Margin of the lips rectangle on each side, as a fraction of the lips' width."""
    blink_full_scale: float = 2.0
    """Intensity of AU45 (0..5) that counts as closed eyes (the family clips there)."""
    closed_eye_ratio: float = 0.35
    """Eye height over width that counts as closed, relative to the person's open eyes (their 90th percentile); used
    where there is no au.csv."""
