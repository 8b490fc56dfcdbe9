"""Numba kernels of the CPU rasterizer: projection, spherical harmonics, binning, blending, each with its gradient.

They see numpy arrays only and know neither torch, autograd nor threads. A kernel whose first arguments are `task` and
`tasks` does that share of its work; the shares write to different places, in any order or at once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray

from degstalk_ns.rasterization.rules import MAX_DETERMINANT, MAX_RADIUS, MIN_DETERMINANT, RULES

Array = NDArray[Any]

TILE = RULES.tile_size
PIXELS = TILE * TILE
FOV_MARGIN = RULES.fov_margin
MIN_EIGEN_SPREAD = RULES.min_eigen_spread
RADIUS_SIGMAS = RULES.radius_sigmas
MIN_ALPHA = RULES.min_alpha
MAX_ALPHA = RULES.max_alpha
MIN_TRANSMITTANCE = RULES.min_transmittance
RADIX_BITS = 11
"""Of a depth, sorted at a time: three passes over float32, with counters that stay in the first-level cache."""
CHECK_EVERY = 16
"""Gaussians between two looks at whether a tile is full."""
FUSED_CHANNELS = 8
"""Up to this many channels the loops over pixels keep every channel's sum in registers."""

# Scratch of one worker: planes of PIXELS values, then one plane per channel. Constant offsets into one array let the
# compiler prove that the planes do not overlap; unsigned indices spare it Python's negative ones. Without either, the
# loops over pixels are not vectorised.
_u = np.uint64
PLANE = _u(PIXELS)
PX = _u(0 * PIXELS)
PY = _u(1 * PIXELS)
LIGHT = _u(2 * PIXELS)
LAST = _u(3 * PIXELS)
LIVE = _u(4 * PIXELS)  # forward: 1 until the pixel is full
BEHIND = _u(4 * PIXELS)  # backward: loss carried by everything behind the current Gaussian
WEIGHT = _u(5 * PIXELS)
CHANNEL = _u(6 * PIXELS)
SCRATCH_PLANES = 6
ZERO = _u(0)
FULL = _u(PIXELS)
WIDTH = _u(TILE)

# Columns of one Gaussian's row in `packed`, before its colours.
P_X, P_Y, P_A, P_B, P_C, P_OPACITY, P_FIRST_ROW, P_LAST_ROW = range(8)
PACKED = 8
# Columns of one intersection's row in `partial`, before its colours: sums over pixels of g = d loss / d sigma, and of
# g times dx, dy, dx^2, dx dy, dy^2.
SUMS = 6

_FAST = {"contract", "reassoc", "nsz", "arcp"}


def _exp(x: float) -> float:
    """exp(x) for x <= 0; relative error 6e-7 in float32, where it is a polynomial that compilers vectorise.

    Above 0, where only rounding leads, the result is finite and means nothing.
    """
    return math.exp(x)


@overload(_exp, inline="always")
def _exp_overload(x):  # type: ignore[no-untyped-def]
    if x != types.float32:
        return lambda x: math.exp(min(x, 0.0))

    def polynomial(x):  # type: ignore[no-untyped-def]
        power = min(max(x * np.float32(1.4426950408889634), np.float32(-126.0)), np.float32(0.0))
        whole = np.floor(power)
        part = power - whole
        # 2^part on [0, 1), minimax of degree 5
        value = np.float32(1.8775767e-3)
        value = value * part + np.float32(8.9893397e-3)
        value = value * part + np.float32(5.5826318e-2)
        value = value * part + np.float32(2.4015361e-1)
        value = value * part + np.float32(6.9315308e-1)
        value = value * part + np.float32(9.9999994e-1)
        exponent = (np.int32(whole) + np.int32(127)) << np.int32(23)
        return value * np.int32(exponent).view(np.float32)

    return polynomial


# ---------------------------------------------------------------------------------------------------------- projection


@njit(nogil=True, cache=True, error_model="numpy")
def _rotation(w, x, y, z):  # type: ignore[no-untyped-def]
    """Rows of the rotation matrix of a unit quaternion, as nine numbers."""
    return (
        1.0 - 2.0 * (y * y + z * z),
        2.0 * (x * y - w * z),
        2.0 * (x * z + w * y),
        2.0 * (x * y + w * z),
        1.0 - 2.0 * (x * x + z * z),
        2.0 * (y * z - w * x),
        2.0 * (x * z - w * y),
        2.0 * (y * z + w * x),
        1.0 - 2.0 * (x * x + y * y),
    )


