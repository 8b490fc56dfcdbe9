"""Numba kernels of spherical harmonics, each with its gradient.

They see numpy arrays only and know neither torch, autograd nor threads. A kernel whose first arguments are `task` and
`tasks` does that share of its work; the shares write to different places, in any order or at once.
"""

from __future__ import annotations

import math

import numpy as np

from degstalk_ns.rasterization.compiled import helper, kernel


@helper
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


@helper
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


@helper
def _direction(means, centres, c, n):  # type: ignore[no-untyped-def]
    """Unit vector from camera c to Gaussian n, and the distance; (0, 0, 0) and a tiny distance where they coincide."""
    x = np.float64(means[n, 0]) - centres[c, 0]
    y = np.float64(means[n, 1]) - centres[c, 1]
    z = np.float64(means[n, 2]) - centres[c, 2]
    distance = max(math.sqrt(x * x + y * y + z * z), 1e-12)
    return x / distance, y / distance, z / distance, distance


@kernel
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


@kernel
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
