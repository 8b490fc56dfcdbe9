"""Head poses and one focal length for a whole video, by bundle adjustment over the rigid landmarks of the face.

One rigid shape, a pose per frame, one focal length, smooth in time: a joint Gauss-Newton solve whose cost is linear in
the number of frames. It must know neither MediaPipe nor images nor files: landmark arrays in, cameras out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solveh_banded
from scipy.spatial.transform import Rotation, Slerp

from degstalk_ns.errors import UserError
from degstalk_ns.preprocess import landmarks as lm

FloatArray = NDArray[np.float64]

_FLIP = np.diag([1.0, -1.0, -1.0])  # OpenGL axes (x right, y up, z back) <-> OpenCV axes (x right, y down, z forward)


@dataclass(frozen=True)
class PoseConfig:
    """Every tuned number of :func:`solve_head_poses`."""

    landmarks: tuple[int, ...] = lm.RIGID
    """Rows of ``points`` that are fitted by the rigid head."""
    interpupillary_distance: float = 0.063
    """Metres between the centres of the eyes: the adult mean; it sets the scale of the world."""
    focal_prior: float = 2.5
    """Focal length believed before looking, in image widths (a portrait lens, cropped around the head)."""
    focal_prior_log_sigma: float = 0.35
    """How firmly it is believed: standard deviation of the natural logarithm (0.35: within a factor 1.4)."""
    focal_bounds: tuple[float, float] = (1.0, 6.0)
    """Image widths that the focal length never leaves."""
    landmark_sigma: float = 1.0
    """Expected landmark noise, pixels at an interpupillary distance of 100 px."""
    independent_landmarks: float = 12.0
    """How many independent measurements one frame's landmarks are worth: a tracker's errors are shared by neighbours
    (the whole mesh shifts with the crop it was read from), so K landmarks do not average as K would."""
    independent_fraction: float = 0.02
    """How many independent frames one frame is worth for focal length and shape: expression and view bias the landmarks
    in the same way for many frames. Scales the priors of focal length and shape against the data."""
    huber: float = 1.5
    """Residual, in units of the expected noise, beyond which a landmark counts linearly instead of squared."""
    smooth_rotation: float = 0.004
    """Expected change of angular velocity, rad per frame^2 (0.004: 0.23 degrees)."""
    smooth_translation: float = 0.6
    """Expected change of the velocity of the projected head centre, pixels per frame^2 at 100 px between the eyes."""
    smooth_scale: float = 0.001
    """Expected change of the velocity of log scale (that is of distance), per frame^2."""
    shape_sigma: float = 0.006
    """How far, in metres, the shape may go from the tracker's own mean 3D shape when the video does not show it."""
    face_prior_weight: float = 1e-4
    """Weight of the tracker's own 3D points, relative to the image, in the mean positions of all landmarks. As sin^2 of
    an angle: depth is measured rather than believed once the head turns by more than 0.6 degrees."""
    iterations: int = 40
    """Gauss-Newton steps at most."""
    tolerance: float = 1e-6
    """Relative decrease of the cost at which the solve ends."""
    reweightings: int = 3
    """How often each landmark's own noise is measured again from its residuals."""
    weight_range: tuple[float, float] = (0.5, 3.0)
    """A landmark's noise is kept within these multiples of the median landmark's, so that no few take over."""


@dataclass(frozen=True)
class HeadPoses:
    """Cameras in head coordinates: origin inside the head, x to the subject's left, y up, face along +z, metres."""

    c2w: FloatArray
    """[T, 4, 4] camera-to-world, OpenGL axes. The head is fixed, the camera moves."""
    focal: float
    """Focal length, pixels."""
    cx: float
    """Principal point, pixels."""
    cy: float
    residual: FloatArray
    """[T] median reprojection error of the rigid landmarks, pixels; NaN where the frame was not valid."""
    shape: FloatArray
    """[K, 3] positions of the rigid landmarks, metres, in the order of ``PoseConfig.landmarks``."""
    face: FloatArray
    """[N, 3] mean positions of all landmarks (expression averaged out), metres."""
    weights: FloatArray
    """[K] measured weight of each rigid landmark (1: as the median one)."""
    jitter: dict[str, float] = field(default_factory=dict)
    """Root mean square of second differences, before (each frame on its own) and after smoothing:
    ``rotation_before``, ``rotation_after`` [degrees / frame^2], ``position_before``, ``position_after`` [px / frame^2]
    of the projected head centre, ``scale_before``, ``scale_after`` [1 / frame^2]."""


