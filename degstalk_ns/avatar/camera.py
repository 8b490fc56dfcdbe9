"""Cameras of the core: one pinhole view, and whether it looks at the head as the recorded camera did.

It must not know nerfstudio's cameras, nor what is rendered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

PLACE_TOLERANCE: Final[float] = 0.1
"""Two cameras count as being at the same place if their distance is at most this fraction of the distance to the head.
Chosen for this project; between neighbouring frames of a talking person the fraction is up to 0.03 (measured)."""


@dataclass(frozen=True)
class View:
    """One pinhole camera.

    Attributes:
        viewmat: [4, 4] world to camera, OpenCV axes (x right, y down, z forward).
        K: [3, 3] intrinsics, pixels.
        width: of the image, pixels.
        height: of the image, pixels.
    """

    viewmat: Tensor
    K: Tensor
    width: int
    height: int

    def to(self, device: torch.device) -> View:
        """The same on another device."""
        return View(self.viewmat.to(device), self.K.to(device), self.width, self.height)

    @staticmethod
    def from_c2w(c2w: Tensor, focal: tuple[float, float], centre: tuple[float, float], size: tuple[int, int]) -> View:
        """From a camera-to-world matrix [3 or 4, 4] with OpenGL axes (x right, y up, z backward), focal lengths and
        principal point in pixels, and ``size`` (width, height)."""
        flip = torch.diag(c2w.new_tensor([1.0, -1.0, -1.0]))
        rotation = c2w[:3, :3] @ flip
        viewmat = torch.eye(4, dtype=c2w.dtype, device=c2w.device)
        viewmat[:3, :3] = rotation.T
        viewmat[:3, 3] = -rotation.T @ c2w[:3, 3]
        K = c2w.new_tensor([[focal[0], 0.0, centre[0]], [0.0, focal[1], centre[1]], [0.0, 0.0, 1.0]])
        return View(viewmat, K, size[0], size[1])


@dataclass(frozen=True)
class RecordedCamera:
    """The camera that recorded a frame, to tell whether the frame's plate fits behind another view.

    Attributes:
        c2w: [4, 4] camera to world, OpenGL axes.
        focal: pixels, at ``width`` x ``height``.
        width: of the recorded frame, pixels.
        height: of the recorded frame, pixels.
        tolerance_degrees: a plate still fits if the view is rotated by at most this angle. Chosen for this project:
            three times the largest rotation between neighbouring frames of a talking person (1.7 degrees, measured).
        tolerance_focal: relative difference of the focal lengths, at the same width, up to which a plate still fits.
            Chosen for this project: 5 % move the border of a frame of 512 pixels by 13 pixels.
        tolerance_place: maximum distance from the recorded camera, as a fraction of the distance to the head.
    """

    c2w: Tensor
    focal: float
    width: int
    height: int
    tolerance_degrees: float = 5.0
    tolerance_focal: float = 0.05
    tolerance_place: float = PLACE_TOLERANCE

    def fits(self, view: View) -> bool:
        """Whether ``view`` has the recorded aspect ratio and focal length, and nearly the recorded direction and
        place."""
        # Widths and heights are rounded to pixels: aspects that differ by one pixel are the same.
        if abs(view.width * self.height - view.height * self.width) > max(view.width, view.height):
            return False
        focal = float(view.K[0, 0]) * self.width / view.width
        if abs(focal / self.focal - 1.0) > self.tolerance_focal:
            return False
        own = View.from_c2w(self.c2w, (1.0, 1.0), (0.0, 0.0), (1, 1)).viewmat.to(view.viewmat)
        relative = view.viewmat[:3, :3] @ own[:3, :3].T
        cosine = (float(relative.diagonal().sum()) - 1.0) / 2.0
        apart, distance = torch.linalg.norm(view.viewmat[:3, 3] - own[:3, 3]), torch.linalg.norm(own[:3, 3])
        near = apart <= self.tolerance_place * distance
        return bool(near) and cosine >= float(torch.cos(torch.deg2rad(torch.tensor(self.tolerance_degrees))))


def nearest_moment(c2w: Tensor, recorded: Tensor) -> float | None:
    """Finds the moment of the recording at which a camera without a time lies on the recorded camera path.

    A path that is interpolated between recorded poses lies on the segments between neighbours. The nearest segment is
    found; rotations are weighted by the distance to the head, so that they count in metres too.

    Args:
        c2w: [3 or 4, 4] camera to world.
        recorded: [T, 3 or 4, 4] recorded cameras to world, in order of time.

    Returns:
        Place in 0..T-1, fractional between two poses; None where no segment is within
        :data:`PLACE_TOLERANCE` of the distance.
    """
    place, poses = c2w[:3, :4], recorded[:, :3, :4].to(c2w)
    distance = torch.linalg.norm(place[:, 3]).clamp_min(1e-6)
    weight = torch.cat([distance.expand(3), place.new_ones(1)])
    points = (poses * weight).flatten(1)  # [T, 12]
    target = (place * weight).flatten()
    if len(points) == 1:
        starts, steps = points, torch.zeros_like(points)
    else:
        starts, steps = points[:-1], points[1:] - points[:-1]
    along = ((target - starts) * steps).sum(1) / (steps**2).sum(1).clamp_min(1e-12)
    along = along.clamp(0.0, 1.0)
    errors = torch.linalg.norm(starts + along[:, None] * steps - target, dim=1)
    best = int(errors.argmin())
    if errors[best] > PLACE_TOLERANCE * distance:
        return None
    return best + float(along[best])
