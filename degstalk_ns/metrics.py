"""How good rendered frames are: PSNR, SSIM, LPIPS, distance of the lips' landmarks, opening of lips and eyes, jitter in
time.

A number that cannot be computed is None, with a line that says why; never a made-up one. It must not know nerfstudio,
models or datasets.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_msssim import ssim as _ssim
from torch import Tensor, nn

from degstalk_ns.dataparsers.dataset import eye_aspect_ratio
from degstalk_ns.dataparsers.layout import INNER_LIPS_ABOVE, INNER_LIPS_BELOW, MOUTH_LANDMARKS
from degstalk_ns.errors import UserError
from degstalk_ns.losses import LPIPS_MINIMUM, SSIM_WINDOW, padded_to
from degstalk_ns.perceptual import feature_distance

ALEXNET_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
"""Backbone of LPIPS as torchvision publishes it."""
ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
DOWNLOAD_PROBE_SECONDS = 10.0
"""How long the server may take to answer before LPIPS counts as unavailable."""

CLOSED_SHARE = 0.5
"""Eyes open less than this share of their median opening are in a blink. Origin: ours; squinting and looking down stay
above it."""

Landmarks = NDArray[np.floating]
Detector = Callable[[NDArray[np.uint8]], "Landmarks | None"]
"""RGB uint8 [H, W, 3] -> 68 landmarks [68, 2] in pixels, or None without a face."""


def _same_shape(image: Tensor, target: Tensor) -> None:
    if image.shape != target.shape or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected two images [H, W, 3], got {list(image.shape)} and {list(target.shape)}")


def psnr(image: Tensor, target: Tensor, mask: Tensor | None = None) -> float | None:
    """Peak signal-to-noise ratio in dB.

    Args:
        image, target: [H, W, 3] in 0..1.
        mask: bool [H, W]; only its pixels count.

    Returns:
        dB, infinite for equal images; None where ``mask`` is empty.
    """
    _same_shape(image, target)
    squared = (image.double() - target.double()) ** 2
    if mask is not None:
        squared = squared[mask]
    if not squared.numel():
        return None
    return float(-10 * torch.log10(squared.mean()))


def ssim(image: Tensor, target: Tensor) -> float | None:
    """Structural similarity (window 11, sigma 1.5, no padding), at most 1.

    Args:
        image, target: [H, W, 3] in 0..1.

    Returns:
        None where a side is shorter than the window.
    """
    _same_shape(image, target)
    if min(image.shape[:2]) < SSIM_WINDOW:
        return None
    batches = (picture.detach().float().permute(2, 0, 1)[None] for picture in (image, target))
    return float(_ssim(*batches, data_range=1.0))


# --- LPIPS ----------------------------------------------------------------------------------------------------------


def _alexnet_path() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET_FILE


def _build_lpips() -> nn.Module:
    """LPIPS' AlexNet with its linear layers, frozen; reads (or torchvision downloads) the weights."""
    # Imported here: the package loads slowly, and the metric is wanted only by some.
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    metric = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
    return metric.net.requires_grad_(False)


@lru_cache(maxsize=2)
def _availability(path: Path) -> str | None:
    if not path.exists():
        try:
            request = urllib.request.Request(ALEXNET_URL, method="HEAD")
            urllib.request.urlopen(request, timeout=DOWNLOAD_PROBE_SECONDS).close()
            path.parent.mkdir(parents=True, exist_ok=True)
            # Writes beside the target, checks the hash, then renames: nothing half-written stays.
            torch.hub.download_url_to_file(ALEXNET_URL, str(path), hash_prefix=ALEXNET_FILE[-12:-4], progress=False)
        except (OSError, RuntimeError, ValueError) as error:
            return (
                f"LPIPS is left out: {path} is missing and cannot be downloaded ({' '.join(str(error).split())}); "
                f"put {ALEXNET_URL} there or set TORCH_HOME"
            )
    try:
        _build_lpips()
    except Exception as error:  # whatever a damaged file or a missing package raises, it is a reason, not a crash
        return f"LPIPS is left out: {path} cannot be used ({type(error).__name__}: {' '.join(str(error).split())})"
    return None


def lpips_availability() -> str | None:
    """None where LPIPS can be computed, else one line that says why not.

    Looks for AlexNet's weights under ``torch.hub.get_dir()/checkpoints`` (TORCH_HOME), else downloads them (233 MiB).
    Call it before training: afterwards :class:`Lpips` needs no network.
    """
    return _availability(_alexnet_path())


