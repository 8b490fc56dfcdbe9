"""Head poses and one focal length for a whole video, by bundle adjustment over what is rigid of the face.

One rigid shape, a pose per frame, one focal length, smooth in time. Cost is linear in the number of frames. It must
know neither MediaPipe nor images nor files: landmark arrays in, cameras out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solveh_banded
from scipy.spatial.transform import Rotation, Slerp

from degstalk_ns.errors import UserError
from degstalk_ns.landmarks import mesh478 as lm
from degstalk_ns.preprocess.record import formerly

_FloatArray = NDArray[np.float64]
_BoolArray = NDArray[np.bool_]

EYE_UNIT: Final[float] = 100.0
"""Distance between the eyes, in pixels, of the reference face in which lengths of landmarks and marks are given, so
that they mean the same at any size of the frames and of the face in them."""
STEP_BLOCK: Final[int] = 1024
"""Frames whose derivatives are held at once: bounds the memory of long videos."""
FACE_BLOCK: Final[int] = 256
"""Frames whose landmarks are triangulated at once: all 478 of them, so fewer."""

_FLIP = np.diag([1.0, -1.0, -1.0])  # OpenGL axes (x right, y up, z back) <-> OpenCV axes (x right, y down, z forward)
_POSE = 6  # turn (3), projected centre (2), log scale (1)
_BANDS = 2 * _POSE  # second differences couple a frame with the next two


@dataclass(frozen=True)
class PoseConfig:
    """Options of the estimation of the head poses by bundle adjustment. Values without an origin were chosen for this
    project on talking-head videos."""

    landmarks: tuple[int, ...] = lm.RIGID
    """Indices of the MediaPipe face landmarks to which the rigid head is fitted."""
    interpupillary_distance: float = 0.063
    """Distance between the centres of the eyes, in metres. It sets the scale of the scene; the default is the adult
    mean."""
    focal_prior: float = 2.5
    """Prior mean of the focal length, in image widths; the default is that of a portrait lens after cropping around the
    head."""
    focal_prior_log_sigma: float = 0.35
    """Standard deviation of the prior on the natural logarithm of the focal length; 0.35 means within a factor of
    1.4."""
    focal_bounds: tuple[float, float] = (1.0, 6.0)
    """Lower and upper bound of the focal length, in image widths."""
    landmark_sigma: float = 1.0
    """Expected standard deviation of the landmark noise, in pixels for a face whose eyes are 100 pixels apart."""
    independent_landmarks: float = 12.0
    """Effective number of independent measurements in the landmarks of one frame. It is lower than their count because
    neighbouring landmarks share errors: the whole mesh shifts with the crop that the tracker read it from."""
    independent_marks: float = 24.0
    """Effective number of independent measurements in the tracked skin features of one frame, which share fewer errors
    than landmarks do."""
    independent_side_marks: float = 8.0
    """The same for those beside the front of the face, on ears and hair. It is lower because some of them lie on
    outlines, which slide over the head as it turns; their distance from the middle of the head makes up for it."""
    landmarks_beside_marks: float = 0.1
    """Weight of the landmarks, 0 to 1, in frames where skin features are tracked. It is low because landmarks slide
    over the skin when the head turns, and skin features do not."""
    independent_fraction: float = 0.02
    """Effective number of independent frames per frame when focal length and face shape are estimated, because
    expression and view bias the landmarks of many frames in the same way. It weighs the data against the priors."""
    huber: float = 1.5
    """Threshold of the Huber loss, in units of the expected noise; larger residuals count linearly instead of
    squared."""
    smooth_rotation: float = 0.008
    """Expected angular acceleration of the head, in radians per frame squared (0.008 is 0.46 degrees). Origin: measured
    on a talking person at 25 frames/s; smaller values flatten nods, and larger ones keep the jitter of the tracker."""
    smooth_translation: float = 1.2
    """Expected acceleration of the projected head centre, in pixels per frame squared for a face whose eyes are 100
    pixels apart. Origin: measured as for the rotation."""
    smooth_scale: float = 0.002
    """Expected acceleration of the logarithm of the head's size in the image (that is, of its distance), per frame
    squared. Origin: measured as for the rotation."""
    shape_sigma: tuple[float, float, float] = (0.1, 0.1, 0.02)
    """Prior standard deviation of the face shape around the tracker's own mean 3D shape, in metres along x, y and z.
    The value along z matters: a head that hardly turns does not show depth. Those along x and y only hold the shape in
    place."""
    shape_frames: int = 600
    """Number of evenly spaced frames from which face shape and focal length are estimated; more of them need more
    memory and hardly add accuracy."""
    face_prior_weight: float = 1e-3
    """Weight of the tracker's own 3D points, relative to the image observations, when the mean positions of all
    landmarks are estimated. It is the squared sine of an angle: once the head turns by more than that (1.8 degrees),
    depth comes from the observations rather than from the tracker."""
    iterations: int = 40
    """Maximum number of Gauss-Newton steps of a solve."""
    tolerance: float = 1e-5
    """Relative decrease of the cost below which a solve ends."""
    reweightings: int = 3
    """Number of times the noise of each landmark is estimated again from its residuals."""
    weight_range: tuple[float, float] = (0.5, 3.0)
    """Lower and upper limit of the noise estimate of a landmark, in multiples of the median over landmarks and marks,
    so that a few landmarks cannot dominate."""
    mark_weight_range: tuple[float, float] = (0.5, 8.0)
    """The same for a mark. The upper limit is higher, because a mark can move on its own: on a brow, on hair that
    swings, or on the background beside the head."""
    outlier_medians: float = field(default=3.0, metadata=formerly())
    """Multiple of the median residual of a landmark to which larger residuals are clipped when its noise is
    estimated."""
    least_frames: int = field(default=3, metadata=formerly())
    """Minimum number of frames that show a face. With fewer there are no second differences, and the video is
    rejected."""
    least_eye_distance: float = field(default=1.0, metadata=formerly())
    """Minimum distance between the eyes, in pixels at any size of the frames. It only rejects nonsense."""
    start_rounds: int = field(default=3, metadata=formerly())
    """Number of rounds of aligning the tracker's shapes to their mean for the initial solution, which converges in
    two."""
    start_least_scale: float = field(default=1e-3, metadata=formerly())
    """Minimum scale of an initial pose, relative to that of the median frame, so that its logarithm exists."""
    damping_start: float = field(default=1e-6, metadata=formerly())
    """Levenberg-Marquardt damping of the first step, relative to the diagonal of the normal matrix. Origin: chosen for
    this project, as are the next four options, because nearly every step succeeds at once (Numerical Recipes starts at
    1e-3 and multiplies or divides by 10)."""
    damping_rise: float = field(default=30.0, metadata=formerly())
    """Factor applied to the damping after a step that raised the cost."""
    damping_fall: float = field(default=0.1, metadata=formerly())
    """Factor applied to the damping after a step that lowered the cost."""
    damping_floor: float = field(default=1e-9, metadata=formerly())
    """Minimum of the damping."""
    damping_limit: float = field(default=1e6, metadata=formerly())
    """Damping above which a solve ends, because its steps have become too short to matter."""
    most_log_scale_step: float = field(default=0.5, metadata=formerly())
    """Maximum change of the logarithm of the scale of a frame in one step (0.5 is a factor of 1.6)."""
    most_log_focal_step: float = field(default=0.7, metadata=formerly())
    """Maximum change of the logarithm of the focal length in one step (0.7 is a factor of 2)."""
    pose_floor: float = field(default=1e-9, metadata=formerly())
    """Value added to the normal matrix of the poses, in units of the smoothness weights; it keeps the matrix definite
    where a frame shows nothing."""
    shared_floor: float = field(default=1e-12, metadata=formerly())
    """Value added to the normal matrix of face shape and focal length, relative to its trace; it keeps the matrix
    definite."""
    prior_frames: int = field(default=200, metadata=formerly())
    """Number of evenly spaced frames whose 3D points from the tracker form the prior of the mean face, enough for a
    median."""


@dataclass(frozen=True)
class Marks:
    """Points of the skin followed through the video beside the landmarks (see ``alignment``)."""

    points: _FloatArray
    """[T, M, 2] pixels; what is not seen may hold anything."""
    seen: _BoolArray
    """[T, M]."""
    shape: _FloatArray
    """[M, 3] where they are on the head, metres, in the axes of the poses they were found with."""
    beside: _BoolArray
    """[M] those beside the front of the face, on ears and hair."""

    def part(self, kept: _BoolArray) -> Marks:
        """The marks of which ``kept`` [M] is true."""
        return Marks(self.points[:, kept], self.seen[:, kept], self.shape[kept], self.beside[kept])


@dataclass(frozen=True)
class HeadPoses:
    """Cameras in head coordinates: origin inside the head, x to the subject's left, y up, face along +z, metres."""

    c2w: _FloatArray
    """[T, 4, 4] camera-to-world, OpenGL axes. The head is fixed, the camera moves."""
    focal: float
    """Focal length, pixels."""
    cx: float
    """Principal point, pixels."""
    cy: float
    residual: _FloatArray
    """[T] median reprojection error of the rigid landmarks, pixels; NaN where the frame was not valid."""
    shape: _FloatArray
    """[K, 3] positions of the rigid landmarks, metres, in the order of ``PoseConfig.landmarks``."""
    face: _FloatArray
    """[N, 3] mean positions of all landmarks (expression averaged out), metres."""
    weights: _FloatArray
    """[K] measured weight of each rigid landmark (1: as the median one)."""
    jitter: dict[str, float] = field(default_factory=dict)
    """Root mean square of second differences with every frame on its own (``_before``) and smoothed (``_after``):
    ``rotation_*`` [degrees / frame^2], ``position_*`` of the projected head centre [px / frame^2], ``scale_*``."""
    mark_residual: _FloatArray | None = None
    """[T] median reprojection error of the marks seen, pixels, if there were marks; NaN where none was seen."""
    notes: tuple[str, ...] = ()
    """What makes the poses less sure than usual, one line each."""