@njit(nogil=True, cache=True, error_model="numpy")
def project_forward(  # type: ignore[no-untyped-def]
    task,
    tasks,
    means,
    quats,
    scales,
    viewmats,
    Ks,
    width,
    height,
    near,
    far,
    eps2d,
    radius_clip,
    radii,
    means2d,
    depths,
    conics,
):
    """Fill radii [C, N], means2d [C, N, 2], depths [C, N] and conics [C, N, 3]; culled Gaussians get zeros.

    All arithmetic is in double precision: it costs the same here, where nothing is vectorised.
    """
    cameras, count = depths.shape
    for n in range(task * count // tasks, (task + 1) * count // tasks):
        for c in range(cameras):
            radii[c, n] = 0
            means2d[c, n, 0] = 0.0
            means2d[c, n, 1] = 0.0
            depths[c, n] = 0.0
            conics[c, n, 0] = 0.0
            conics[c, n, 1] = 0.0
            conics[c, n, 2] = 0.0

        qw, qx, qy, qz = (
            np.float64(quats[n, 0]),
            np.float64(quats[n, 1]),
            np.float64(quats[n, 2]),
            np.float64(quats[n, 3]),
        )
        norm = math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
        if not norm > 0.0:
            continue
        r00, r01, r02, r10, r11, r12, r20, r21, r22 = _rotation(qw / norm, qx / norm, qy / norm, qz / norm)
        s0, s1, s2 = np.float64(scales[n, 0]), np.float64(scales[n, 1]), np.float64(scales[n, 2])
        m0, m1, m2 = np.float64(means[n, 0]), np.float64(means[n, 1]), np.float64(means[n, 2])

        for c in range(cameras):
            view = viewmats[c]
            z = view[2, 0] * m0 + view[2, 1] * m1 + view[2, 2] * m2 + view[2, 3]
            if not (z >= near and z <= far):
                continue
            x = view[0, 0] * m0 + view[0, 1] * m1 + view[0, 2] * m2 + view[0, 3]
            y = view[1, 0] * m0 + view[1, 1] * m1 + view[1, 2] * m2 + view[1, 3]
            fx, fy, cx, cy = Ks[c, 0, 0], Ks[c, 1, 1], Ks[c, 0, 2], Ks[c, 1, 2]
            u = fx * x / z + cx
            v = fy * y / z + cy
            margin_x = FOV_MARGIN * 0.5 * width / fx
            margin_y = FOV_MARGIN * 0.5 * height / fy
            slope_x = min(max(x / z, -(cx / fx + margin_x)), (width - cx) / fx + margin_x)
            slope_y = min(max(y / z, -(cy / fy + margin_y)), (height - cy) / fy + margin_y)
            # Rows of the Jacobian times the camera's rotation, then times the Gaussian's axes: [2, 3] each.
            j0, j1 = fx / z, fy / z
            a0 = j0 * (view[0, 0] - slope_x * view[2, 0])
            a1 = j0 * (view[0, 1] - slope_x * view[2, 1])
            a2 = j0 * (view[0, 2] - slope_x * view[2, 2])
            b0 = j1 * (view[1, 0] - slope_y * view[2, 0])
            b1 = j1 * (view[1, 1] - slope_y * view[2, 1])
            b2 = j1 * (view[1, 2] - slope_y * view[2, 2])
            e0 = (a0 * r00 + a1 * r10 + a2 * r20) * s0
            e1 = (a0 * r01 + a1 * r11 + a2 * r21) * s1
            e2 = (a0 * r02 + a1 * r12 + a2 * r22) * s2
            f0 = (b0 * r00 + b1 * r10 + b2 * r20) * s0
            f1 = (b0 * r01 + b1 * r11 + b2 * r21) * s1
            f2 = (b0 * r02 + b1 * r12 + b2 * r22) * s2
            xx = e0 * e0 + e1 * e1 + e2 * e2 + eps2d
            xy = e0 * f0 + e1 * f1 + e2 * f2
            yy = f0 * f0 + f1 * f1 + f2 * f2 + eps2d
            determinant = xx * yy - xy * xy
            if not (determinant > MIN_DETERMINANT and determinant < MAX_DETERMINANT):
                continue
            middle = 0.5 * (xx + yy)
            largest = middle + math.sqrt(max(middle * middle - determinant, MIN_EIGEN_SPREAD))
            radius = math.ceil(RADIUS_SIGMAS * math.sqrt(largest))
            if not (radius > radius_clip and u + radius > 0.0 and u - radius < width):
                continue
            if not (v + radius > 0.0 and v - radius < height):
                continue
            radii[c, n] = min(radius, MAX_RADIUS)
            means2d[c, n, 0] = u
            means2d[c, n, 1] = v
            depths[c, n] = z
            conics[c, n, 0] = yy / determinant
            conics[c, n, 1] = -xy / determinant
            conics[c, n, 2] = xx / determinant


@njit(nogil=True, cache=True, error_model="numpy")
def project_backward(  # type: ignore[no-untyped-def]
    task, tasks, means, quats, scales, viewmats, Ks, width, height, eps2d, radii, v_means2d, v_depths, v_conics,
    v_means, v_quats, v_scales, v_views,
):  # fmt: skip
    """Fill v_means [N, 3], v_quats [N, 4], v_scales [N, 3]; add to v_views [tasks, C, 3, 4], to be summed by task."""
    cameras, count = radii.shape
    for n in range(task * count // tasks, (task + 1) * count // tasks):
        for i in range(3):
            v_means[n, i] = 0.0
            v_scales[n, i] = 0.0
        for i in range(4):
            v_quats[n, i] = 0.0
        seen = False
        for c in range(cameras):
            seen = seen or radii[c, n] > 0
        if not seen:
            continue

        qw, qx, qy, qz = (
            np.float64(quats[n, 0]),
            np.float64(quats[n, 1]),
            np.float64(quats[n, 2]),
            np.float64(quats[n, 3]),
        )
        norm = math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
        qw, qx, qy, qz = qw / norm, qx / norm, qy / norm, qz / norm
        r00, r01, r02, r10, r11, r12, r20, r21, r22 = _rotation(qw, qx, qy, qz)
        s0, s1, s2 = np.float64(scales[n, 0]), np.float64(scales[n, 1]), np.float64(scales[n, 2])
        m0, m1, m2 = np.float64(means[n, 0]), np.float64(means[n, 1]), np.float64(means[n, 2])
        g00 = g01 = g02 = g10 = g11 = g12 = g20 = g21 = g22 = 0.0  # d loss / d axes, axes = rotation * scales
        h0 = h1 = h2 = 0.0  # d loss / d mean

        for c in range(cameras):
            if radii[c, n] <= 0:
                continue
            view = viewmats[c]
            w00, w01, w02 = view[0, 0], view[0, 1], view[0, 2]
            w10, w11, w12 = view[1, 0], view[1, 1], view[1, 2]
            w20, w21, w22 = view[2, 0], view[2, 1], view[2, 2]
            x = w00 * m0 + w01 * m1 + w02 * m2 + view[0, 3]
            y = w10 * m0 + w11 * m1 + w12 * m2 + view[1, 3]
            z = w20 * m0 + w21 * m1 + w22 * m2 + view[2, 3]
            fx, fy, cx, cy = Ks[c, 0, 0], Ks[c, 1, 1], Ks[c, 0, 2], Ks[c, 1, 2]
            margin_x = FOV_MARGIN * 0.5 * width / fx
            margin_y = FOV_MARGIN * 0.5 * height / fy
            slope_x, slope_y = x / z, y / z
            low_x, high_x = -(cx / fx + margin_x), (width - cx) / fx + margin_x
            low_y, high_y = -(cy / fy + margin_y), (height - cy) / fy + margin_y
            free_x = slope_x >= low_x and slope_x <= high_x
            free_y = slope_y >= low_y and slope_y <= high_y
            slope_x = min(max(slope_x, low_x), high_x)
            slope_y = min(max(slope_y, low_y), high_y)
            j0, j1 = fx / z, fy / z
            j02, j12 = -j0 * slope_x, -j1 * slope_y
            a0, a1, a2 = j0 * w00 + j02 * w20, j0 * w01 + j02 * w21, j0 * w02 + j02 * w22
            b0, b1, b2 = j1 * w10 + j12 * w20, j1 * w11 + j12 * w21, j1 * w12 + j12 * w22
            e0 = (a0 * r00 + a1 * r10 + a2 * r20) * s0
            e1 = (a0 * r01 + a1 * r11 + a2 * r21) * s1
            e2 = (a0 * r02 + a1 * r12 + a2 * r22) * s2
            f0 = (b0 * r00 + b1 * r10 + b2 * r20) * s0
            f1 = (b0 * r01 + b1 * r11 + b2 * r21) * s1
            f2 = (b0 * r02 + b1 * r12 + b2 * r22) * s2
            xx = e0 * e0 + e1 * e1 + e2 * e2 + eps2d
            xy = e0 * f0 + e1 * f1 + e2 * f2
            yy = f0 * f0 + f1 * f1 + f2 * f2 + eps2d
            determinant = xx * yy - xy * xy
            ka, kb, kc = yy / determinant, -xy / determinant, xx / determinant

            # conic = inverse(covariance): d covariance = -conic (d conic) conic, the off-diagonal counted twice
            va, vb, vc = v_conics[c, n, 0], 0.5 * v_conics[c, n, 1], v_conics[c, n, 2]
            p00, p01 = ka * va + kb * vb, ka * vb + kb * vc
            p10, p11 = kb * va + kc * vb, kb * vb + kc * vc
            c00 = -(p00 * ka + p01 * kb)
            c01 = -(p00 * kb + p01 * kc)
            c11 = -(p10 * kb + p11 * kc)
            # covariance = footprint footprint^T
            de0, de1, de2 = 2.0 * (c00 * e0 + c01 * f0), 2.0 * (c00 * e1 + c01 * f1), 2.0 * (c00 * e2 + c01 * f2)
            df0, df1, df2 = 2.0 * (c01 * e0 + c11 * f0), 2.0 * (c01 * e1 + c11 * f1), 2.0 * (c01 * e2 + c11 * f2)
            # footprint = (Jacobian view) axes
            g00 += a0 * de0 + b0 * df0
            g01 += a0 * de1 + b0 * df1
            g02 += a0 * de2 + b0 * df2
            g10 += a1 * de0 + b1 * df0
            g11 += a1 * de1 + b1 * df1
            g12 += a1 * de2 + b1 * df2
            g20 += a2 * de0 + b2 * df0
            g21 += a2 * de1 + b2 * df1
            g22 += a2 * de2 + b2 * df2
            de0, de1, de2 = de0 * s0, de1 * s1, de2 * s2
            df0, df1, df2 = df0 * s0, df1 * s1, df2 * s2
            da0 = de0 * r00 + de1 * r01 + de2 * r02
            da1 = de0 * r10 + de1 * r11 + de2 * r12
            da2 = de0 * r20 + de1 * r21 + de2 * r22
            db0 = df0 * r00 + df1 * r01 + df2 * r02
            db1 = df0 * r10 + df1 * r11 + df2 * r12
            db2 = df0 * r20 + df1 * r21 + df2 * r22
            # the Jacobian's entries
            d00 = da0 * w00 + da1 * w01 + da2 * w02
            d02 = da0 * w20 + da1 * w21 + da2 * w22
            d11 = db0 * w10 + db1 * w11 + db2 * w12
            d12 = db0 * w20 + db1 * w21 + db2 * w22
            du, dv = np.float64(v_means2d[c, n, 0]), np.float64(v_means2d[c, n, 1])
            dx = j0 * du
            dy = j1 * dv
            dz = v_depths[c, n] - (j0 * x * du + j1 * y * dv) / z
            dz -= (j0 * d00 + j1 * d11 + j02 * d02 + j12 * d12) / z
            if free_x:
                dx -= j0 * d02 / z
                dz += j0 * slope_x * d02 / z
            if free_y:
                dy -= j1 * d12 / z
                dz += j1 * slope_y * d12 / z
            # camera coordinates
            h0 += w00 * dx + w10 * dy + w20 * dz
            h1 += w01 * dx + w11 * dy + w21 * dz
            h2 += w02 * dx + w12 * dy + w22 * dz
            out = v_views[task, c]
            out[0, 0] += dx * m0 + j0 * da0
            out[0, 1] += dx * m1 + j0 * da1
            out[0, 2] += dx * m2 + j0 * da2
            out[0, 3] += dx
            out[1, 0] += dy * m0 + j1 * db0
            out[1, 1] += dy * m1 + j1 * db1
            out[1, 2] += dy * m2 + j1 * db2
            out[1, 3] += dy
            out[2, 0] += dz * m0 + j02 * da0 + j12 * db0
            out[2, 1] += dz * m1 + j02 * da1 + j12 * db1
            out[2, 2] += dz * m2 + j02 * da2 + j12 * db2
            out[2, 3] += dz

        v_means[n, 0] = h0
        v_means[n, 1] = h1
        v_means[n, 2] = h2
        v_scales[n, 0] = r00 * g00 + r10 * g10 + r20 * g20
        v_scales[n, 1] = r01 * g01 + r11 * g11 + r21 * g21
        v_scales[n, 2] = r02 * g02 + r12 * g12 + r22 * g22
        t00, t01, t02 = g00 * s0, g01 * s1, g02 * s2  # d loss / d rotation
        t10, t11, t12 = g10 * s0, g11 * s1, g12 * s2
        t20, t21, t22 = g20 * s0, g21 * s1, g22 * s2
        dw = 2.0 * (qx * (t21 - t12) + qy * (t02 - t20) + qz * (t10 - t01))
        dx = 2.0 * (qw * (t21 - t12) + qy * (t01 + t10) + qz * (t02 + t20) - 2.0 * qx * (t11 + t22))
        dy = 2.0 * (qw * (t02 - t20) + qx * (t01 + t10) + qz * (t12 + t21) - 2.0 * qy * (t00 + t22))
        dz = 2.0 * (qw * (t10 - t01) + qx * (t02 + t20) + qy * (t12 + t21) - 2.0 * qz * (t00 + t11))
        along = dw * qw + dx * qx + dy * qy + dz * qz
        v_quats[n, 0] = (dw - along * qw) / norm
        v_quats[n, 1] = (dx - along * qx) / norm
        v_quats[n, 2] = (dy - along * qy) / norm
        v_quats[n, 3] = (dz - along * qz) / norm


# -------------------------------------------------------------------------------------------------- spherical harmonics


@njit(nogil=True, cache=True, error_model="numpy")
def _sh_basis(degree, x, y, z, basis):  # type: ignore[no-untyped-def]
    basis[0] = 0.28209479177387814
    if degree >= 1:
        basis[1] = -0.4886025119029199 * y
        basis[2] = 0.4886025119029199 * z
        basis[3] = -0.4886025119029199 * x
    if degree >= 2:
        basis[4] = 1.0925484305920792 * x * y
        basis[5] = -1.0925484305920792 * y * z
        basis[6] = 0.9461746957575601 * z * z - 0.3153915652525201
        basis[7] = -1.0925484305920792 * x * z
        basis[8] = 0.5462742152960396 * (x * x - y * y)
    if degree >= 3:
        ring = -2.285228997322329 * z * z + 0.4570457994644658
        basis[9] = -0.5900435899266435 * y * (3.0 * x * x - y * y)
        basis[10] = 2.890611442640554 * x * y * z
        basis[11] = ring * y
        basis[12] = z * (1.865881662950577 * z * z - 1.119528997770346)
        basis[13] = ring * x
        basis[14] = 1.445305721320277 * z * (x * x - y * y)
        basis[15] = -0.5900435899266435 * x * (x * x - 3.0 * y * y)


@njit(nogil=True, cache=True, error_model="numpy")
def _sh_slope(degree, x, y, z, s):  # type: ignore[no-untyped-def]
    """Gradient with respect to (x, y, z) of the sum of basis functions weighted by s."""
    dx = dy = dz = 0.0
    if degree >= 1:
        dx -= 0.4886025119029199 * s[3]
        dy -= 0.4886025119029199 * s[1]
        dz += 0.4886025119029199 * s[2]
    if degree >= 2:
        k = 1.0925484305920792
        dx += k * (s[4] * y - s[7] * z + s[8] * x)
        dy += k * (s[4] * x - s[5] * z - s[8] * y)
        dz += -k * (s[5] * y + s[7] * x) + 2.0 * 0.9461746957575601 * s[6] * z
    if degree >= 3:
        k = -0.5900435899266435
        ring = -2.285228997322329 * z * z + 0.4570457994644658
        dx += s[9] * k * 6.0 * x * y + s[10] * 2.890611442640554 * y * z + s[13] * ring
        dx += s[14] * 2.890611442640554 * z * x + s[15] * k * 3.0 * (x * x - y * y)
        dy += s[9] * k * 3.0 * (x * x - y * y) + s[10] * 2.890611442640554 * x * z + s[11] * ring
        dy += -s[14] * 2.890611442640554 * z * y - s[15] * k * 6.0 * x * y
        dz += s[10] * 2.890611442640554 * x * y - 2.0 * 2.285228997322329 * z * (s[11] * y + s[13] * x)
        dz += s[12] * (3.0 * 1.865881662950577 * z * z - 1.119528997770346) + s[14] * 1.445305721320277 * (
            x * x - y * y
        )
    return dx, dy, dz


@njit(nogil=True, cache=True, error_model="numpy")
def _direction(means, centres, c, n):  # type: ignore[no-untyped-def]
    """Unit vector from camera c to Gaussian n, and the distance; (0, 0, 0) and a tiny distance where they coincide."""
    x = np.float64(means[n, 0]) - centres[c, 0]
    y = np.float64(means[n, 1]) - centres[c, 1]
    z = np.float64(means[n, 2]) - centres[c, 2]
    distance = max(math.sqrt(x * x + y * y + z * z), 1e-12)
    return x / distance, y / distance, z / distance, distance


@njit(nogil=True, cache=True, error_model="numpy")
def sh_forward(task, tasks, degree, means, coeffs, centres, colors):  # type: ignore[no-untyped-def]
    """Fill colors [C, N, 3] from coeffs [N, K, 3], means [N, 3] and camera centres [C, 3]."""
    cameras, count = colors.shape[0], colors.shape[1]
    terms = (degree + 1) * (degree + 1)
    basis = np.empty(16)
    for n in range(task * count // tasks, (task + 1) * count // tasks):
        for c in range(cameras):
            x, y, z, distance = _direction(means, centres, c, n)
            if not math.isfinite(distance):
                colors[c, n, 0] = colors[c, n, 1] = colors[c, n, 2] = 0.0
                continue
            _sh_basis(degree, x, y, z, basis)
            red = green = blue = 0.5
            for k in range(terms):
                red += basis[k] * coeffs[n, k, 0]
                green += basis[k] * coeffs[n, k, 1]
                blue += basis[k] * coeffs[n, k, 2]
            # written so that NaN stays NaN
            colors[c, n, 0] = 0.0 if red < 0.0 else red
            colors[c, n, 1] = 0.0 if green < 0.0 else green
            colors[c, n, 2] = 0.0 if blue < 0.0 else blue


@njit(nogil=True, cache=True, error_model="numpy")
def sh_backward(task, tasks, degree, means, coeffs, centres, colors, v_colors, v_means, v_coeffs, v_centres):  # type: ignore[no-untyped-def]
    """Fill v_means [N, 3], v_coeffs [N, K, 3]; v_centres [tasks, C, 3] is zeros on entry, to be summed by the caller.

    A colour of exactly 0 was clamped, and passes nothing.
    """
    cameras, count = colors.shape[0], colors.shape[1]
    terms = (degree + 1) * (degree + 1)
    basis = np.empty(16)
    slopes = np.empty(16)
    for n in range(task * count // tasks, (task + 1) * count // tasks):
        for k in range(coeffs.shape[1]):
            v_coeffs[n, k, 0] = v_coeffs[n, k, 1] = v_coeffs[n, k, 2] = 0.0
        v_means[n, 0] = v_means[n, 1] = v_means[n, 2] = 0.0
        for c in range(cameras):
            red = np.float64(v_colors[c, n, 0]) if colors[c, n, 0] > 0.0 else 0.0
            green = np.float64(v_colors[c, n, 1]) if colors[c, n, 1] > 0.0 else 0.0
            blue = np.float64(v_colors[c, n, 2]) if colors[c, n, 2] > 0.0 else 0.0
            if red == 0.0 and green == 0.0 and blue == 0.0:
                continue
            x, y, z, distance = _direction(means, centres, c, n)
            _sh_basis(degree, x, y, z, basis)
            for k in range(terms):
                v_coeffs[n, k, 0] += basis[k] * red
                v_coeffs[n, k, 1] += basis[k] * green
                v_coeffs[n, k, 2] += basis[k] * blue
                slopes[k] = coeffs[n, k, 0] * red + coeffs[n, k, 1] * green + coeffs[n, k, 2] * blue
            dx, dy, dz = _sh_slope(degree, x, y, z, slopes)
            along = dx * x + dy * y + dz * z
            dx = (dx - along * x) / distance
            dy = (dy - along * y) / distance
            dz = (dz - along * z) / distance
            v_means[n, 0] += dx
            v_means[n, 1] += dy
            v_means[n, 2] += dz
            v_centres[task, c, 0] -= dx
            v_centres[task, c, 1] -= dy
            v_centres[task, c, 2] -= dz


# ------------------------------------------------------------------------------------------------------------- binning


@njit(nogil=True, cache=True, error_model="numpy")
def _rows(u, v, a, b, c, opacity, radius, width, height):  # type: ignore[no-untyped-def]
    """Pixels that a Gaussian can colour: (x0, x1, y0, y1) inclusive, and the level that bounds its ellipse.

    Two bounds meet here: gsplat's (whole tiles touched by the square of the radius, part of the meaning) and the
    ellipse outside which alpha falls under its minimum (exact, and a little widened for rounding). The level is
    negative where rounding has left the conic without an ellipse; then only the first bound holds.
    """
    x0 = max(0.0, math.floor(u / TILE - radius / TILE)) * TILE
    y0 = max(0.0, math.floor(v / TILE - radius / TILE)) * TILE
    x1 = min(math.ceil(u / TILE + radius / TILE) * TILE, width) - 1.0
    y1 = min(math.ceil(v / TILE + radius / TILE) * TILE, height) - 1.0
    if not opacity >= MIN_ALPHA:
        return x0, -1.0, y0, -1.0, 0.0
    level = 2.0 * math.log(opacity / MIN_ALPHA) * 1.001 + 1e-3
    determinant = a * c - b * b
    if not determinant > 1e-12 * a * c:
        return x0, x1, y0, y1, -1.0
    tall = math.sqrt(level * a / determinant)
    y0 = max(y0, math.ceil(v - tall - 0.5))
    y1 = min(y1, math.floor(v + tall - 0.5))
    return x0, x1, y0, y1, level


@njit(nogil=True, cache=True, error_model="numpy")
def _columns(u, v, a, b, c, level, determinant, x0, x1, y0, y1, row):  # type: ignore[no-untyped-def]
    """First and last + 1 tile of a row of tiles that a Gaussian touches: the ellipse's extent within that band."""
    if level >= 0.0:
        low = max(y0, row * TILE) + 0.5 - v
        high = min(y1, row * TILE + TILE - 1.0) + 0.5 - v
        wide = math.sqrt(level * c / determinant)
        at = min(max(-b * wide / c, low), high)  # where in the band the right edge is farthest right
        right = (-b * at + math.sqrt(max(0.0, a * level - determinant * at * at))) / a
        at = min(max(b * wide / c, low), high)
        left = (-b * at - math.sqrt(max(0.0, a * level - determinant * at * at))) / a
        x0 = max(x0, math.ceil(u + left - 0.5))
        x1 = min(x1, math.floor(u + right - 0.5))
    if x0 > x1:
        return 0, 0
    return int(x0) // TILE, int(x1) // TILE + 1


@njit(nogil=True, cache=True, error_model="numpy")
def count_tiles(task, tasks, means2d, conics, opacities, radii, width, height, counts):  # type: ignore[no-untyped-def]
    """Fill counts [C * N]: tiles that each Gaussian touches. The other arrays are [C * N, ...]."""
    total = radii.shape[0]
    for i in range(task * total // tasks, (task + 1) * total // tasks):
        counts[i] = 0
        if radii[i] <= 0:
            continue
        u, v = np.float64(means2d[i, 0]), np.float64(means2d[i, 1])
        a, b, c = np.float64(conics[i, 0]), np.float64(conics[i, 1]), np.float64(conics[i, 2])
        x0, x1, y0, y1, level = _rows(u, v, a, b, c, np.float64(opacities[i]), np.float64(radii[i]), width, height)
        if x0 > x1 or y0 > y1:
            continue
        touched = 0
        for row in range(int(y0) // TILE, int(y1) // TILE + 1):
            first, last = _columns(u, v, a, b, c, level, a * c - b * b, x0, x1, y0, y1, row)
            touched += last - first
        counts[i] = touched


@njit(nogil=True, cache=True, error_model="numpy")
def depth_order(keys, counts, cameras):  # type: ignore[no-untyped-def]
    """Indices of the Gaussians that touch a tile, camera by camera, nearest first, ties by index (a radix sort).

    keys [C * N]: the bits of positive depths as unsigned integers, which order as the depths do.
    """
    per_camera = keys.shape[0] // cameras
    total = 0
    for i in range(keys.shape[0]):
        total += 1 if counts[i] > 0 else 0
    order = np.empty(total, np.int32)
    spare = np.empty(total, np.int32)
    buckets = np.empty(1 << RADIX_BITS, np.int64)
    start = 0
    for camera in range(cameras):
        end = start
        most = keys.dtype.type(0)
        for i in range(camera * per_camera, (camera + 1) * per_camera):
            if counts[i] > 0:
                order[end] = i
                end += 1
                most = max(most, keys[i])
        shift = 0
        while shift < keys.itemsize * 8 and (most >> keys.dtype.type(shift)) > 0:
            for digit in range(1 << RADIX_BITS):
                buckets[digit] = 0
            for k in range(start, end):
                buckets[(keys[order[k]] >> keys.dtype.type(shift)) & keys.dtype.type((1 << RADIX_BITS) - 1)] += 1
            at = start
            for digit in range(1 << RADIX_BITS):
                here = buckets[digit]
                buckets[digit] = at
                at += here
            for k in range(start, end):
                i = order[k]
                digit = (keys[i] >> keys.dtype.type(shift)) & keys.dtype.type((1 << RADIX_BITS) - 1)
                spare[buckets[digit]] = i
                buckets[digit] += 1
            for k in range(start, end):
                order[k] = spare[k]
            shift += RADIX_BITS
        start = end
    return order


@njit(nogil=True, cache=True, error_model="numpy")
def pack_and_list(  # type: ignore[no-untyped-def]
    task, tasks, means2d, conics, opacities, radii, colors, width, height, order, offsets, per_camera, tiles_x, tiles_y,
    packed, tile_of, histogram,
):  # fmt: skip
    """For the Gaussians in `order`: their rows of `packed`, the tiles they touch, and how often a task meets a tile.

    tile_of [E] is filled Gaussian by Gaussian from offsets [M + 1]; histogram [tasks, C * tiles] is zeros on entry.
    """
    total = order.shape[0]
    for rank in range(task * total // tasks, (task + 1) * total // tasks):
        i = order[rank]
        u, v = np.float64(means2d[i, 0]), np.float64(means2d[i, 1])
        a, b, c = np.float64(conics[i, 0]), np.float64(conics[i, 1]), np.float64(conics[i, 2])
        x0, x1, y0, y1, level = _rows(u, v, a, b, c, np.float64(opacities[i]), np.float64(radii[i]), width, height)
        packed[rank, P_X] = means2d[i, 0]
        packed[rank, P_Y] = means2d[i, 1]
        packed[rank, P_A] = conics[i, 0]
        packed[rank, P_B] = conics[i, 1]
        packed[rank, P_C] = conics[i, 2]
        packed[rank, P_OPACITY] = opacities[i]
        packed[rank, P_FIRST_ROW] = y0
        packed[rank, P_LAST_ROW] = y1
        for k in range(colors.shape[1]):
            packed[rank, PACKED + k] = colors[i, k]
        e = offsets[rank]
        base = (i // per_camera) * tiles_x * tiles_y
        for row in range(int(y0) // TILE, int(y1) // TILE + 1):
            first, last = _columns(u, v, a, b, c, level, a * c - b * b, x0, x1, y0, y1, row)
            for column in range(first, last):
                tile = base + row * tiles_x + column
                tile_of[e] = tile
                histogram[task, tile] += 1
                e += 1


@njit(nogil=True, cache=True, error_model="numpy")
def lay_out(histogram, starts):  # type: ignore[no-untyped-def]
    """Turn counts per task and tile into each task's first slot in each tile's list; fill starts [tiles + 1]."""
    at = 0
    for tile in range(histogram.shape[1]):
        starts[tile] = at
        for task in range(histogram.shape[0]):
            here = histogram[task, tile]
            histogram[task, tile] = at
            at += here
    starts[histogram.shape[1]] = at


@njit(nogil=True, cache=True, error_model="numpy")
def fill_lists(task, tasks, offsets, tile_of, slots, list_rank, list_entry):  # type: ignore[no-untyped-def]
    """Fill each tile's list, nearest first, with the Gaussians' ranks and the entries' places in `tile_of`."""
    total = offsets.shape[0] - 1
    for rank in range(task * total // tasks, (task + 1) * total // tasks):
        for e in range(offsets[rank], offsets[rank + 1]):
            at = slots[task, tile_of[e]]
            slots[task, tile_of[e]] = at + 1
            list_rank[at] = rank
            list_entry[at] = e


# ------------------------------------------------------------------------------------------------------------ blending


@njit(nogil=True, cache=True, error_model="numpy")
def _span(first_row, last_row, top):  # type: ignore[no-untyped-def]
    """Pixels of a tile between two rows of the image, as unsigned [from, to)."""
    low = max(int(first_row) - top, 0)
    high = min(int(last_row) - top + 1, TILE)
    return _u(low * TILE), _u(max(high, low) * TILE)


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _blend_tile(S, packed, list_rank, start, end, left, top, inside_x, inside_y, channels):  # type: ignore[no-untyped-def]
    """Blend one tile's list, leaving colours, LIGHT and LAST (1-based place in the list; 0: none) in the scratch S."""
    real = S.dtype.type
    one, zero, half = real(1.0), real(0.0), real(0.5)
    max_alpha, min_alpha, min_light = real(MAX_ALPHA), real(MIN_ALPHA), real(MIN_TRANSMITTANCE)
    for p in range(ZERO, FULL):
        S[LIGHT + p] = one
        S[LAST + p] = zero
        S[LIVE + p] = one if S[PX + p] < inside_x and S[PY + p] < inside_y else zero
    for p in range(ZERO, PLANE * _u(len(channels))):
        S[CHANNEL + p] = zero

    for i in range(start, end):
        if (i - start) % CHECK_EVERY == CHECK_EVERY - 1:
            live = zero
            for p in range(ZERO, FULL):
                live += S[LIVE + p]
            if live == zero:
                break
        G = packed[list_rank[i]]
        x, y = G[P_X] - real(left), G[P_Y] - real(top)
        a, b, c, opacity = half * G[P_A], G[P_B], half * G[P_C], G[P_OPACITY]
        place = real(i - start + 1)
        low, high = _span(G[P_FIRST_ROW], G[P_LAST_ROW], top)
        if len(channels) <= FUSED_CHANNELS:
            for p in range(low, high):
                dx = x - S[PX + p]
                dy = y - S[PY + p]
                sigma = a * dx * dx + c * dy * dy + b * dx * dy
                alpha = min(max_alpha, opacity * _exp(-sigma))
                alpha = alpha * S[LIVE + p] * (one if alpha >= min_alpha and sigma >= zero else zero)
                light = S[LIGHT + p]
                go_on = one if light * (one - alpha) > min_light else zero
                alpha = alpha * go_on
                S[LIVE + p] *= go_on
                S[LIGHT + p] = light * (one - alpha)
                S[LAST + p] = max(S[LAST + p], place * (one if alpha > zero else zero))
                weight = alpha * light
                for k in range(len(channels)):
                    S[CHANNEL + _u(k) * PLANE + p] += weight * G[PACKED + k]
        else:
            for p in range(low, high):
                dx = x - S[PX + p]
                dy = y - S[PY + p]
                sigma = a * dx * dx + c * dy * dy + b * dx * dy
                alpha = min(max_alpha, opacity * _exp(-sigma))
                alpha = alpha * S[LIVE + p] * (one if alpha >= min_alpha and sigma >= zero else zero)
                light = S[LIGHT + p]
                go_on = one if light * (one - alpha) > min_light else zero
                alpha = alpha * go_on
                S[LIVE + p] *= go_on
                S[LIGHT + p] = light * (one - alpha)
                S[LAST + p] = max(S[LAST + p], place * (one if alpha > zero else zero))
                S[WEIGHT + p] = alpha * light
            for k in range(len(channels)):
                plane = CHANNEL + _u(k) * PLANE
                color = G[PACKED + k]
                for p in range(low, high):
                    S[plane + p] += S[WEIGHT + p] * color


@njit(nogil=True, cache=True, error_model="numpy")
def _fill_coordinates(S):  # type: ignore[no-untyped-def]
    """Pixel centres relative to the tile's corner."""
    for p in range(PIXELS):
        S[p] = p % TILE + 0.5
        S[PIXELS + p] = p // TILE + 0.5


@njit(nogil=True, cache=True, error_model="numpy")
def blend_forward(  # type: ignore[no-untyped-def]
    task,
    tasks,
    packed,
    list_rank,
    starts,
    active,
    tiles_x,
    tiles_y,
    channels,
    backgrounds,
    scratch,
    renders,
    alphas,
    kept,
):
    """Blend the tiles listed in `active` into renders [C, H, W, D] and alphas [C, H, W] (filled for an empty scene).

    kept [active, 2, PIXELS] receives LIGHT and LAST for the backward pass. scratch [tasks, ...].
    """
    height, width = alphas.shape[1], alphas.shape[2]
    S = scratch[task]
    _fill_coordinates(S)
    for t in range(task, active.shape[0], tasks):  # neighbours cost alike: interleaving balances the tasks
        tile = active[t]
        camera = tile // (tiles_x * tiles_y)
        top = (tile // tiles_x) % tiles_y * TILE
        left = tile % tiles_x * TILE
        rows, columns = min(TILE, height - top), min(TILE, width - left)
        _blend_tile(S, packed, list_rank, starts[tile], starts[tile + 1], left, top, columns, rows, channels)
        for j in range(2 * PIXELS):
            kept[t, j] = S[2 * PIXELS + j]
        for row in range(rows):
            for column in range(columns):
                p = row * TILE + column
                light = S[2 * PIXELS + p]
                alphas[camera, top + row, left + column] = 1.0 - light
                for k in range(len(channels)):
                    value = S[(SCRATCH_PLANES + k) * PIXELS + p] + light * backgrounds[camera, k]
                    renders[camera, top + row, left + column, k] = value


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _unblend_tile(S, packed, list_rank, list_entry, start, end, left, top, channels, partial):  # type: ignore[no-untyped-def]
    """Walk one tile's list from the back; write each intersection's sums into `partial`.

    On entry S holds LIGHT (at the end), LAST, BEHIND (light left times what a unit of it is worth) and, in the channel
    planes, d loss / d render. With T the light that reaches a Gaussian, s its colour's worth and B what lies behind it:
    d loss / d alpha = T s - B / (1 - alpha).
    """
    real = S.dtype.type
    one, zero, half = real(1.0), real(0.0), real(0.5)
    max_alpha, min_alpha = real(MAX_ALPHA), real(MIN_ALPHA)
    depth = len(channels)
    most = zero
    for p in range(ZERO, FULL):
        most = max(most, S[LAST + p])
    reached = start + int(most)
    for i in range(reached, end):
        row = partial[list_entry[i]]
        for k in range(SUMS + depth):
            row[k] = zero

    for i in range(reached - 1, start - 1, -1):
        G = packed[list_rank[i]]
        x, y = G[P_X] - real(left), G[P_Y] - real(top)
        a, b, c, opacity = half * G[P_A], G[P_B], half * G[P_C], G[P_OPACITY]
        place = real(i - start + 1)
        low, high = _span(G[P_FIRST_ROW], G[P_LAST_ROW], top)
        row = partial[list_entry[i]]
        m = mx = my = mxx = mxy = myy = zero
        if depth <= FUSED_CHANNELS:
            c0 = c1 = c2 = c3 = c4 = c5 = c6 = c7 = zero
            for p in range(low, high):
                dx = x - S[PX + p]
                dy = y - S[PY + p]
                sigma = a * dx * dx + c * dy * dy + b * dx * dy
                raw = opacity * _exp(-sigma)
                alpha = min(max_alpha, raw)
                alpha = alpha * (one if alpha >= min_alpha and sigma >= zero else zero)
                alpha = alpha * (one if place <= S[LAST + p] else zero)
                rest = one / (one - alpha)
                light = S[LIGHT + p] * rest
                S[LIGHT + p] = light
                weight = alpha * light
                worth = zero
                for k in range(depth):
                    worth += G[PACKED + k] * S[CHANNEL + _u(k) * PLANE + p]
                behind = S[BEHIND + p]
                S[BEHIND + p] = behind + weight * worth
                g = -alpha * (light * worth - behind * rest) * (one if raw <= max_alpha else zero)
                m += g
                gx = g * dx
                gy = g * dy
                mx += gx
                my += gy
                mxx += gx * dx
                mxy += gx * dy
                myy += gy * dy
                if depth > 0:
                    c0 += weight * S[CHANNEL + p]
                if depth > 1:
                    c1 += weight * S[CHANNEL + _u(1) * PLANE + p]
                if depth > 2:
                    c2 += weight * S[CHANNEL + _u(2) * PLANE + p]
                if depth > 3:
                    c3 += weight * S[CHANNEL + _u(3) * PLANE + p]
                if depth > 4:
                    c4 += weight * S[CHANNEL + _u(4) * PLANE + p]
                if depth > 5:
                    c5 += weight * S[CHANNEL + _u(5) * PLANE + p]
                if depth > 6:
                    c6 += weight * S[CHANNEL + _u(6) * PLANE + p]
                if depth > 7:
                    c7 += weight * S[CHANNEL + _u(7) * PLANE + p]
            sums = (c0, c1, c2, c3, c4, c5, c6, c7)
            for k in range(depth):
                row[SUMS + k] = sums[k]
        else:
            for p in range(low, high):
                S[WEIGHT + p] = zero
            for k in range(depth):
                plane = CHANNEL + _u(k) * PLANE
                color = G[PACKED + k]
                for p in range(low, high):
                    S[WEIGHT + p] += color * S[plane + p]
            for p in range(low, high):
                dx = x - S[PX + p]
                dy = y - S[PY + p]
                sigma = a * dx * dx + c * dy * dy + b * dx * dy
                raw = opacity * _exp(-sigma)
                alpha = min(max_alpha, raw)
                alpha = alpha * (one if alpha >= min_alpha and sigma >= zero else zero)
                alpha = alpha * (one if place <= S[LAST + p] else zero)
                rest = one / (one - alpha)
                light = S[LIGHT + p] * rest
                S[LIGHT + p] = light
                weight = alpha * light
                worth = S[WEIGHT + p]
                S[WEIGHT + p] = weight
                behind = S[BEHIND + p]
                S[BEHIND + p] = behind + weight * worth
                g = -alpha * (light * worth - behind * rest) * (one if raw <= max_alpha else zero)
                m += g
                gx = g * dx
                gy = g * dy
                mx += gx
                my += gy
                mxx += gx * dx
                mxy += gx * dy
                myy += gy * dy
            for k in range(depth):
                plane = CHANNEL + _u(k) * PLANE
                total = zero
                for p in range(low, high):
                    total += S[WEIGHT + p] * S[plane + p]
                row[SUMS + k] = total
        row[0] = m
        row[1] = mx
        row[2] = my
        row[3] = mxx
        row[4] = mxy
        row[5] = myy


@njit(nogil=True, cache=True, error_model="numpy")
def blend_backward(  # type: ignore[no-untyped-def]
    task, tasks, packed, list_rank, list_entry, starts, active, tiles_x, tiles_y, channels, backgrounds, scratch, kept,
    v_renders, v_alphas, partial,
):  # fmt: skip
    """Fill partial [E, SUMS + D] from d loss / d renders [C, H, W, D] and / d alphas [C, H, W]."""
    height, width = v_alphas.shape[1], v_alphas.shape[2]
    S = scratch[task]
    _fill_coordinates(S)
    for t in range(task, active.shape[0], tasks):
        tile = active[t]
        camera = tile // (tiles_x * tiles_y)
        top = (tile // tiles_x) % tiles_y * TILE
        left = tile % tiles_x * TILE
        rows, columns = min(TILE, height - top), min(TILE, width - left)
        for j in range(2 * PIXELS):
            S[2 * PIXELS + j] = kept[t, j]
        for row in range(rows):
            for column in range(columns):
                p = row * TILE + column
                worth = -v_alphas[camera, top + row, left + column]
                for k in range(len(channels)):
                    value = v_renders[camera, top + row, left + column, k]
                    S[(SCRATCH_PLANES + k) * PIXELS + p] = value
                    worth += value * backgrounds[camera, k]
                S[4 * PIXELS + p] = worth * S[2 * PIXELS + p]
        _unblend_tile(S, packed, list_rank, list_entry, starts[tile], starts[tile + 1], left, top, channels, partial)


@njit(nogil=True, cache=True, error_model="numpy")
def gather_gradients(  # type: ignore[no-untyped-def]
    task, tasks, packed, order, offsets, partial, v_means2d, v_conics, v_opacities, v_colors
):
    """Sum each Gaussian's intersections into v_means2d [C * N, 2], v_conics, v_opacities, v_colors (zeros on entry)."""
    total = order.shape[0]
    width = partial.shape[1]
    sums = np.empty(width)
    for rank in range(task * total // tasks, (task + 1) * total // tasks):
        for k in range(width):
            sums[k] = 0.0
        for e in range(offsets[rank], offsets[rank + 1]):
            for k in range(width):
                sums[k] += partial[e, k]
        i = order[rank]
        G = packed[rank]
        v_means2d[i, 0] = G[P_A] * sums[1] + G[P_B] * sums[2]
        v_means2d[i, 1] = G[P_B] * sums[1] + G[P_C] * sums[2]
        v_conics[i, 0] = 0.5 * sums[3]
        v_conics[i, 1] = sums[4]
        v_conics[i, 2] = 0.5 * sums[5]
        # alpha = opacity exp(-sigma): what moves one by a factor moves the other by its logarithm
        v_opacities[i] = -sums[0] / G[P_OPACITY]
        for k in range(width - SUMS):
            v_colors[i, k] = sums[SUMS + k]
