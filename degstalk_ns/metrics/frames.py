"""All metrics of a frame at once, and their means over many frames, with what could not be measured said.

It ties the metrics of images together. It must not know nerfstudio, models or datasets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from degstalk_ns.avatar.boxes import Box, cropped, grown_to, union_box
from degstalk_ns.metrics.image import correlation, psnr, ssim
from degstalk_ns.metrics.lips_and_eyes import lip_movement
from degstalk_ns.metrics.lpips import LPIPS_MINIMUM, Lpips, prepare_lpips
from degstalk_ns.metrics.seam import is_plain, seam_errors, sharpness
from degstalk_ns.metrics.speech.audio_driven import audio_driven


def box_l1(image: Tensor, target: Tensor, box: Box) -> float:
    """Mean absolute difference of two images [H, W, 3] inside ``box``."""
    return float((cropped(image, box) - cropped(target, box)).abs().mean())


class FrameMetrics:
    """PSNR, SSIM and LPIPS of a rendered frame; LPIPS is left out where it cannot be had."""

    def __init__(self) -> None:
        self._lpips: Lpips | None = None
        self.left_out: str | None = prepare_lpips()
        """Why LPIPS is left out, one line; None where it is measured."""
        if self.left_out is None:
            self._lpips = Lpips()

    @torch.no_grad()
    def __call__(self, image: Tensor, target: Tensor) -> dict[str, float]:
        """Metrics of ``image`` against ``target``, both [H, W, 3] in 0..1."""
        values: dict[str, float | None] = {"psnr": psnr(image, target), "ssim": ssim(image, target)}
        if self._lpips is not None:
            values["lpips"] = self._lpips.distance(image, target)
        return {name: value for name, value in values.items() if value is not None}

    @torch.no_grad()
    def of_face(self, image: Tensor, target: Tensor, head: Tensor, hair: Tensor) -> dict[str, float]:
        """What the face and its border look like.

        Args:
            image, target: [H, W, 3] in 0..1.
            head, hair: bool [H, W] masks, as recorded.

        Returns:
            ``lpips_face`` (of the head alone, cut out at its box), ``sharpness_face``, and those of
            :func:`~degstalk_ns.metrics.seam.seam_errors`: ``cracks``, ``cracks_at_hair``, ``seam_l1``,
            ``broken_face``; nothing without a head.
        """
        mask = head.cpu().numpy()
        errors = seam_errors(image, target, mask, hair.cpu().numpy())
        if errors is None:
            return {}
        values: dict[str, float | None] = {
            "cracks": float(errors.cracks),
            "cracks_at_hair": float(errors.cracks_at_hair),
            "seam_l1": errors.band_l1,
            "broken_face": errors.broken_face,
            "sharpness_face": sharpness(image, target, mask),
        }
        if self._lpips is not None:
            box = grown_to(union_box(head), LPIPS_MINIMUM, *head.shape)
            alone = torch.where(head.to(image.device)[..., None], image, target)
            values["lpips_face"] = self._lpips.distance(cropped(alone, box), cropped(target, box))
        return {name: value for name, value in values.items() if value is not None}


class MetricTable:
    """Collects metrics of many frames, some of which may lack some metric."""

    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []

    def add(self, metrics: dict[str, float]) -> None:
        self._rows.append(metrics)

    def relate(self, first: str, second: str) -> float | None:
        """Pearson's r of two metrics over the frames that have both; None where it cannot be told."""
        return correlation(*self.columns(first, second))

    def column(self, name: str) -> list[float]:
        """One metric over the frames that have it."""
        return [row[name] for row in self._rows if name in row]

    def columns(self, first: str, second: str) -> tuple[list[float], list[float]]:
        """Two metrics over the frames that have both."""
        both = [row for row in self._rows if first in row and second in row]
        return [row[first] for row in both], [row[second] for row in both]

    def _values(self, name: str) -> list[float]:
        return [row[name] for row in self._rows if name in row and math.isfinite(row[name])]

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for row in self._rows for name in row))

    def gaps(self) -> list[str]:
        """One line for each metric that is missing in some frames."""
        lines = []
        for name in self.names:
            found = len(self._values(name))
            if found < len(self._rows):
                lines.append(f"{name}: measured in {found} of {len(self._rows)} frames; the mean is over those")
        return lines

    def mean(self, with_std: bool = False) -> dict[str, float]:
        """Mean of each metric over the frames that have it; with ``with_std`` also ``<name>_std``."""
        result: dict[str, float] = {}
        for name in self.names:
            values = torch.tensor(self._values(name), dtype=torch.float64)
            if not len(values):
                continue
            result[name] = float(values.mean())
            if with_std:
                result[f"{name}_std"] = float(values.std()) if len(values) > 1 else 0.0
        return result


def lips_and_cracks(table: MetricTable, wide: float | None, height: int) -> dict[str, float]:
    """What is told from all frames together: how far lips move, and how many frames show a crack.

    Args:
        table: with ``lip_gap`` and ``lip_gap_true``, ``cracks`` and ``broken_face``, as far as they were measured.
        wide: recorded opening of the lips that counts as wide open; None where it is not known.
        height: of the frames, pixels.
    """
    means = table.mean()
    result: dict[str, float] = {name: means[name] for name in ("cracks", "broken_face") if name in means}
    cracks = table.column("cracks")
    if cracks:
        result["crack_frames"] = float(sum(is_plain(count, height) for count in cracks))
    gaps = table.columns("lip_gap", "lip_gap_true")
    moved = None if wide is None else lip_movement(*gaps, wide)
    if moved is not None:
        result |= {"lip_slope": moved.slope, "lip_spread": moved.spread}
        result |= {"lips_shut": float(moved.shut), "lips_closed": float(moved.closed)}
    related = correlation(*gaps)
    if related is not None:
        result["lip_gap_r"] = related
    return result


def spoken_metrics(table: MetricTable, names: Sequence[str]) -> dict[str, float]:
    """How well lips that sound alone drives follow the recorded ones, and what else the sound moves.

    Args:
        table: with ``<name>_gap`` and ``<name>_gap_true`` of consecutive frames, ``sound_moves_upper`` and
            ``sound_moves_mouth``, as far as they were measured.
        names: of the drivings.

    Returns:
        ``<name>_r``, ``<name>_spread`` and ``<name>_lag`` of
        :func:`~degstalk_ns.metrics.speech.audio_driven.audio_driven`, and ``bleed``: how much the sound changes eyes
        and brows, over how much it changes the mouth.
    """
    result: dict[str, float] = {}
    for name in names:
        told = audio_driven(*table.columns(f"{name}_gap", f"{name}_gap_true"))
        result |= {f"{name}_{key}": value for key, value in told.items()}
    means = table.mean()
    if means.get("sound_moves_mouth", 0.0) > 0:
        result["bleed"] = means["sound_moves_upper"] / means["sound_moves_mouth"]
    return result