def project_points(points_world: _FloatArray, c2w: _FloatArray, focal: float, cx: float, cy: float) -> _FloatArray:
    """Pixel positions of world points.

    Args:
        points_world: [..., N, 3] metres.
        c2w: [..., 4, 4] camera-to-world, OpenGL axes; leading dimensions broadcast against those of the points.
        focal: focal length, pixels.
        cx: principal point, pixels.
        cy: principal point, pixels.

    Returns:
        [..., N, 2] x (right) and y (down), pixels. Points behind the camera are NaN.
    """
    points = np.asarray(points_world, dtype=np.float64)
    c2w = np.asarray(c2w, dtype=np.float64)
    local = (points - c2w[..., None, :3, 3]) @ c2w[..., :3, :3]  # rows times R equals R^T times columns
    depth = -local[..., 2]
    depth = np.where(depth > 0, depth, np.nan)
    return np.stack([cx + focal * local[..., 0] / depth, cy - focal * local[..., 1] / depth], axis=-1)


def solve_head_poses(
    points: NDArray[np.floating],
    valid: _BoolArray,
    width: int,
    height: int,
    config: PoseConfig | None = None,
    marks: Marks | None = None,
    start: HeadPoses | None = None,
) -> HeadPoses:
    """Poses of the head in all frames, one focal length and the rigid shape, by bundle adjustment.

    Shape, focal length and each landmark's weight are solved jointly from evenly spaced frames; then all frames' poses,
    smooth in time. Frames that are not valid get poses carried by the smoothness. The principal point is the image
    centre: an off-centre one looks like a small constant turn of the head, which the poses absorb.

    Args:
        points: [T, N, 3] landmarks: x right and y down in pixels, z away from the camera in about the same unit (only
            used to start, and where the video does not show depth).
        valid: [T] bool, frames whose landmarks are measured.
        width: image width, pixels.
        height: image height, pixels.
        config: options; defaults where None.
        marks: texture points to fit beside the landmarks; they need ``start``.
        start: an earlier solution of the same frames to go on from.

    Returns:
        :class:`HeadPoses` of T frames.

    Raises:
        UserError: landmarks of a valid frame that are not finite; fewer than 3 valid frames; all landmarks on a point.
        ValueError: ``marks`` without ``start``.
    """
    config = config or PoseConfig()
    points = np.asarray(points, dtype=np.float64)
    valid = np.asarray(valid, dtype=bool)
    _check(points, valid, config)
    if marks is not None and start is None:
        raise ValueError("marks need the poses they were found with: pass start")
    cx, cy = width / 2.0, height / 2.0
    rigid = list(config.landmarks)
    K = len(rigid)
    eye_px = _eye_distance(points[valid])
    uv, seen, group = _observations(points[:, rigid, :2], valid, marks, cx, cy, config)
    if start is not None:
        state = _state_of(start, marks)
    else:
        state = _initial(points, valid, rigid, cx, cy, eye_px, width, config)

    # 1. What all frames share, from some of them.
    index = np.flatnonzero(valid)
    index = index[np.unique(np.linspace(0, len(index) - 1, min(len(index), config.shape_frames)).astype(int))]
    some = _Problem(uv[index], seen[index], group[index], float(width), eye_px, config, state.X, smooth=False)
    shared = some.solve(state.rows(index), shared=True)
    for _ in range(config.reweightings):
        some.reweight(shared)
        shared = some.solve(shared, shared=True)

    # 2. All frames' poses.
    every = _Problem(uv, seen, group, float(width), eye_px, config, some.shape_prior, smooth=len(points) >= 3)
    every.landmark_weight = some.landmark_weight
    state = every.solve(_State(state.R, state.p, state.log_s, shared.k, shared.X), shared=False)
    every.smooth = False
    notes = _notes(some, every, shared, config)
    alone = every.solve(state, shared=False)

    distance = np.linalg.norm(every.project(state) - uv, axis=-1)
    face = _mean_face(points[valid], state.rows(valid), rigid, cx, cy, config)
    to_head, origin, scale = _head_frame(face, config)
    rotation = state.R @ to_head.T
    focal = 1.0 / state.k
    # X = to_head^T X_head / scale + origin; multiplying all lengths by scale keeps every picture.
    s = np.exp(state.log_s)
    translation = np.concatenate([state.p / s[:, None], (focal / s)[:, None]], axis=1)
    translation = (translation + state.R @ origin) * scale
    c2w = np.tile(np.eye(4), (len(points), 1, 1))
    c2w[:, :3, :3] = np.transpose(rotation, (0, 2, 1)) @ _FLIP
    c2w[:, :3, 3] = -np.einsum("tji,tj->ti", rotation, translation)
    return HeadPoses(
        c2w=c2w,
        focal=focal,
        cx=cx,
        cy=cy,
        residual=np.where(valid, np.median(distance[:, :K], axis=1), np.nan),
        shape=((state.X[:K] - origin) @ to_head.T) * scale,
        face=((face - origin) @ to_head.T) * scale,
        weights=some.landmark_weight[:K].copy(),
        jitter=_jitter(alone, state, valid),
        mark_residual=None if marks is None else _masked_median(distance[:, K:], seen[:, K:]),
        notes=notes,
    )


