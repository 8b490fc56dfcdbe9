"""How a recording is read: every number of the reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Signals = Literal["expression", "action-units"]
"""What drives the face beside the sound: the coefficients of a face model (3dmm), or action units (au.csv)."""
UPPER_FACE_UNITS: Final[tuple[str, ...]] = ("AU01_r", "AU02_r", "AU04_r", "AU05_r", "AU06_r", "AU07_r", "AU45_r")
"""The action units of brows, lids and cheeks that TalkingGaussian, DEGSTalk's baseline, is driven by."""


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading a dataset."""

    scene_scale: float = 1.0
    """Factor applied to the camera positions, for datasets whose unit of length is not about a metre (the head should
    lie within 0.1 of the origin)."""
    downscale: int = 1
    """Factor by which frames, masks and plates are reduced when they are read, a whole number."""
    allow_no_hair: bool = False
    """Accept masks without any hair pixel (a bald person); otherwise they are rejected."""
    length_tolerance: int = 10
    """Number of frames by which audio, 3DMM, action units and video may differ in length; the longer ones are trimmed.
    DeepSpeech and HuBERT features made by the scripts of AD-NeRF and its successors end up to some frames early or late
    (10 frames are 0.4 s)."""
    mask_samples: int = 9
    """Number of frames, spread over the training split, whose masks are checked when a dataset is opened."""
    palette_share: float = 0.98
    """Minimum fraction of the pixels of a mask that must have exactly a colour of the palette."""
    lips_margin: float = 0.2
    """Margin of the lips rectangle on each side, as a fraction of the width of the lips."""
    blink_full_scale: float = 2.0
    """Intensity of AU45 (0 to 5) that counts as closed eyes. Origin: the official DEGSTalk code, like the methods it
    builds on, clips there."""
    closed_eye_ratio: float = 0.35
    """Ratio of eye height to eye width that counts as closed, relative to the person's open eyes (their 90th
    percentile); it is used where there is no au.csv."""
    signals: Signals = "expression"
    """What drives the face beside the sound. Action units take the place of the expression coefficients, and there are
    no jaw coefficients then, nor eyelids unless ``lid_units`` names some: the paper's variant without implicit
    expression."""
    units: tuple[str, ...] = UPPER_FACE_UNITS
    """Columns of au.csv that drive the face, with ``signals`` "action-units"."""
    lid_units: tuple[str, ...] = ()
    """Columns of au.csv that take the place of the eyelids, with ``signals`` "action-units": they reach the face as
    they are, beside the others, which are compressed together. AU45 is clipped at ``blink_full_scale``.
    TalkingGaussian's own avatars have AU45_r here."""
    hair_in_head: bool = False
    """Count the hair as part of the head that Gaussians show; plates then hold torso and background alone: the paper's
    variant without hair preservation."""