class Lpips(nn.Module):
    """LPIPS with AlexNet (Zhang et al., CVPR 2018), as a metric and, being differentiable, as a loss.

    Built when first used; build it only where :func:`lpips_availability` is None. Images smaller than AlexNet's
    pooling allows are padded by replicating their borders.
    """

    def __init__(self, min_side: int = LPIPS_MINIMUM) -> None:
        """``min_side``: pixels a side to which smaller images are padded; at least :data:`LPIPS_MINIMUM`."""
        super().__init__()
        if min_side < LPIPS_MINIMUM:
            raise ValueError(f"AlexNet needs at least {LPIPS_MINIMUM} pixels a side, got min_side={min_side}")
        self.min_side = min_side
        self._net: list[nn.Module] = []  # in a list, so that its weights enter no checkpoint

    def network(self, device: torch.device) -> nn.Module:
        """The frozen network, on ``device``."""
        if not self._net:
            self._net.append(_build_lpips().to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        return self._net[0].to(device)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Batches [B, 3, h, w] in 0..1 (values outside are allowed) -> one distance an image, [B]; 0 is equal."""
        if images.shape != targets.shape or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected two batches [B, 3, h, w], got {list(images.shape)} and {list(targets.shape)}")
        net: Any = self.network(images.device)
        image, target = (net.scaling_layer(2.0 * padded_to(part, self.min_side) - 1.0) for part in (images, targets))
        alexnet, heads = net.net, (net.lin0, net.lin1, net.lin2, net.lin3, net.lin4)
        slices = (alexnet.slice1, alexnet.slice2, alexnet.slice3, alexnet.slice4, alexnet.slice5)
        return feature_distance(image, target, slices, [head.model[-1].weight.flatten() for head in heads])

    @torch.no_grad()
    def distance(self, image: Tensor, target: Tensor) -> float:
        """LPIPS of two images [H, W, 3] in 0..1."""
        _same_shape(image, target)
        return float(self(*(picture.float().permute(2, 0, 1)[None] for picture in (image, target))))


# --- landmarks ------------------------------------------------------------------------------------------------------


def lip_landmark_distance(landmarks: Landmarks, target: Landmarks) -> float:
    """LMD: mean distance in pixels over the 20 mouth landmarks, each set after removing its mean (DEGSTalk, table 1).

    Args:
        landmarks, target: [68, 2] x, y in pixels of the 68-landmark convention.
    """
    shapes = []
    for points in (landmarks, target):
        if points.shape != (68, 2):
            raise ValueError(f"expected landmarks [68, 2], got {list(points.shape)}")
        lips = np.asarray(points, np.float64)[MOUTH_LANDMARKS]
        shapes.append(lips - lips.mean(0))
    return float(np.linalg.norm(shapes[0] - shapes[1], axis=-1).mean())


def lip_opening(landmarks: Landmarks) -> float:
    """Height of the gap between the lips in pixels: mean distance of the three inner points above to those below.

    Args:
        landmarks: [68, 2] x, y in pixels of the 68-landmark convention.
    """
    upper, lower = landmarks[INNER_LIPS_ABOVE], landmarks[INNER_LIPS_BELOW]
    return float(np.linalg.norm(np.asarray(upper, np.float64) - lower, axis=-1).mean())


def eye_opening(landmarks: Landmarks) -> float:
    """Height over width of the eyes, mean of both: about 0.3 open, under 0.1 closed.

    Args:
        landmarks: [68, 2] x, y in pixels of the 68-landmark convention.
    """
    return float(eye_aspect_ratio(np.asarray(landmarks, np.float32)[None])[0])


def eye_closing(openings: Sequence[float], true_openings: Sequence[float]) -> tuple[float, int] | None:
    """How far rendered eyes close at blinks, as a share of how far the recorded ones do.

    A frame belongs to a blink where the recorded eyes are open less than half as far as in the median frame.

    Args:
        openings, true_openings: of the eyes, of the same frames in any order (:func:`eye_opening`).

    Returns:
        Mean drop of the rendered opening from all other frames to those of blinks, over the same of the recorded one:
        1 where the head blinks as the person does, 0 where it stares; and how many frames belong to blinks. None
        without any.
    """
    rendered, true = (np.asarray(series, np.float64) for series in (openings, true_openings))
    if rendered.shape != true.shape:
        raise ValueError(f"expected two equally long series, got {len(rendered)} and {len(true)}")
    if not len(true):
        return None
    blink = true < CLOSED_SHARE * np.median(true)
    if not blink.any():
        return None
    rendered_drop, true_drop = (series[~blink].mean() - series[blink].mean() for series in (rendered, true))
    return float(rendered_drop / true_drop), int(blink.sum())


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's r of two equally long series; None with fewer than three values or where one does not change."""
    a, b = (np.asarray(series, np.float64) for series in (first, second))
    if a.shape != b.shape:
        raise ValueError(f"expected two equally long series, got {len(a)} and {len(b)}")
    if len(a) < 3 or not a.std() or not b.std():
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _as_bytes(image: Tensor | NDArray[Any]) -> NDArray[np.uint8]:
    """[H, W, 3] as RGB uint8; floats are taken as 0..1."""
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
    if array.dtype != np.uint8:
        array = (np.clip(array, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(array)


def lmd_availability() -> str | None:
    """None where LMD can be computed, else one line that says why not (no MediaPipe, or its model file is absent)."""
    try:
        import mediapipe  # noqa: F401

        from degstalk_ns.preprocess.model_files import face_landmarker
        from degstalk_ns.preprocess.tracking import FaceTracker

        face_landmarker()
        with FaceTracker():  # its libraries are loaded only when a task is made
            pass
    except (ImportError, UserError) as error:
        return f"LMD is left out: {' '.join(str(error).split())}"
    return None


@dataclass(frozen=True)
class FaceComparison:
    """Lips and eyes of a rendered and a true frame.

    Attributes:
        distance: LMD, pixels.
        opening, true_opening: of the lips, pixels (:func:`lip_opening`).
        eyes, true_eyes: opening of the eyes (:func:`eye_opening`).
    """

    distance: float
    opening: float
    true_opening: float
    eyes: float
    true_eyes: float


class FaceLandmarks:
    """Compares the lips and eyes of rendered and true frames, with MediaPipe's landmarks.

    Use as a context manager, or call :meth:`close`: MediaPipe's task must be closed before Python ends.
    """

    def __init__(self, detector: Detector | None = None) -> None:
        """``detector``: another landmark detector; MediaPipe's, opened at the first use, where None."""
        self._detector = detector
        self._tracker: Any = None

    def __call__(self, image: Tensor | NDArray[Any], target: Tensor | NDArray[Any]) -> FaceComparison | None:
        """Compare two frames [H, W, 3] (uint8, or float in 0..1); None where a face is not found.

        Raises:
            UserError: MediaPipe's model file is absent and cannot be fetched.
        """
        found = [self._landmarks(_as_bytes(picture)) for picture in (image, target)]
        if found[0] is None or found[1] is None:
            return None
        lips = (lip_opening(points) for points in found if points is not None)
        eyes = (eye_opening(points) for points in found if points is not None)
        return FaceComparison(lip_landmark_distance(found[0], found[1]), *lips, *eyes)

    def _landmarks(self, image: NDArray[np.uint8]) -> Landmarks | None:
        if self._detector is not None:
            return self._detector(image)
        # Imported here: MediaPipe loads slowly, and the core runs without it.
        from degstalk_ns.preprocess.landmarks import TO_68
        from degstalk_ns.preprocess.tracking import FaceTracker

        if self._tracker is None:
            self._tracker = FaceTracker().__enter__()
        seen = self._tracker.observe(image)
        return None if seen is None else seen.points[list(TO_68), :2]

    def close(self) -> None:
        """Release MediaPipe; safe to call twice."""
        if self._tracker is not None:
            self._tracker.__exit__(None, None, None)
            self._tracker = None

    def __enter__(self) -> FaceLandmarks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# --- time -----------------------------------------------------------------------------------------------------------


def temporal_jitter(
    series: Tensor | NDArray[Any],
    region: tuple[int, int, int, int] | Tensor | NDArray[np.bool_] | None = None,
) -> float | None:
    """Root mean square of second differences in time, in the units of ``series``: 0 where all moves uniformly.

    Args:
        series: [T, ...] frames [T, H, W, 3] or landmarks [T, P, 2].
        region: of frames: rows y0, y1, columns x0, x1 (ends excluded), or a bool mask [H, W]; all of it where None.

    Returns:
        None with fewer than three steps in time or an empty region.
    """
    values = series.detach().cpu().numpy() if isinstance(series, Tensor) else np.asarray(series)
    if region is not None:
        if isinstance(region, tuple):
            y0, y1, x0, x1 = region
            values = values[:, y0:y1, x0:x1]
        else:
            mask = region.detach().cpu().numpy() if isinstance(region, Tensor) else region
            values = values[:, np.asarray(mask, bool)]
    if len(values) < 3 or not values.size:
        return None
    second = values[2:].astype(np.float64) - 2.0 * values[1:-1] + values[:-2]
    return float(np.sqrt(np.mean(second**2)))