@dataclass
class _State:
    """Scaled-perspective parameters: ``u = cx + (s Yx + px) / (1 + s k Yz)`` with ``Y = R X``.

    The same camera as focal f = 1/k and translation (px, py, f) / s, but well conditioned for long lenses: distance and
    focal length no longer trade off.
    """

    R: _FloatArray  # [T, 3, 3] head to OpenCV camera
    p: _FloatArray  # [T, 2] px, head origin relative to the principal point
    log_s: _FloatArray  # [T] log of px per metre
    k: float  # 1 / focal, 1 / px
    X: _FloatArray  # [K, 3] metres

    def rows(self, index: NDArray[np.intp] | _BoolArray) -> _State:
        return _State(self.R[index], self.p[index], self.log_s[index], self.k, self.X)


def _check(points: _FloatArray, valid: _BoolArray, config: PoseConfig) -> None:
    if points.ndim != 3 or points.shape[2] != 3 or points.shape[1] <= max(config.landmarks):
        raise UserError(
            f"landmarks: expected [T, >{max(config.landmarks)}, 3], found {list(points.shape)}; run the tracking again"
        )
    if valid.shape != points.shape[:1]:
        raise UserError(f"landmarks: {len(points)} frames but {valid.size} validity flags; run the tracking again")
    if valid.sum() < config.least_frames:
        raise UserError(
            f"head poses: a face is known in {int(valid.sum())} frames only, at least {config.least_frames} are needed"
        )
    bad = np.flatnonzero(valid & ~np.isfinite(points).all(axis=(1, 2)))
    if bad.size:
        raise UserError(
            f"landmarks: values of frame {bad[0]} are not finite ({bad.size} such frames); run the tracking again"
        )
    if not _eye_distance(points[valid]) > config.least_eye_distance:
        raise UserError(
            f"landmarks: the eyes are less than {config.least_eye_distance:g} px apart; a larger face is expected, "
            "crop closer"
        )


