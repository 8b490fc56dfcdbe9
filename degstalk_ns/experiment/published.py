"""What the paper reports (DEGSTalk, ICASSP 2025, tables 1 and 2): means over six subjects, 512 x 512.

It must not know what is measured here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class PublishedRow:
    """One row of the paper's tables, in its setting of head reconstruction.

    Attributes:
        name: as the paper calls it. method: ours that corresponds, if there is one.
        psnr: dB. lpips: AlexNet. lmd: pixels. ssim.
        training: as the paper says it. fps: frames per second on its GPU; None where it is not told.
    """

    name: str
    method: str | None
    psnr: float
    lpips: float
    lmd: float
    ssim: float
    training: str = ""
    fps: float | None = None


TABLE_1: Final[tuple[PublishedRow, ...]] = (
    PublishedRow("AD-NeRF", None, 29.18, 0.0963, 2.888, 0.7670, "18 h", 0.16),
    PublishedRow("ER-NeRF", None, 32.06, 0.0354, 2.771, 0.9158, "2 h", 45.0),
    PublishedRow("SyncTalk", None, 33.73, 0.0292, 2.627, 0.9361, "2 h", 60.0),
    PublishedRow("TalkingGaussian", "talking-gaussian", 32.39, 0.0369, 2.659, 0.9261, "0.5 h", 120.0),
    PublishedRow("DEGSTalk", "degstalk", 37.30, 0.0140, 2.349, 0.9664, "0.5 h", 114.0),
)
TABLE_2: Final[tuple[PublishedRow, ...]] = (
    PublishedRow("without implicit expression (F)", "degstalk-au", 36.79, 0.150, 2.630, 0.9692),
    PublishedRow("without direct fusion (R)", "degstalk-no-fuse", 35.66, 0.0300, 2.359, 0.9678),
    PublishedRow("without embedding (E)", "degstalk-no-embedding", 37.21, 0.0141, 2.357, 0.9712),
    PublishedRow("without hair preservation (H)", "degstalk-no-hair", 33.89, 0.0301, 2.628, 0.9354),
    PublishedRow("DEGSTalk", "degstalk", 37.30, 0.0140, 2.349, 0.9664),
)
WHAT_DIFFERS: Final[tuple[str, ...]] = (
    "other subjects, and six of them; about 7,000 frames each",
    "its training time and frames per second are those of an NVIDIA GPU; LPIPS of its row without F may be a misprint",
    "its LMD is that of another landmark detector (FAN); here MediaPipe finds the 20 points of the mouth",
    "its SSIM does not say its window; here it is 11 x 11 Gaussian weights over colour",
)
"""Why its numbers stand beside ours and cannot be compared digit by digit."""