@dataclass
class _State:
    """Scaled-perspective parameters: ``u = cx + (s Yx + px) / (1 + s k Yz)`` with ``Y = R X``.

    The same camera as focal f = 1/k and translation (px, py, f) / s, but well conditioned for long lenses: distance and
    focal length no longer trade off.
    """

    R: FloatArray  # [T, 3, 3]
    p: FloatArray  # [T, 2] px, head origin relative to the principal point
    log_s: FloatArray  # [T] log of px per metre
    k: float  # 1 / focal, 1 / px
    X: FloatArray  # [K, 3] metres


def project(points_world: FloatArray, c2w: FloatArray, focal: float, cx: float, cy: float) -> FloatArray:
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
    valid: NDArray[np.bool_],
    width: int,
    height: int,
    config: PoseConfig | None = None,
) -> HeadPoses:
    """Poses of the head in all frames, one focal length and the rigid shape, by bundle adjustment.

    Frames that are not valid get poses carried by the smoothness in time. The principal point is the image centre.

    Args:
        points: [T, N, 3] landmarks: x right and y down in pixels, z away from the camera in about the same unit (only
            used to start).
        valid: [T] bool, frames whose landmarks are measured.
        width: image width, pixels.
        height: image height, pixels.
        config: tuned numbers.

    Returns:
        :class:`HeadPoses` of T frames.

    Raises:
        UserError: landmarks of a valid frame that are not finite; fewer than 3 valid frames; all landmarks on a point.
    """
    config = config or PoseConfig()
    points = np.asarray(points, dtype=np.float64)
    valid = np.asarray(valid, dtype=bool)
    _check(points, valid, config)
    cx, cy = width / 2.0, height / 2.0
    rigid = list(config.landmarks)
    observed = points[:, rigid, :2] - (cx, cy)
    eye_px = _eye_distance(points[valid])
    problem = _Problem(
        uv=np.where(valid[:, None, None], observed, 0.0),
        valid=valid,
        width=float(width),
        unit=eye_px / 100.0,
        config=config,
    )
    state = _initial(points, valid, rigid, cx, cy, eye_px, width, config)
    problem.shape_prior = state.X.copy()

    state = problem.solve(state)
    for _ in range(config.reweightings):
        problem.reweight(state)
        state = problem.solve(state)
    before = problem.each_frame_alone(state)

    distance = np.linalg.norm(problem.project(state) - problem.uv, axis=-1)
    residual = np.where(valid, np.median(distance, axis=1), np.nan)
    face = _mean_face(points[valid], state, valid, rigid, cx, cy, config.face_prior_weight)
    to_head, origin, scale = _head_frame(face, config)
    w2c_rotation = state.R @ to_head.T
    focal = 1.0 / state.k
    # X = (to_head^T X_head) / scale + origin, so the camera keeps its picture when depth is multiplied by scale too.
    s = np.exp(state.log_s)
    translation = np.concatenate([state.p / s[:, None], (focal / s)[:, None]], axis=1)
    translation = (translation + state.R @ origin) * scale
    c2w = np.tile(np.eye(4), (len(points), 1, 1))
    c2w[:, :3, :3] = np.transpose(w2c_rotation, (0, 2, 1)) @ _FLIP
    c2w[:, :3, 3] = -np.einsum("tji,tj->ti", w2c_rotation, translation)
    return HeadPoses(
        c2w=c2w,
        focal=focal,
        cx=cx,
        cy=cy,
        residual=residual,
        shape=((state.X - origin) @ to_head.T) * scale,
        face=((face - origin) @ to_head.T) * scale,
        weights=problem.landmark_weight.copy(),
        jitter=_jitter(before, state, valid),
    )