def _eye_distance(points: _FloatArray) -> float:
    """Median distance between the eyes over frames, pixels (in 3D, so that turning away counts little)."""
    return float(np.median(lm.mesh_eye_distance(points)))


def _observations(
    points: _FloatArray, valid: _BoolArray, marks: Marks | None, cx: float, cy: float, config: PoseConfig
) -> tuple[_FloatArray, _BoolArray, _FloatArray]:
    """Landmarks and marks side by side: positions [T, K, 2], seen [T, K], and the weight of each one's group [T, K]."""
    T, K = points.shape[:2]
    uv = np.where(valid[:, None, None], points - (cx, cy), 0.0)
    seen: _BoolArray = np.repeat(valid[:, None], K, axis=1)
    group = np.full((T, K), min(1.0, config.independent_landmarks / K))
    if marks is None:
        return uv, seen, group
    mark_seen = marks.seen & valid[:, None]
    uv = np.concatenate([uv, np.where(mark_seen[..., None], marks.points - (cx, cy), 0.0)], axis=1)
    # A frame that shows few marks leans on the landmarks again.
    part = mark_seen[:, ~marks.beside].mean(axis=1, keepdims=True)
    group = group * (1.0 - part * (1.0 - config.landmarks_beside_marks))
    beside = int(marks.beside.sum())
    each = min(1.0, config.independent_marks / max(len(marks.beside) - beside, 1))
    each_beside = min(each, config.independent_side_marks / max(beside, 1))
    mark_group = np.where(marks.beside, each_beside, each) * np.ones((T, 1))
    return uv, np.concatenate([seen, mark_seen], axis=1), np.concatenate([group, mark_group], axis=1)


def _state_of(start: HeadPoses, marks: Marks | None) -> _State:
    rotation = np.einsum("ij,tkj->tik", _FLIP, start.c2w[:, :3, :3])
    translation = -np.einsum("tij,tj->ti", rotation, start.c2w[:, :3, 3])
    s = start.focal / translation[:, 2]
    X = start.shape if marks is None else np.concatenate([start.shape, marks.shape])
    return _State(R=rotation, p=translation[:, :2] * s[:, None], log_s=np.log(s), k=1.0 / start.focal, X=X)


