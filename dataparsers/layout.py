"""Names, palette and split of a talking-head dataset on disk.

The one place that `preprocess/` (which writes the files) and `dataparsers/` (which reads them) take names from.
It must not know nerfstudio, nor how any file is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from degstalk_ns.errors import UserError

RGB = tuple[int, int, int]

PALETTE: Final[dict[str, RGB]] = {
    "head": (0, 0, 255),
    "hair": (0, 0, 0),
    "neck": (0, 255, 0),
    "torso": (255, 0, 0),
    "mouth": (100, 100, 100),
    "background": (255, 255, 255),
}
"""Colour of each region in ``parsing/<i>.png``, RGB 0 to 255: that of the datasets of AD-NeRF and its successors."""

SIDE_RANGE: Final[tuple[int, int]] = (64, 2048)
"""Smallest and largest side of the frames of a dataset that is made here, pixels. Origin: chosen for this project."""
TRAIN_FRACTION: Final[float] = 10 / 11
"""Fraction of the frames, from the first on, that are trained on; the rest is held out for evaluation. Origin: the 10:1
split of AD-NeRF and its successors."""


def train_count(num_frames: int) -> int:
    """How many of ``num_frames`` frames belong to the training split."""
    return int(num_frames * TRAIN_FRACTION)


@dataclass(frozen=True)
class Layout:
    """Paths of one dataset. ``i`` is the frame's ``img_id``; files are numbered from 0 without padding."""

    root: Path

    def transforms(self, split: str) -> Path:
        """``split`` is "train" or "val"."""
        return self.root / f"transforms_{split}.json"

    def frame(self, i: int) -> Path:
        """RGB frame, JPEG."""
        return self.root / "ori_imgs" / f"{i}.jpg"

    def landmarks(self, i: int) -> Path:
        """68 landmarks, one "x y" per line, pixels."""
        return self.root / "ori_imgs" / f"{i}.lms"

    def parsing(self, i: int) -> Path:
        """Region colours of :data:`PALETTE`, PNG."""
        return self.root / "parsing" / f"{i}.png"

    def teeth(self, i: int) -> Path:
        """bool [H, W], numpy."""
        return self.root / "teeth_mask" / f"{i}.npy"

    def torso(self, i: int) -> Path:
        """RGBA torso and neck, inpainted under the head, PNG."""
        return self.root / "torso_imgs" / f"{i}.png"

    def plate(self, i: int) -> Path:
        """RGB plate behind the face for frame ``i``, PNG."""
        return self.root / "bg" / f"{i}.png"

    @property
    def clean_plate(self) -> Path:
        """RGB background without the person, JPEG."""
        return self.root / "bc.jpg"

    @property
    def audio(self) -> Path:
        return self.root / "aud.wav"

    def audio_features(self, name: str) -> Path:
        """Windows [T, L, C] float32 of the features called ``name`` ("mel", "ds", "hu", ...), or vectors [V, C] float16
        ("whisper-base", "hubert", ...)."""
        return self.root / f"aud_{name}.npy"

    @property
    def action_units(self) -> Path:
        """OpenFace-style CSV, one row a frame, columns AU01_r ... AU45_r."""
        return self.root / "au.csv"

    @property
    def face_model_npz(self) -> Path:
        """Arrays ``expression_params`` [T, 50], ``jaw_params`` [T, 3], ``eyelid_params`` [T, 2]."""
        return self.root / "3dmm.npz"

    @property
    def face_model_pt(self) -> Path:
        """The same as a torch file, as the reference's own scripts write it; where it is there, it is read."""
        return self.root / "3dmm.pt"

    @property
    def contact_sheet(self) -> Path:
        return self.root / "contact_sheet.png"


def require_dataset_folder(root: Path | None) -> None:
    """Returns where ``root`` is a folder.

    Raises:
        UserError: there is none, it is closed to this user, or none was given (None).
    """
    if root is None:
        raise UserError("no dataset given: say where it is with --data FOLDER; `degstalk process` makes one of a video")
    try:
        is_file, is_folder = root.is_file(), root.is_dir()
    except PermissionError:
        raise UserError(f"{root}: cannot be read (Permission denied); give this user the permission") from None
    if is_file:
        raise UserError(
            f"{root}: is a file; expected the folder of a dataset, as `degstalk process VIDEO data/me` makes of a video"
        )
    if not is_folder:
        raise UserError(f"{root}: no such dataset folder; make it with `degstalk process VIDEO {root}`")


def remedy(root: Path) -> str:
    """What to do about a dataset that cannot be read."""
    layout = Layout(root)
    if not (root / "process.json").exists() and layout.transforms("train").exists() and layout.frame(0).exists():
        return (
            f"if it is a dataset of another project, `degstalk process --complete {root}` makes the masks, face model, "
            "plates and features that it lacks, but no frames, cameras or sound"
        )
    return f"make it with `degstalk process VIDEO {root}`"
