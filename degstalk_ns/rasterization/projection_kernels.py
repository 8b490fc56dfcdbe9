"""Numba kernels of the projection of Gaussians onto the image, each with its gradient.

They see numpy arrays only and know neither torch, autograd nor threads. A kernel whose first arguments are `task` and
`tasks` does that share of its work; the shares write to different places, in any order or at once.
"""

from __future__ import annotations

import numpy as np

from degstalk_ns.kernels.compiled import helper, kernel
from degstalk_ns.kernels.lanes import (
    LANES,
    larger,
    load,
    load_column,
    root,
    select,
    smaller,
    some,
    spread,
    store,
    store_column,
    totals,
    whole_below,
)
from degstalk_ns.rasterization.rules import MAX_DETERMINANT, MAX_RADIUS, MIN_DETERMINANT, RULES

FOV_MARGIN = RULES.fov_margin
MIN_EIGEN_SPREAD = RULES.min_eigen_spread
RADIUS_SIGMAS = RULES.radius_sigmas


@helper
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


@helper
def _slope_limits(Ks, width, height):  # type: ignore[no-untyped-def]
    """[C, 4]: least and greatest x / z, least and greatest y / z, at which a camera's Jacobian is evaluated."""
    limits = np.empty((Ks.shape[0], 4))
    for c in range(Ks.shape[0]):
        fx, fy, cx, cy = Ks[c, 0, 0], Ks[c, 1, 1], Ks[c, 0, 2], Ks[c, 1, 2]
        margin_x = FOV_MARGIN * 0.5 * width / fx
        margin_y = FOV_MARGIN * 0.5 * height / fy
        limits[c, 0], limits[c, 1] = -(cx / fx + margin_x), (width - cx) / fx + margin_x
        limits[c, 2], limits[c, 3] = -(cy / fy + margin_y), (height - cy) / fy + margin_y
    return limits