def _initial(
    points: _FloatArray,
    valid: _BoolArray,
    rigid: list[int],
    cx: float,
    cy: float,
    eye_px: float,
    width: int,
    config: PoseConfig,
) -> _State:
    """Start: the tracker's 3D points aligned to their own mean by similarity transforms (Umeyama 1991)."""
    seen = points[:, rigid][valid] - (cx, cy, 0.0)
    centre = seen.mean(axis=1, keepdims=True)
    mean = (seen - centre)[len(seen) // 2]
    for _ in range(config.start_rounds):  # the bundle adjustment does the rest
        u, d, vt = np.linalg.svd(np.einsum("tki,kj->tij", seen - centre, mean))
        sign = np.ones((len(seen), 3))
        sign[:, 2] = np.sign(np.linalg.det(u @ vt))
        rotation = (u * sign[:, None, :]) @ vt
        scale = (d * sign).sum(axis=1) / (mean**2).sum()
        mean = np.median(np.einsum("tij,tki->tkj", rotation, seen - centre) / scale[:, None, None], axis=0)
        mean -= mean.mean(axis=0)
    # mean is in OpenCV axes and px of the median frame; the head's own axes are y up, z towards the viewer.
    px_per_metre = eye_px / config.interpupillary_distance
    p = centre[:, 0, :2]
    log_s = np.log(np.maximum(scale, config.start_least_scale) * px_per_metre)
    index = np.flatnonzero(valid)
    inside = np.clip(np.arange(len(points)), index[0], index[-1])
    return _State(
        R=Slerp(index, Rotation.from_matrix(rotation @ _FLIP))(inside).as_matrix(),
        p=np.stack([np.interp(inside, index, p[:, j]) for j in range(2)], axis=1),
        log_s=np.interp(inside, index, log_s),
        k=1.0 / (config.focal_prior * width),
        X=mean @ _FLIP / px_per_metre,
    )


class _Problem:
    """The least-squares problem: unknowns are 6 numbers a frame, and shape and 1/focal.

    The frames' part of the normal equations has 12 bands beside the diagonal thanks to the second differences; shape
    and focal length are eliminated last (Schur complement). So a step costs one banded factorisation: linear in T.
    """

    def __init__(
        self,
        uv: _FloatArray,
        seen: _BoolArray,
        group: _FloatArray,
        width: float,
        eye_px: float,
        config: PoseConfig,
        shape_prior: _FloatArray,
        smooth: bool,
    ) -> None:
        self.uv = uv
        self.seen = seen
        self.width = width
        self.config = config
        self.shape_prior = shape_prior
        self.smooth = smooth
        self.settled = False
        """Whether the last :meth:`solve` ended at a minimum."""
        self.landmark_weight = np.ones(uv.shape[1])
        unit = eye_px / EYE_UNIT
        self.sigma = config.landmark_sigma * unit
        self.base_weight = seen * group / self.sigma**2
        expected = [config.smooth_rotation] * 3 + [config.smooth_translation * unit] * 2 + [config.smooth_scale]
        self.smooth_weight = 1.0 / np.array(expected) ** 2
        # Priors of what all frames share are weighed against the independent part of the data only.
        self.prior_scale = 1.0 / config.independent_fraction
        self.shape_weight = self.prior_scale / np.square(config.shape_sigma)

    # -- model -------------------------------------------------------------------------------------------------------
    def project(self, state: _State) -> _FloatArray:
        """[T, K, 2] px relative to the principal point."""
        Y = np.einsum("tij,kj->tki", state.R, state.X)
        s = np.exp(state.log_s)[:, None]
        den = 1.0 + s * state.k * Y[..., 2]
        return (s[..., None] * Y[..., :2] + state.p[:, None]) / den[..., None]

    def _relative(self, residual: _FloatArray) -> _FloatArray:
        """[T, K] error in units of the expected one."""
        return np.linalg.norm(residual, axis=-1) * np.sqrt(self.landmark_weight) / self.sigma

    def _accelerations(self, state: _State) -> _FloatArray:
        """[T-2, 6] second differences of turn (rad), projected centre (px) and log scale."""
        step = Rotation.from_matrix(state.R[1:] @ np.transpose(state.R[:-1], (0, 2, 1))).as_rotvec()
        rest = np.concatenate([state.p, state.log_s[:, None]], axis=1)
        return np.concatenate([np.diff(step, axis=0), np.diff(rest, n=2, axis=0)], axis=1)

    def _focal_residual(self, k: float) -> float:
        return (-np.log(k) - np.log(self.config.focal_prior * self.width)) / self.config.focal_prior_log_sigma

    def cost(self, state: _State) -> float:
        relative = self._relative(self.project(state) - self.uv)
        h = self.config.huber
        rho = np.where(relative < h, relative**2, 2 * h * relative - h * h) * self.sigma**2
        total = float((rho * self.base_weight).sum())
        if self.smooth:
            total += float((self._accelerations(state) ** 2 * self.smooth_weight).sum())
        total += float(((state.X - self.shape_prior) ** 2 * self.shape_weight).sum())
        return total + self._focal_residual(state.k) ** 2 * self.prior_scale

    # -- Gauss-Newton ------------------------------------------------------------------------------------------------
    def _jacobians(
        self, state: _State, rows: slice
    ) -> tuple[_FloatArray, _FloatArray, _FloatArray, _FloatArray, _FloatArray]:
        """Residuals [T, K, 2], robust weights [T, K], and derivatives by pose [T, K, 2, 6], point [T, K, 2, 3] (turned)
        and log k [T, K, 2]."""
        Y = np.einsum("tij,kj->tki", state.R[rows], state.X)
        s = np.exp(state.log_s[rows])[:, None]
        inv = 1.0 / (1.0 + s * state.k * Y[..., 2])
        uv = (s[..., None] * Y[..., :2] + state.p[rows, None]) * inv[..., None]
        point = np.zeros((*Y.shape[:2], 2, 3))
        point[..., 0, 0] = point[..., 1, 1] = s * inv
        point[..., 2] = -(s * state.k * inv)[..., None] * uv
        shift = s * state.k * Y[..., 2] * inv
        pose = np.zeros((*Y.shape[:2], 2, _POSE))
        # Left perturbation R <- exp(w) R moves Y by w x Y, and row . (w x Y) = (Y x row) . w
        pose[..., :3] = np.cross(Y[:, :, None, :], point)
        pose[..., 0, 3] = pose[..., 1, 4] = inv
        pose[..., 5] = s[..., None] * Y[..., :2] * inv[..., None] - uv * shift[..., None]
        residual = uv - self.uv[rows]
        # Iteratively reweighted least squares for Huber's loss.
        robust = self.config.huber / np.maximum(self._relative(residual), self.config.huber)
        weight = robust * self.landmark_weight * self.base_weight[rows]
        return residual, weight, pose, point, -uv * shift[..., None]

    def _poses_step(self, state: _State, damping: float) -> _State:
        """One step of all poses, shape and focal length fixed."""
        T = len(state.R)
        A, g = np.empty((T, _POSE, _POSE)), np.empty((T, _POSE))
        for low in range(0, T, STEP_BLOCK):
            rows = slice(low, low + STEP_BLOCK)
            residual, weight, pose, _, _ = self._jacobians(state, rows)
            weighted = pose * weight[..., None, None]
            A[rows] = np.einsum("tkai,tkaj->tij", weighted, pose, optimize=True)
            g[rows] = np.einsum("tkai,tka->ti", weighted, residual, optimize=True)
        bands, g = self._with_smoothness(state, A, g, damping)
        delta = -solveh_banded(bands, g.reshape(-1), lower=False).reshape(T, _POSE)
        return self._moved(state, delta, np.zeros_like(state.X), 0.0)

    def _joint_step(self, state: _State, damping: float) -> _State:
        """One step of all unknowns."""
        T, K = self.uv.shape[:2]
        residual, weight, pose, point, focal = self._jacobians(state, slice(None))
        shape = np.einsum("tkai,tij->tkaj", point, state.R, optimize=True)
        weighted = pose * weight[..., None, None]
        A = np.einsum("tkai,tkaj->tij", weighted, pose, optimize=True)
        bands, g = self._with_smoothness(
            state, A, np.einsum("tkai,tka->ti", weighted, residual, optimize=True), damping
        )
        # Columns: shape (3K), then log k.
        B = np.empty((T, _POSE, 3 * K + 1))
        B[..., :-1] = np.einsum("tkai,tkaj->tikj", weighted, shape, optimize=True).reshape(T, _POSE, 3 * K)
        B[..., -1] = np.einsum("tkai,tka->ti", weighted, focal, optimize=True)
        weighted = shape * weight[..., None, None]
        C = np.zeros((3 * K + 1, 3 * K + 1))
        for k, block in enumerate(np.einsum("tkai,tkaj->kij", weighted, shape, optimize=True)):
            C[3 * k : 3 * k + 3, 3 * k : 3 * k + 3] = block + np.diag(self.shape_weight)
        C[:-1, -1] = C[-1, :-1] = np.einsum("tkai,tka->ki", weighted, focal, optimize=True).reshape(-1)
        sigma = self.config.focal_prior_log_sigma
        C[-1, -1] = float((weight[..., None] * focal**2).sum()) + self.prior_scale / sigma**2
        h = np.empty(3 * K + 1)
        pull = self.shape_weight * (state.X - self.shape_prior)
        h[:-1] = (np.einsum("tkai,tka->ki", weighted, residual, optimize=True) + pull).reshape(-1)
        h[-1] = float((weight[..., None] * focal * residual).sum())
        h[-1] -= self.prior_scale * self._focal_residual(state.k) / sigma
        C[np.diag_indices_from(C)] *= 1.0 + damping
        flat = B.reshape(_POSE * T, -1)
        solved = solveh_banded(bands, np.column_stack([g.reshape(-1), flat]), lower=False)
        schur = C - solved[:, 1:].T @ flat
        schur = 0.5 * (schur + schur.T)
        schur[np.diag_indices_from(schur)] += self.config.shared_floor * np.trace(schur)
        dense = np.linalg.solve(schur, flat.T @ solved[:, 0] - h)
        delta = -(solved[:, 0] + solved[:, 1:] @ dense).reshape(T, _POSE)
        return self._moved(state, delta, dense[:-1].reshape(K, 3), float(dense[-1]))

    def _with_smoothness(
        self, state: _State, A: _FloatArray, g: _FloatArray, damping: float
    ) -> tuple[_FloatArray, _FloatArray]:
        """The frames' normal matrix in scipy's upper banded form [13, 6T], and the gradient [T, 6]."""
        T = len(A)
        diagonal = np.einsum("tii->ti", A)  # a view
        # A frame without landmarks, or a direction that they do not show, is held by its neighbours alone; the floor
        # keeps the matrix definite.
        diagonal += damping * diagonal + self.config.pose_floor * self.smooth_weight
        near, far = np.zeros((T, _POSE)), np.zeros((T, _POSE))
        if self.smooth:
            D = self.smooth_weight
            a = self._accelerations(state) * D
            # a_t = x_{t-1} - 2 x_t + x_{t+1}: exact for centre and scale, first order in the small turn per frame.
            for offset, factor in ((0, 1.0), (1, -2.0), (2, 1.0)):
                g[offset : T - 2 + offset] += factor * a
                diagonal[offset : T - 2 + offset] += factor * factor * D
            near[1 : T - 1] -= 2.0 * D
            near[2:] -= 2.0 * D
            far[2:] += D
        bands = np.zeros((_BANDS + 1, _POSE * T))
        for i in range(_POSE):
            for j in range(i, _POSE):
                bands[_BANDS - (j - i), j::_POSE] = A[:, i, j]
            bands[_BANDS - _POSE, i::_POSE] = near[:, i]
            bands[0, i::_POSE] = far[:, i]
        return bands, g

    def _bounds(self) -> tuple[float, float]:
        low, high = self.config.focal_bounds
        return 1.0 / (high * self.width), 1.0 / (low * self.width)

    def solve(self, state: _State, shared: bool) -> _State:
        """Levenberg-Marquardt until the cost settles; ``shared``: shape and focal length too."""
        step = self._joint_step if shared else self._poses_step
        c = self.config
        damping = c.damping_start
        cost, done = self.cost(state), False
        for _ in range(c.iterations):
            trial = step(state, damping)
            new = self.cost(trial)
            if not new < cost:  # also when it is NaN
                damping *= c.damping_rise
                if damping > c.damping_limit:  # not even the smallest step gets lower: this is the minimum
                    done = bool(np.isfinite(cost))
                    break
                continue
            done = cost - new < c.tolerance * cost
            state, cost, damping = trial, new, max(damping * c.damping_fall, c.damping_floor)
            if done:
                break
        self.settled = done
        return state

    def reweight(self, state: _State) -> None:
        """Each landmark's noise measured from its residuals: robust, within ``weight_range`` of the median landmark."""
        error = np.where(self.seen, np.linalg.norm(self.project(state) - self.uv, axis=-1), np.nan)
        known = self.seen.any(axis=0)
        error = error[:, known]
        most = self.config.outlier_medians * np.nanmedian(error, axis=0)
        spread = np.sqrt(np.nanmean(np.minimum(error, most) ** 2, axis=0))
        rigid = len(self.config.landmarks)
        limits = np.array([self.config.weight_range] * rigid + [self.config.mark_weight_range] * (len(known) - rigid))
        low, high = limits[known].T
        relative = np.clip(spread / max(float(np.median(spread)), 1e-9), low, high)
        self.landmark_weight[known] = 1.0 / relative**2

    def _moved(self, state: _State, pose: _FloatArray, shape: _FloatArray, log_k: float) -> _State:
        most_scale, most_focal = self.config.most_log_scale_step, self.config.most_log_focal_step
        factor = np.exp(np.clip(log_k, -most_focal, most_focal))
        return _State(
            R=Rotation.from_rotvec(pose[:, :3]).as_matrix() @ state.R,
            p=state.p + pose[:, 3:5],
            log_s=state.log_s + np.clip(pose[:, 5], -most_scale, most_scale),
            k=float(np.clip(state.k * factor, *self._bounds())),
            X=state.X + shape,
        )


def _notes(some: _Problem, every: _Problem, shared: _State, config: PoseConfig) -> tuple[str, ...]:
    """What a user should know of a solution: it did not settle, or the focal length went as far as it may."""
    notes = []
    if not (some.settled and every.settled):
        what = "focal length and shape of the head" if not some.settled else "the head poses"
        notes.append(f"{what} had not settled after {config.iterations} steps of the solver: the poses are less exact")
    widths = 1.0 / (shared.k * some.width)
    low, high = config.focal_bounds
    if not low * 1.001 < widths < high * 0.999:
        notes.append(
            f"the focal length came out at its bound of {widths:g} image widths (believed from {low:g} to {high:g}): "
            "the head turns too little to show it, or the lens is unusual"
        )
    return tuple(notes)


def _mean_face(
    points: _FloatArray, state: _State, rigid: list[int], cx: float, cy: float, config: PoseConfig
) -> _FloatArray:
    """[N, 3] every landmark triangulated from all frames as if it were rigid (linear least squares)."""
    N = points.shape[1]
    s = np.exp(state.log_s)
    normal, vector = np.zeros((N, 3, 3)), np.zeros((N, 3))
    for low in range(0, len(points), FACE_BLOCK):
        part = slice(low, low + FACE_BLOCK)
        uv, R = points[part, :, :2] - (cx, cy), state.R[part]
        # (s Yx + px) = u (1 + s k Yz)  ->  s (R_x - u k R_z) X = u - px, and the same for y.
        rows = s[part, None, None, None] * (R[:, None, :2, :] - (uv * state.k)[..., None] * R[:, None, 2:3, :])
        normal += np.einsum("tnai,tnaj->nij", rows, rows, optimize=True)
        vector += np.einsum("tnai,tna->ni", rows, uv - state.p[part, None], optimize=True)
    # A head that hardly turns shows no depth: fall back, per landmark, on the tracker's own 3D points, mapped to where
    # its rigid landmarks are adjusted (affinely: its depth has its own scale).
    some = np.unique(np.linspace(0, len(points) - 1, min(len(points), config.prior_frames)).astype(int))
    own = np.einsum("tji,tnj->tni", state.R[some], points[some] - (cx, cy, 0.0)) / s[some, None, None]
    own = np.median(own - own[:, rigid].mean(axis=1, keepdims=True), axis=0)
    design = np.column_stack([own, np.ones(N)])
    prior = design @ np.linalg.lstsq(design[rigid], state.X[: len(rigid)], rcond=None)[0]
    weight = config.face_prior_weight * len(points) * float(np.median(s)) ** 2
    return np.linalg.solve(normal + weight * np.eye(3), (vector + weight * prior)[..., None])[..., 0]


def _head_frame(face: _FloatArray, config: PoseConfig) -> tuple[_FloatArray, _FloatArray, float]:
    """Rotation [3, 3] into head axes, origin [3] and scale that the mean face defines.

    x runs from the right to the left half of the face (the mean over mirrored points: two eyes alone would tip with
    every error of their depth), y from chin to forehead, and the origin is the middle of the face's box (chin to
    hairline, ear to ear, nose tip to ears): that is what keeps the face inside [-0.1, 0.1]^3.
    """
    x = (face[list(lm.RIGID_LEFT)] - face[list(lm.RIGID_RIGHT)]).sum(axis=0)
    x /= np.linalg.norm(x)
    right = face[list(lm.RIGHT_EYE_CORNERS)].mean(axis=0)
    left = face[list(lm.LEFT_EYE_CORNERS)].mean(axis=0)
    z = np.cross(x, face[lm.FOREHEAD_TOP] - face[lm.CHIN])
    z /= np.linalg.norm(z)
    rotation = np.stack([x, np.cross(z, x), z])
    local = face @ rotation.T
    middle = 0.5 * (local.min(axis=0) + local.max(axis=0))
    middle[0] = 0.5 * ((right + left) @ x)
    return rotation, middle @ rotation, float(config.interpupillary_distance / np.linalg.norm(left - right))


def _jitter(before: _State, after: _State, valid: _BoolArray) -> dict[str, float]:
    known = valid[:-2] & valid[1:-1] & valid[2:]
    result: dict[str, float] = {}
    for name, state in (("before", before), ("after", after)):
        turn = Rotation.from_matrix(state.R[1:] @ np.transpose(state.R[:-1], (0, 2, 1))).as_rotvec()
        for key, series in (
            ("rotation", np.degrees(np.diff(turn, axis=0))),
            ("position", np.diff(state.p, n=2, axis=0)),
            ("scale", np.diff(state.log_s, n=2)[:, None]),
        ):
            result[f"{key}_{name}"] = float(np.sqrt((series[known] ** 2).sum(axis=1).mean())) if known.any() else 0.0
    return result


def _masked_median(values: _FloatArray, mask: _BoolArray) -> _FloatArray:
    """[T] median over the second dimension of what ``mask`` lets through; NaN where that is nothing."""
    result = np.full(len(values), np.nan)
    some = mask.any(axis=1)
    result[some] = np.nanmedian(np.where(mask[some], values[some], np.nan), axis=1)
    return result