def _check(points: FloatArray, valid: NDArray[np.bool_], config: PoseConfig) -> None:
    if points.ndim != 3 or points.shape[2] != 3 or points.shape[1] <= max(config.landmarks):
        raise UserError(
            f"landmarks: expected [T, >{max(config.landmarks)}, 3], found {list(points.shape)}; run the tracking again"
        )
    if valid.shape != points.shape[:1]:
        raise UserError(f"landmarks: {len(points)} frames but {valid.size} validity flags; run the tracking again")
    if valid.sum() < 3:
        raise UserError(f"head poses: a face is known in {int(valid.sum())} frames only, at least 3 are needed")
    bad = np.flatnonzero(valid & ~np.isfinite(points).all(axis=(1, 2)))
    if bad.size:
        raise UserError(
            f"landmarks: values of frame {bad[0]} are not finite ({bad.size} such frames); run the tracking again"
        )
    if not _eye_distance(points[valid]) > 1.0:
        raise UserError(
            "landmarks: the eyes are less than 1 px apart; the face is too small or the landmarks are wrong"
        )


def _eye_distance(points: FloatArray) -> float:
    """Median distance between the eyes' centres over frames, pixels, with the tracker's depth so that yaw counts little."""
    right = points[:, list(lm.RIGHT_EYE_CORNERS)].mean(axis=1)
    left = points[:, list(lm.LEFT_EYE_CORNERS)].mean(axis=1)
    return float(np.median(np.linalg.norm(left - right, axis=1)))