@kernel
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

    All arithmetic is in double precision.
    """
    cameras, count = depths.shape
    limits = _slope_limits(Ks, width, height)
    end = (task + 1) * count // tasks
    for n in range(task * count // tasks, end, LANES):
        last = end - 1
        qw, qx = load_column(quats, n, last, 0), load_column(quats, n, last, 1)
        qy, qz = load_column(quats, n, last, 2), load_column(quats, n, last, 3)
        norm = root(qw * qw + qx * qx + qy * qy + qz * qz)
        shorten = 1.0 / norm
        r00, r01, r02, r10, r11, r12, r20, r21, r22 = _rotation(qw * shorten, qx * shorten, qy * shorten, qz * shorten)
        s0, s1, s2 = load_column(scales, n, last, 0), load_column(scales, n, last, 1), load_column(scales, n, last, 2)
        m0, m1, m2 = load_column(means, n, last, 0), load_column(means, n, last, 1), load_column(means, n, last, 2)

        for c in range(cameras):
            view = viewmats[c]
            x = view[0, 0] * m0 + view[0, 1] * m1 + view[0, 2] * m2 + view[0, 3]
            y = view[1, 0] * m0 + view[1, 1] * m1 + view[1, 2] * m2 + view[1, 3]
            z = view[2, 0] * m0 + view[2, 1] * m1 + view[2, 2] * m2 + view[2, 3]
            seen = (norm > 0.0) & (z >= near) & (z <= far)
            fx, fy, cx, cy = Ks[c, 0, 0], Ks[c, 1, 1], Ks[c, 0, 2], Ks[c, 1, 2]
            per_z = 1.0 / z
            slope_x, slope_y = x * per_z, y * per_z
            u = fx * slope_x + cx
            v = fy * slope_y + cy
            slope_x = smaller(larger(slope_x, limits[c, 0]), limits[c, 1])
            slope_y = smaller(larger(slope_y, limits[c, 2]), limits[c, 3])
            # Rows of the Jacobian times the camera's rotation, then times the Gaussian's axes: [2, 3] each.
            j0, j1 = fx * per_z, fy * per_z
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
            seen = seen & (determinant > MIN_DETERMINANT) & (determinant < MAX_DETERMINANT)
            middle = 0.5 * (xx + yy)
            largest = middle + root(larger(middle * middle - determinant, MIN_EIGEN_SPREAD))
            radius = -whole_below(-RADIUS_SIGMAS * root(largest))
            seen = seen & (radius > radius_clip) & (u + radius > 0.0) & (u - radius < width)
            seen = seen & (v + radius > 0.0) & (v - radius < height)
            per_determinant = 1.0 / determinant
            store_column(radii[c], n, last, 0, select(seen, smaller(radius, MAX_RADIUS), 0.0))
            store_column(means2d[c], n, last, 0, select(seen, u, 0.0))
            store_column(means2d[c], n, last, 1, select(seen, v, 0.0))
            store_column(depths[c], n, last, 0, select(seen, z, 0.0))
            store_column(conics[c], n, last, 0, select(seen, yy * per_determinant, 0.0))
            store_column(conics[c], n, last, 1, select(seen, -xy * per_determinant, 0.0))
            store_column(conics[c], n, last, 2, select(seen, xx * per_determinant, 0.0))


@kernel
def project_backward(  # type: ignore[no-untyped-def]
    task, tasks, means, quats, scales, viewmats, Ks, width, height, eps2d, radii, v_means2d, v_depths, v_conics,
    v_means, v_quats, v_scales, v_views,
):  # fmt: skip
    """Fill v_means [N, 3], v_quats [N, 4], v_scales [N, 3]; add to v_views [tasks, C, 3, 4], to be summed by task."""
    cameras, count = radii.shape
    limits = _slope_limits(Ks, width, height)
    end = (task + 1) * count // tasks
    numbers, sums = np.arange(LANES).astype(np.float64), np.empty(LANES)
    nothing = spread(0.0)
    for n in range(task * count // tasks, end, LANES):
        last = end - 1
        own = load(numbers, 0) <= float(last - n)
        qw, qx = load_column(quats, n, last, 0), load_column(quats, n, last, 1)
        qy, qz = load_column(quats, n, last, 2), load_column(quats, n, last, 3)
        shorten = 1.0 / root(qw * qw + qx * qx + qy * qy + qz * qz)
        qw, qx, qy, qz = qw * shorten, qx * shorten, qy * shorten, qz * shorten
        r00, r01, r02, r10, r11, r12, r20, r21, r22 = _rotation(qw, qx, qy, qz)
        s0, s1, s2 = load_column(scales, n, last, 0), load_column(scales, n, last, 1), load_column(scales, n, last, 2)
        m0, m1, m2 = load_column(means, n, last, 0), load_column(means, n, last, 1), load_column(means, n, last, 2)
        # d loss / d axes, axes = rotation * scales
        g00 = g01 = g02 = g10 = g11 = g12 = g20 = g21 = g22 = nothing
        h0 = h1 = h2 = nothing  # d loss / d mean
        times_seen = nothing

        for c in range(cameras):
            seen = load_column(radii[c], n, last, 0) > 0.0
            if not some(seen):
                continue
            times_seen += select(seen, spread(1.0), 0.0)
            view = viewmats[c]
            w00, w01, w02 = view[0, 0], view[0, 1], view[0, 2]
            w10, w11, w12 = view[1, 0], view[1, 1], view[1, 2]
            w20, w21, w22 = view[2, 0], view[2, 1], view[2, 2]
            x = w00 * m0 + w01 * m1 + w02 * m2 + view[0, 3]
            y = w10 * m0 + w11 * m1 + w12 * m2 + view[1, 3]
            z = w20 * m0 + w21 * m1 + w22 * m2 + view[2, 3]
            fx, fy = Ks[c, 0, 0], Ks[c, 1, 1]
            per_z = 1.0 / z
            slope_x, slope_y = x * per_z, y * per_z
            low_x, high_x, low_y, high_y = limits[c, 0], limits[c, 1], limits[c, 2], limits[c, 3]
            free_x = (slope_x >= low_x) & (slope_x <= high_x)
            free_y = (slope_y >= low_y) & (slope_y <= high_y)
            slope_x = smaller(larger(slope_x, low_x), high_x)
            slope_y = smaller(larger(slope_y, low_y), high_y)
            j0, j1 = fx * per_z, fy * per_z
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
            per_determinant = 1.0 / determinant
            ka, kb, kc = yy * per_determinant, -xy * per_determinant, xx * per_determinant

            # conic = inverse(covariance): d covariance = -conic (d conic) conic, the off-diagonal counted twice
            va, vb = load_column(v_conics[c], n, last, 0), 0.5 * load_column(v_conics[c], n, last, 1)
            vc = load_column(v_conics[c], n, last, 2)
            # Where a Gaussian is not seen, what follows may be anything but must not count.
            va, vb, vc = select(seen, va, 0.0), select(seen, vb, 0.0), select(seen, vc, 0.0)
            p00, p01 = ka * va + kb * vb, ka * vb + kb * vc
            p10, p11 = kb * va + kc * vb, kb * vb + kc * vc
            c00 = -(p00 * ka + p01 * kb)
            c01 = -(p00 * kb + p01 * kc)
            c11 = -(p10 * kb + p11 * kc)
            # covariance = footprint footprint^T
            de0, de1, de2 = 2.0 * (c00 * e0 + c01 * f0), 2.0 * (c00 * e1 + c01 * f1), 2.0 * (c00 * e2 + c01 * f2)
            df0, df1, df2 = 2.0 * (c01 * e0 + c11 * f0), 2.0 * (c01 * e1 + c11 * f1), 2.0 * (c01 * e2 + c11 * f2)
            # footprint = (Jacobian view) axes
            g00 += select(seen, a0 * de0 + b0 * df0, 0.0)
            g01 += select(seen, a0 * de1 + b0 * df1, 0.0)
            g02 += select(seen, a0 * de2 + b0 * df2, 0.0)
            g10 += select(seen, a1 * de0 + b1 * df0, 0.0)
            g11 += select(seen, a1 * de1 + b1 * df1, 0.0)
            g12 += select(seen, a1 * de2 + b1 * df2, 0.0)
            g20 += select(seen, a2 * de0 + b2 * df0, 0.0)
            g21 += select(seen, a2 * de1 + b2 * df1, 0.0)
            g22 += select(seen, a2 * de2 + b2 * df2, 0.0)
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
            du, dv = load_column(v_means2d[c], n, last, 0), load_column(v_means2d[c], n, last, 1)
            dx = j0 * du
            dy = j1 * dv
            dz = load_column(v_depths[c], n, last, 0) - (j0 * x * du + j1 * y * dv) * per_z
            dz -= (j0 * d00 + j1 * d11 + j02 * d02 + j12 * d12) * per_z
            dx -= select(free_x, j0 * d02 * per_z, 0.0)
            dz += select(free_x, j0 * slope_x * d02 * per_z, 0.0)
            dy -= select(free_y, j1 * d12 * per_z, 0.0)
            dz += select(free_y, j1 * slope_y * d12 * per_z, 0.0)
            # camera coordinates
            h0 += select(seen, w00 * dx + w10 * dy + w20 * dz, 0.0)
            h1 += select(seen, w01 * dx + w11 * dy + w21 * dz, 0.0)
            h2 += select(seen, w02 * dx + w12 * dy + w22 * dz, 0.0)
            seen = seen & own
            moved = totals(
                (
                    select(seen, dx * m0 + j0 * da0, 0.0),
                    select(seen, dx * m1 + j0 * da1, 0.0),
                    select(seen, dx * m2 + j0 * da2, 0.0),
                    select(seen, dx, 0.0),
                    select(seen, dy * m0 + j1 * db0, 0.0),
                    select(seen, dy * m1 + j1 * db1, 0.0),
                    select(seen, dy * m2 + j1 * db2, 0.0),
                    select(seen, dy, 0.0),
                    select(seen, dz * m0 + j02 * da0 + j12 * db0, 0.0),
                    select(seen, dz * m1 + j02 * da1 + j12 * db1, 0.0),
                    select(seen, dz * m2 + j02 * da2 + j12 * db2, 0.0),
                    select(seen, dz, 0.0),
                )
            )
            store(sums, 0, moved)
            for row in range(3):
                for column in range(4):
                    v_views[task, c, row, column] += sums[4 * row + column]

        ever = times_seen > 0.0
        store_column(v_means, n, last, 0, h0)
        store_column(v_means, n, last, 1, h1)
        store_column(v_means, n, last, 2, h2)
        store_column(v_scales, n, last, 0, select(ever, r00 * g00 + r10 * g10 + r20 * g20, 0.0))
        store_column(v_scales, n, last, 1, select(ever, r01 * g01 + r11 * g11 + r21 * g21, 0.0))
        store_column(v_scales, n, last, 2, select(ever, r02 * g02 + r12 * g12 + r22 * g22, 0.0))
        t00, t01, t02 = g00 * s0, g01 * s1, g02 * s2  # d loss / d rotation
        t10, t11, t12 = g10 * s0, g11 * s1, g12 * s2
        t20, t21, t22 = g20 * s0, g21 * s1, g22 * s2
        dw = 2.0 * (qx * (t21 - t12) + qy * (t02 - t20) + qz * (t10 - t01))
        dx = 2.0 * (qw * (t21 - t12) + qy * (t01 + t10) + qz * (t02 + t20) - 2.0 * qx * (t11 + t22))
        dy = 2.0 * (qw * (t02 - t20) + qx * (t01 + t10) + qz * (t12 + t21) - 2.0 * qy * (t00 + t22))
        dz = 2.0 * (qw * (t10 - t01) + qx * (t02 + t20) + qy * (t12 + t21) - 2.0 * qz * (t00 + t11))
        along = dw * qw + dx * qx + dy * qy + dz * qz
        store_column(v_quats, n, last, 0, select(ever, (dw - along * qw) * shorten, 0.0))
        store_column(v_quats, n, last, 1, select(ever, (dx - along * qx) * shorten, 0.0))
        store_column(v_quats, n, last, 2, select(ever, (dy - along * qy) * shorten, 0.0))
        store_column(v_quats, n, last, 3, select(ever, (dz - along * qz) * shorten, 0.0))
