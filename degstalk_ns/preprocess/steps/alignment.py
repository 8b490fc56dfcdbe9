"""Head poses made truer than landmarks can: the skin's own texture is followed through the video.

Landmarks slide over the skin by a pixel or two as the head turns and jitter from frame to frame; pores, brows and
nostrils do not. With the poses from landmarks every frame is unrolled onto the mean face, the mean of these textures is
matched with each of them by optical flow, and the poses are solved again with these marks. The mean is the same for all
frames, so nothing drifts. Ears and the hair beside them are followed too: ten centimetres behind the nose, they tell a
turn of the head from a shift, which the front of a face hardly does. It must know neither MediaPipe nor files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator

from degstalk_ns.landmarks import mesh478 as lm
from degstalk_ns.landmarks.brows import BROW_POINTS
from degstalk_ns.landmarks.triangulation import triangulated
from degstalk_ns.preprocess.record import formerly
from degstalk_ns.preprocess.steps.poses import EYE_UNIT, HeadPoses, Marks, PoseConfig, project_points, solve_head_poses

_FloatArray = NDArray[np.float64]
Frames = Callable[[NDArray[np.intp]], Iterable[NDArray[np.uint8]]]
"""Gives the frames of these indices in order, [H, W, 3] RGB or [H, W] grey, uint8."""

MID_GREY: Final[float] = 128.0
"""Grey level, 0 to 255, of the unrolled face where it is as bright as its surroundings."""
OUTSIDE: Final[float] = -1.0
"""Pixel position of texels that the camera cannot see: left of and above any image."""
FLOW_MARGIN: Final[int] = 1
"""Texels along the border of the unrolled face in which a matched mark is not believed: it may have been cut off."""


@dataclass(frozen=True)
class AlignmentConfig:
    """Options of the refinement of the head poses, which follows the texture of the skin. Values without an origin were
    chosen for this project on talking-head videos."""

    rounds: int = 1
    """Number of rounds of averaging the face texture and matching every frame against it. A second round made no
    difference at 512 x 512 pixels."""
    texel: float = 0.00055
    """Side of one texel of the unwrapped face texture, in metres; the default is about one pixel of a face that fills
    half of a 512 pixel frame. It does not depend on the size of the frames, and neither do the lengths in texels:
    smaller frames are sampled finer, and larger ones coarser, than they are."""
    half_width: float = 0.062
    """Half the width of the front of the face, in metres from its midline. Beyond it the surface turns away from the
    camera."""
    side_width: float = 0.026
    """Width of the strips to the left and right of the front, in metres, in which ears and hair are followed; 0 leaves
    them out."""
    side_slope: float = 2.5
    """Slope at which the strips fall back beyond the landmarks, depth per width, as from a cheek to an ear. It only
    unrolls them: where on the head a feature point of a strip lies is triangulated."""
    side_error: float = 2.0
    """Maximum of the median error of a feature point of a strip, seen from the poses that the front alone gives, in
    pixels for a face whose eyes are 100 pixels apart. What is further off, such as hair that swings, is left out."""
    mean_frames: int = 200
    """Number of evenly spaced frames that are averaged into the mean face texture."""
    light_radius: float = 14.0
    """Standard deviation, in texels, of the Gaussian blur that estimates the shading, which is divided out before
    matching."""
    contrast: float = 300.0
    """Grey levels (0 to 255) per unit of relative brightness: with 300, a texel that is 10 % brighter than its
    surroundings becomes 30 levels brighter than mid-grey."""
    least_shading: float = field(default=20.0, metadata=formerly())
    """Grey level (0 to 255) to which darker shading is raised before it is divided out, so that noise in dark areas
    does not become texture."""
    marks: int = 80
    """Maximum number of feature points (Shi-Tomasi corners) that are tracked in the front of the mean face texture."""
    side_marks: int = 40
    """Maximum number of feature points that are tracked in both strips together."""
    side_seen: float = 0.1
    """Minimum share of the frames that must show a feature point of a strip."""
    mark_distance: float = 7.0
    """Minimum distance between two feature points, in texels."""
    mark_quality: float = 0.01
    """Minimum Shi-Tomasi score of a feature point, relative to the strongest one."""
    rim: int = 7
    """Width, in texels, of the border of the face texture in which no feature points are placed."""
    min_marks: int = 16
    """Minimum number of feature points. With fewer the face shows too little texture, and the poses are not refined."""
    window: int = 21
    """Side, in texels, of the window that Lucas-Kanade tracking matches."""
    pyramid_levels: int = field(default=2, metadata=formerly())
    """Number of times the texture is halved for matching, in addition to its full size. With 2 a feature point may move
    by about two windows."""
    round_trip: float = 0.7
    """Maximum forward-backward error of a tracked feature point, in texels; a point above it is ignored in that
    frame."""
    max_landmark_loss: float = 1.5
    """Maximum increase of the median landmark error, in pixels for a face whose eyes are 100 pixels apart. Refined
    poses above it are discarded, because something other than the head was followed."""
    brow_width: float = 0.007
    """Width of the strip around a point of a brow, in metres, over which its profile is averaged."""
    brow_blur: float = 1.5
    """Standard deviation, in texels, of the blur along such a profile."""
    below_nose: float = 0.004
    """Distance below the nose, in metres, down to which the skin counts as rigid; what lies lower moves with speech."""
    eye_margin: float = 1.25
    """Factor by which the outlines of the eyes are enlarged. No feature points are placed inside, because eyes look
    around and blink."""


def refine_head_poses(
    frames: Frames,
    points: NDArray[np.floating],
    valid: NDArray[np.bool_],
    width: int,
    height: int,
    poses: HeadPoses,
    config: AlignmentConfig | None = None,
    pose_config: PoseConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> HeadPoses:
    """Poses solved again with marks of the skin's texture beside the landmarks.

    Two passes over the frames a round, one of them over ``mean_frames`` only; one frame is held at a time.

    Args:
        frames: gives the frames of an array of indices, in order, as often as asked.
        points: [T, 478, 3] landmarks, pixels.
        valid: [T] bool, frames whose landmarks are measured.
        width: image width, pixels.
        height: image height, pixels.
        poses: the solution from landmarks.
        config: options; defaults where None.
        pose_config: options of the solver; defaults where None.
        progress: called as ``progress(done, total)`` after each matched frame.

    Returns:
        The refined poses of the last round that can be believed, ``mark_residual`` included; the given ones where the
        face shows too little texture, or where the refined ones contradict the landmarks (``mark_residual`` None), and
        their ``notes`` say which.
    """
    config = config or AlignmentConfig()
    pose_config = pose_config or PoseConfig()
    eyes = float(np.median(lm.mesh_eye_distance(np.asarray(points)[valid])))
    worst = float(np.nanmedian(poses.residual)) + config.max_landmark_loss * eyes / EYE_UNIT
    steps, count = config.rounds * int(np.sum(valid)), 0

    def advance() -> None:
        nonlocal count
        count += 1
        if progress is not None:
            progress(count, steps)

    def solve(marks: Marks, start: HeadPoses) -> HeadPoses:
        return solve_head_poses(points, valid, width, height, pose_config, marks=marks, start=start)

    for done in range(config.rounds):
        marks = find_marks(frames, valid, poses, config, advance)
        if marks is None:
            reason = f"the skin shows fewer than {config.min_marks} marks that can be followed"
            return poses if done else _kept(poses, reason)
        refined = solve(marks.part(~marks.beside), poses)
        together = fixed_to_head(marks, refined, config.side_error * eyes / EYE_UNIT, config.side_seen)
        if together.beside.any():
            refined = solve(together, refined)
        if not (error := float(np.nanmedian(refined.residual))) < worst:
            reason = (
                f"following the skin's texture leaves the landmarks {error:.2f} px behind (at most {worst:.2f} px are "
                "believed), so something else moves in front of or on the face"
            )
            return poses if done else _kept(poses, reason)
        poses = refined
    return poses


def brow_profiles(
    frames: Frames,
    valid: NDArray[np.bool_],
    poses: HeadPoses,
    config: AlignmentConfig | None = None,
    advance: Callable[[], None] = lambda: None,
) -> tuple[NDArray[np.float32], _FloatArray]:
    """Brightness along the face through each point of the brows (see :mod:`degstalk_ns.landmarks.brows`).

    One pass over the frames.

    Args:
        frames: gives the frames of an array of indices, in order.
        valid: [T] bool, frames that show the face.
        poses: refined poses of all frames.
        config: options; defaults where None.
        advance: called after each frame.

    Returns:
        [T, B, R] logarithm of the grey level along rows from the hairline down, ``texel`` apart, NaN in frames that are
        not valid; and [B] the row of each point in the mean face.
    """
    config = config or AlignmentConfig()
    surface, _ = _surface(poses.face, config)
    points = poses.face[list(BROW_POINTS)]
    columns = np.rint((points[:, 0] - surface[0, 0, 0]) / config.texel).astype(int)
    reach = max(round(config.brow_width / 2 / config.texel), 1)
    beside = np.clip(columns[:, None] + np.arange(-reach, reach + 1), 0, surface.shape[1] - 1)
    strips = surface[:, beside.reshape(-1)]
    profiles = np.full((len(valid), len(points), len(surface)), np.nan, dtype=np.float32)
    index = np.flatnonzero(valid)
    for i, frame in zip(index, frames(index), strict=True):
        grey = _grey_at(frame, _texel_pixels(strips, poses, i))
        bright = cv2.GaussianBlur(grey, (1, 0), sigmaX=1.0, sigmaY=config.brow_blur)
        profiles[i] = np.log(np.maximum(bright, 1.0)).reshape(len(surface), *beside.shape).mean(axis=2).T
        advance()
    return profiles, (surface[0, 0, 1] - points[:, 1]) / config.texel


def _kept(poses: HeadPoses, reason: str) -> HeadPoses:
    note = f"the head poses come from the landmarks alone and may jitter: {reason}"
    return replace(poses, notes=(*poses.notes, note))


def find_marks(
    frames: Frames,
    valid: NDArray[np.bool_],
    poses: HeadPoses,
    config: AlignmentConfig,
    advance: Callable[[], None] = lambda: None,
) -> Marks | None:
    """Corners of the mean texture found in every valid frame; None where the texture shows too few."""
    surface, inside = _surface(poses.face, config)
    index = np.flatnonzero(valid)
    some = index[np.unique(np.linspace(0, len(index) - 1, min(len(index), config.mean_frames)).astype(int))]
    mean = np.zeros(surface.shape[:2])
    for i, frame in zip(some, frames(some), strict=True):
        mean += _unroll(frame, _texel_pixels(surface, poses, i), config)
    mean_texture = np.clip(np.rint(mean / len(some)), 0, 255).astype(np.uint8)
    front, sides = _mark_areas(poses.face, surface, inside, config)
    corners = _corners(mean_texture, front, config.marks, config)
    if len(corners) < config.min_marks:
        return None
    at = np.concatenate([corners, _corners(mean_texture, sides, config.side_marks, config)])
    found = np.zeros((len(valid), len(at), 2))
    seen = np.zeros((len(valid), len(at)), dtype=bool)
    for i, frame in zip(index, frames(index), strict=True):
        pixels = _texel_pixels(surface, poses, i)
        texture = np.clip(np.rint(_unroll(frame, pixels, config)), 0, 255).astype(np.uint8)
        moved, there, _ = cv2.calcOpticalFlowPyrLK(
            mean_texture, texture, at, at.copy(), winSize=(config.window, config.window), maxLevel=config.pyramid_levels
        )
        back, again, _ = cv2.calcOpticalFlowPyrLK(
            texture,
            mean_texture,
            moved,
            moved.copy(),
            winSize=(config.window, config.window),
            maxLevel=config.pyramid_levels,
        )
        miss = np.linalg.norm((back - at)[:, 0], axis=1)
        low, high = moved[:, 0].min(axis=1), (moved[:, 0] - (texture.shape[1], texture.shape[0])).max(axis=1)
        within = (low >= FLOW_MARGIN) & (high <= -1 - FLOW_MARGIN)
        seen[i] = (there[:, 0] > 0) & (again[:, 0] > 0) & (miss < config.round_trip) & within
        found[i] = _sample(pixels, np.asarray(moved[:, 0], dtype=np.float32))
        advance()
    beside = np.arange(len(at)) >= len(corners)
    return Marks(points=found, seen=seen, shape=_sample(surface.astype(np.float32), at[:, 0]), beside=beside)


def fixed_to_head(marks: Marks, poses: HeadPoses, most: float, least_seen: float) -> Marks:
    """The marks in the front, and those beside it that move with the head, placed where the poses see them.

    Args:
        marks: of all frames.
        poses: to judge them by.
        most: maximum of the median error of a mark beside the front, pixels.
        least_seen: minimum share of the frames that show such a mark.
    """
    shape, error = _triangulated(marks, poses)
    seen = marks.seen[marks.seen.any(axis=1)].mean(axis=0)
    kept = ~marks.beside | ((seen >= least_seen) & (error <= most))
    return replace(marks, shape=np.where(marks.beside[:, None], shape, marks.shape)).part(kept)


def _triangulated(marks: Marks, poses: HeadPoses) -> tuple[_FloatArray, _FloatArray]:
    """[M, 3] where on the head each mark is seen (linear least squares over its rays), metres, and [M] its median
    distance from there, pixels; NaN for a mark that fewer than two frames show. A head that hardly turns shows no
    depth: there it stays where the marks have it."""
    shape = triangulated(marks.points, marks.seen, poses.c2w, poses.focal, (poses.cx, poses.cy), marks.shape)
    there, error = marks.seen.sum(axis=0) > 1, np.full(len(shape), np.nan)
    off = np.linalg.norm(project_points(shape, poses.c2w, poses.focal, poses.cx, poses.cy) - marks.points, axis=-1)
    error[there] = np.nanmedian(np.where(marks.seen, off, np.nan)[:, there], axis=0)
    return shape, error


def _corners(
    texture: NDArray[np.uint8], area: NDArray[np.uint8], most: int, config: AlignmentConfig
) -> NDArray[np.float32]:
    """[M, 1, 2] the strongest corners, at most ``most``, of the texture where ``area`` is 255; texels."""
    found = None
    if most:  # OpenCV takes 0 for no limit
        found = cv2.goodFeaturesToTrack(texture, most, config.mark_quality, config.mark_distance, mask=area)
    return np.zeros((0, 1, 2), dtype=np.float32) if found is None else np.asarray(found, dtype=np.float32)


def _surface(face: _FloatArray, config: AlignmentConfig) -> tuple[_FloatArray, NDArray[np.bool_]]:
    """The mean face as a height field over its front and the strips beside it: positions [h, w, 3] in metres, and where
    the face defines it [h, w].

    Rows run from the hairline down to the upper lip; what lies lower moves with speech. To the left and right of the
    face the surface falls back with ``side_slope``.
    """
    top, bottom = face[lm.FOREHEAD_TOP, 1], face[lm.BELOW_NOSE, 1]
    half = config.half_width + config.side_width
    x = np.arange(-half, half, config.texel)
    y = np.arange(top, bottom - config.below_nose, -config.texel)
    X, Y = np.meshgrid(x, y)
    mesh = face[: lm.NUM_MESH]
    Z = LinearNDInterpolator(mesh[:, :2], mesh[:, 2])(X, Y)
    inside = np.isfinite(Z)
    for row, known in zip(Z, inside, strict=True):
        columns = np.flatnonzero(known)
        if len(columns):
            first, last = columns[0], columns[-1]
            row[:first] = row[first] - config.side_slope * (x[first] - x[:first])
            row[last + 1 :] = row[last] - config.side_slope * (x[last + 1 :] - x[last])
    return np.stack([X, Y, np.nan_to_num(Z)], axis=-1), inside


def _mark_areas(
    face: _FloatArray, surface: _FloatArray, inside: NDArray[np.bool_], config: AlignmentConfig
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """255 where marks may be: in the front of the face, off its rim and off the eyes; and in the strips beside it."""
    across = surface[..., 0]
    front = inside & (np.abs(across) < config.half_width)
    rim = np.ones((2 * config.rim + 1,) * 2, np.uint8)
    area = 255 * cv2.erode(front.astype(np.uint8), rim, borderValue=[0.0])
    left, top = across[0, 0], face[lm.FOREHEAD_TOP, 1]
    for eye in (lm.RIGHT_EYE, lm.LEFT_EYE):
        ring = face[list(eye), :2]
        ring = ring.mean(axis=0) + config.eye_margin * (ring - ring.mean(axis=0))
        texels = np.stack([(ring[:, 0] - left) / config.texel, (top - ring[:, 1]) / config.texel], axis=-1)
        cv2.fillConvexPoly(area, cv2.convexHull(np.rint(texels).astype(np.int32)), [0.0])
    sides = ~front
    for edge in (sides, sides.T):  # off the border of the texture
        edge[: config.rim] = edge[max(len(edge) - config.rim, 0) :] = False
    return np.asarray(area, dtype=np.uint8), np.asarray(255 * sides, dtype=np.uint8)


def _texel_pixels(surface: _FloatArray, poses: HeadPoses, i: int) -> NDArray[np.float32]:
    """[h, w, 2] where each texel is in frame ``i``, pixels."""
    flat = project_points(surface.reshape(-1, 3), poses.c2w[i], poses.focal, poses.cx, poses.cy)
    return np.nan_to_num(flat, nan=OUTSIDE).reshape(*surface.shape[:2], 2).astype(np.float32)


def _unroll(frame: NDArray[np.uint8], pixels: NDArray[np.float32], config: AlignmentConfig) -> NDArray[np.float32]:
    """[h, w] relative brightness of the frame at each texel, :data:`MID_GREY` in the middle."""
    texture = _grey_at(frame, pixels)
    shading = cv2.GaussianBlur(texture, (0, 0), config.light_radius)
    bright = np.maximum(shading, config.least_shading)
    return np.asarray(MID_GREY + config.contrast * (texture - shading) / bright, dtype=np.float32)


def _grey_at(frame: NDArray[np.uint8], pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """[h, w] grey level, 0 to 255, at the pixels [h, w, 2]."""
    grey = frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    # The centre of the first pixel is at 0.5 for landmarks and cameras, at 0 for OpenCV.
    x, y = pixels[..., 0] - 0.5, pixels[..., 1] - 0.5
    return cv2.remap(grey, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)


def _sample(values: NDArray[np.float32], at: NDArray[np.float32]) -> _FloatArray:
    """[M, C] bilinear values [h, w, C] at texels [M, 2]."""
    columns = [
        cv2.remap(np.ascontiguousarray(values[..., c]), at[:, :1], at[:, 1:], cv2.INTER_LINEAR)[:, 0]
        for c in range(values.shape[-1])
    ]
    return np.stack(columns, axis=-1).astype(np.float64)