def _initial(
    points: FloatArray,
    valid: NDArray[np.bool_],
    rigid: list[int],
    cx: float,
    cy: float,
    eye_px: float,
    width: int,
    config: PoseConfig,
) -> _State:
    """Start: the tracker's 3D points aligned to their own mean by similarity transforms (Umeyama 1991)."""
    seen = points[:, rigid] - (cx, cy, 0.0)
    seen = seen[valid]
    centre = seen.mean(axis=1, keepdims=True)
    mean = (seen - centre)[len(seen) // 2]
    rotation = np.tile(np.eye(3), (len(seen), 1, 1))
    scale = np.ones(len(seen))
    for _ in range(3):  # two passes settle it; the bundle adjustment does the rest
        cov = np.einsum("tki,kj->tij", seen - centre, mean)
        u, d, vt = np.linalg.svd(cov)
        sign = np.ones((len(seen), 3))
        sign[:, 2] = np.sign(np.linalg.det(u @ vt))
        rotation = (u * sign[:, None, :]) @ vt
        scale = (d * sign).sum(axis=1) / (mean**2).sum()
        mean = np.median(np.einsum("tij,tki->tkj", rotation, seen - centre) / scale[:, None, None], axis=0)
        mean -= mean.mean(axis=0)
    # mean is in OpenCV axes and px of the median frame; the head's own axes are y up, z towards the viewer.
    px_per_metre = eye_px / config.interpupillary_distance
    X = mean @ _FLIP / px_per_metre
    R = rotation @ _FLIP
    log_s = np.log(scale * px_per_metre)
    p = centre[:, 0, :2]
    index = np.flatnonzero(valid)
    every = np.arange(len(points))
    inside = np.clip(every, index[0], index[-1])
    return _State(
        R=Slerp(index, Rotation.from_matrix(R))(inside).as_matrix(),
        p=np.stack([np.interp(inside, index, p[:, j]) for j in range(2)], axis=1),
        log_s=np.interp(inside, index, log_s),
        k=1.0 / (config.focal_prior * width),
        X=X,
    )


class _Problem:
    """The least-squares problem: unknowns are 6 numbers a frame (banded), and shape and 1/focal (dense).

    The frames' part of the normal equations has 18 bands thanks to the second differences, so eliminating the frames
    (Schur complement) costs a banded factorisation: linear in T.
    """

    def __init__(self, uv: FloatArray, valid: NDArray[np.bool_], width: float, unit: float, config: PoseConfig) -> None:
        self.uv = uv
        self.valid = valid
        self.width = width
        self.config = config
        self.landmark_weight = np.ones(uv.shape[1])
        self.sigma = config.landmark_sigma * unit
        self.shape_prior = np.zeros((uv.shape[1], 3))
        # One residual's weight: 1/sigma^2, shared out so that a frame counts as `independent_landmarks` of them.
        self.frame_weight = min(1.0, config.independent_landmarks / uv.shape[1]) / self.sigma**2
        rotation, translation = config.smooth_rotation, config.smooth_translation * unit
        self.smooth_weight = 1.0 / np.array([rotation] * 3 + [translation] * 2 + [config.smooth_scale]) ** 2
        # Priors of what all frames share are weighed against the *independent* part of the data only.
        self.prior_scale = 1.0 / config.independent_fraction
        self.smooth = len(uv) >= 3

    # -- model -------------------------------------------------------------------------------------------------------
    def project(self, state: _State) -> FloatArray:
        """[T, K, 2] px relative to the principal point."""
        Y = np.einsum("tij,kj->tki", state.R, state.X)
        s = np.exp(state.log_s)[:, None]
        den = 1.0 + s * state.k * Y[..., 2]
        return (s[..., None] * Y[..., :2] + state.p[:, None]) / den[..., None]

    def _weights(self, residual: FloatArray) -> FloatArray:
        """[T, K] weights of iteratively reweighted least squares for Huber's loss."""
        norm = np.linalg.norm(residual, axis=-1) * np.sqrt(self.landmark_weight) / self.sigma
        robust = self.config.huber / np.maximum(norm, self.config.huber)
        return robust * self.landmark_weight * self.frame_weight * self.valid[:, None]

    def _accelerations(self, state: _State) -> FloatArray:
        """[T-2, 6] second differences of rotation vector (rad), projected centre (px) and log scale."""
        step = Rotation.from_matrix(state.R[1:] @ np.transpose(state.R[:-1], (0, 2, 1))).as_rotvec()
        rest = np.concatenate([state.p, state.log_s[:, None]], axis=1)
        return np.concatenate([np.diff(step, axis=0), np.diff(rest, n=2, axis=0)], axis=1)

    def cost(self, state: _State) -> float:
        residual = self.project(state) - self.uv
        norm = np.linalg.norm(residual, axis=-1) * np.sqrt(self.landmark_weight) / self.sigma
        h = self.config.huber
        rho = np.where(norm < h, norm**2, 2 * h * norm - h * h) * self.sigma**2
        total = float((rho * self.valid[:, None]).sum() * self.frame_weight)
        if self.smooth:
            total += float((self._accelerations(state) ** 2 * self.smooth_weight).sum())
        total += float(((state.X - self.shape_prior) ** 2).sum()) * self._shape_weight()
        return total + self._focal_residual(state.k) ** 2 * self.prior_scale

    def _shape_weight(self) -> float:
        return self.prior_scale / self.config.shape_sigma**2

    def _focal_residual(self, k: float) -> float:
        return (-np.log(k) - np.log(self.config.focal_prior * self.width)) / self.config.focal_prior_log_sigma

    # -- Gauss-Newton ------------------------------------------------------------------------------------------------
    def _jacobians(self, state: _State) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Residuals [T, K, 2] and derivatives by pose [T, K, 2, 6], by shape [T, K, 2, 3] and by log k [T, K, 2]."""
        Y = np.einsum("tij,kj->tki", state.R, state.X)
        s = np.exp(state.log_s)[:, None]
        inv = 1.0 / (1.0 + s * state.k * Y[..., 2])
        uv = (s[..., None] * Y[..., :2] + state.p[:, None]) * inv[..., None]
        T, K = Y.shape[:2]
        dY = np.zeros((T, K, 2, 3))  # by the rotated point
        dY[..., 0, 0] = dY[..., 1, 1] = s * inv
        dY[..., 2] = -(s * state.k * inv)[..., None] * uv
        pose = np.zeros((T, K, 2, 6))
        # Left perturbation R <- exp(w) R: dY = w x Y, so d(row . Y)/dw = Y x row.
        pose[..., :3] = np.cross(Y[:, :, None, :], dY)
        pose[..., 0, 3] = pose[..., 1, 4] = inv
        shift = s * state.k * Y[..., 2] * inv
        pose[..., 5] = s[..., None] * Y[..., :2] * inv[..., None] - uv * shift[..., None]
        shape = np.einsum("tkai,tij->tkaj", dY, state.R)
        return uv - self.uv, pose, shape, -uv * shift[..., None]

    def _step(self, state: _State, damping: float, shared: bool = True) -> _State:
        residual, pose, shape, focal = self._jacobians(state)
        T, K = residual.shape[:2]
        w = self._weights(residual)
        wpose = pose * w[..., None, None]
        A = np.einsum("tkai,tkaj->tij", wpose, pose)
        g = np.einsum("tkai,tka->ti", wpose, residual)
        bands, g = self._with_smoothness(state, A, g, damping)
        if not shared:
            delta = solveh_banded(bands, -g.reshape(-1), lower=False).reshape(T, 6)
            return _moved(state, delta, np.zeros((K, 3)), 0.0, self._bounds())
        # Dense part: shape (3K) and log k (1).
        B = np.zeros((T, 6, 3 * K + 1))
        B[..., :-1] = np.einsum("tkai,tkaj->tikj", wpose, shape).reshape(T, 6, 3 * K)
        B[..., -1] = np.einsum("tkai,tka->ti", wpose, focal)
        C = np.zeros((3 * K + 1, 3 * K + 1))
        h = np.zeros(3 * K + 1)
        wshape = shape * w[..., None, None]
        block = np.einsum("tkai,tkaj->kij", wshape, shape)
        block[:, range(3), range(3)] += self._shape_weight()
        for k in range(K):
            C[3 * k : 3 * k + 3, 3 * k : 3 * k + 3] = block[k]
        C[:-1, -1] = C[-1, :-1] = np.einsum("tkai,tka->ki", wshape, focal).reshape(-1)
        C[-1, -1] = float((w[..., None] * focal**2).sum())
        h[:-1] = (
            np.einsum("tkai,tka->ki", wshape, residual) + self._shape_weight() * (state.X - self.shape_prior)
        ).reshape(-1)
        h[-1] = float((w[..., None] * focal * residual).sum())
        sigma = self.config.focal_prior_log_sigma
        C[-1, -1] += self.prior_scale / sigma**2
        h[-1] -= self.prior_scale * self._focal_residual(state.k) / sigma
        C[range(3 * K + 1), range(3 * K + 1)] *= 1.0 + damping
        flat = B.reshape(6 * T, -1)
        solved = solveh_banded(bands, np.column_stack([g.reshape(-1), flat]), lower=False)
        inner = solved[:, 1:].T @ flat
        schur = C - 0.5 * (inner + inner.T)
        dense = cho_solve(cho_factor(schur + 1e-12 * np.trace(schur) * np.eye(len(schur))), flat.T @ solved[:, 0] - h)
        delta = -(solved[:, 0] + solved[:, 1:] @ dense).reshape(T, 6)
        return _moved(state, delta, dense[:-1].reshape(K, 3), float(dense[-1]), self._bounds())

    def _with_smoothness(
        self, state: _State, A: FloatArray, g: FloatArray, damping: float
    ) -> tuple[FloatArray, FloatArray]:
        """The frames' normal matrix in scipy's upper banded form [18, 6T], and the gradient [T, 6]."""
        T = len(A)
        A = A.copy()
        g = g.copy()
        diagonal = A[:, range(6), range(6)]
        # A frame without landmarks, or a direction that they do not show, is held by its neighbours alone; the floor
        # keeps the matrix definite.
        A[:, range(6), range(6)] += damping * diagonal + 1e-9 * self.smooth_weight
        near = np.zeros((T, 6))
        far = np.zeros((T, 6))
        if self.smooth:
            a = self._accelerations(state) * self.smooth_weight
            D = self.smooth_weight
            # a_t = x_{t-1} - 2 x_t + x_{t+1}; exact for centre and scale, first order in the small turn per frame.
            for offset, factor in ((0, 1.0), (1, -2.0), (2, 1.0)):
                g[offset : T - 2 + offset] += factor * a
                A[offset : T - 2 + offset, range(6), range(6)] += factor * factor * D
            near[1 : T - 1] += -2.0 * D
            near[2:] += -2.0 * D
            far[2:] += D
        bands = np.zeros((13, 6 * T))
        for i in range(6):
            for j in range(i, 6):
                bands[12 - (j - i), j::6] = A[:, i, j]
            bands[12 - 6, i::6] = near[:, i]
            bands[0, i::6] = far[:, i]
        return bands, g

    def _bounds(self) -> tuple[float, float]:
        low, high = self.config.focal_bounds
        return 1.0 / (high * self.width), 1.0 / (low * self.width)

    def solve(self, state: _State, shared: bool = True) -> _State:
        """Levenberg-Marquardt until the cost settles."""
        damping = 1e-4
        cost = self.cost(state)
        for _ in range(self.config.iterations):
            trial = self._step(state, damping, shared)
            new = self.cost(trial)
            if not new < cost:  # also when it is NaN
                damping *= 10.0
                if damping > 1e6:
                    break
                continue
            done = cost - new < self.config.tolerance * cost
            state, cost, damping = trial, new, max(damping * 0.1, 1e-9)
            if done:
                break
        return state

    def reweight(self, state: _State) -> None:
        """Each landmark's noise measured from its residuals: robust, within ``weight_range`` of the median landmark."""
        norm = np.linalg.norm(self.project(state) - self.uv, axis=-1)[self.valid]
        spread = np.sqrt(np.mean(np.minimum(norm, 3.0 * np.median(norm, axis=0)) ** 2, axis=0))
        low, high = self.config.weight_range
        relative = np.clip(spread / max(float(np.median(spread)), 1e-9), low, high)
        self.landmark_weight = 1.0 / relative**2

    def each_frame_alone(self, state: _State) -> _State:
        """The same shape and focal length with every frame fitted on its own: what smoothing is compared with."""
        alone = _Problem(self.uv, self.valid, self.width, self.sigma / self.config.landmark_sigma, self.config)
        alone.landmark_weight = self.landmark_weight
        alone.shape_prior = self.shape_prior
        alone.smooth = False
        return alone.solve(state, shared=False)


def _moved(state: _State, pose: FloatArray, shape: FloatArray, log_k: float, bounds: tuple[float, float]) -> _State:
    return _State(
        R=Rotation.from_rotvec(pose[:, :3]).as_matrix() @ state.R,
        p=state.p + pose[:, 3:5],
        log_s=state.log_s + np.clip(pose[:, 5], -0.5, 0.5),
        k=float(np.clip(state.k * np.exp(np.clip(log_k, -0.7, 0.7)), *bounds)),
        X=state.X + shape,
    )


def _mean_face(
    points: FloatArray,
    state: _State,
    valid: NDArray[np.bool_],
    rigid: list[int],
    cx: float,
    cy: float,
    prior_weight: float,
) -> FloatArray:
    """[N, 3] every landmark triangulated from all valid frames as if it were rigid (linear least squares)."""
    R, p, s = state.R[valid], state.p[valid], np.exp(state.log_s[valid])
    uv = points[..., :2] - (cx, cy)
    # (s Yx + px) = u (1 + s k Yz)  ->  s (R_x - u k R_z) X = u - px, and the same for y.
    rows = s[:, None, None, None] * (R[:, None, :2, :] - (uv * state.k)[..., None] * R[:, None, 2:3, :])
    right = uv - p[:, None]
    normal = np.einsum("tnai,tnaj->nij", rows, rows)
    vector = np.einsum("tnai,tna->ni", rows, right)
    # A head that hardly turns shows no depth: fall back, per landmark, on the tracker's own 3D points, moved to where
    # its rigid landmarks agree with the adjusted ones.
    own = np.median(np.einsum("tji,tnj->tni", R, points - (cx, cy, 0.0)) / s[:, None, None], axis=0)
    prior = own + (state.X - own[rigid]).mean(axis=0)
    weight = prior_weight * len(points) * float(np.median(s)) ** 2
    return np.linalg.solve(normal + weight * np.eye(3), (vector + weight * prior)[..., None])[..., 0]


def _head_frame(face: FloatArray, config: PoseConfig) -> tuple[FloatArray, FloatArray, float]:
    """Rotation [3, 3] into head axes, origin [3] and scale that the mean face defines.

    x runs from eye to eye, y from chin to forehead, and the origin is the middle of the face's box (chin to hairline,
    ear to ear, nose tip to ears): that is what keeps the face inside [-0.1, 0.1]^3.
    """
    right = face[list(lm.RIGHT_EYE_CORNERS)].mean(axis=0)
    left = face[list(lm.LEFT_EYE_CORNERS)].mean(axis=0)
    x = (left - right) / np.linalg.norm(left - right)
    up = face[lm.FOREHEAD_TOP] - face[lm.CHIN]
    z = np.cross(x, up)
    z /= np.linalg.norm(z)
    rotation = np.stack([x, np.cross(z, x), z])
    local = face @ rotation.T
    middle = 0.5 * (local.min(axis=0) + local.max(axis=0))
    middle[0] = 0.5 * ((right + left) @ x)
    return rotation, middle @ rotation, float(config.interpupillary_distance / np.linalg.norm(left - right))


def _jitter(before: _State, after: _State, valid: NDArray[np.bool_]) -> dict[str, float]:
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
