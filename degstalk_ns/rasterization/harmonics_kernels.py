"""Numba kernels of spherical harmonics, each with its gradient.

They see numpy arrays only and know neither torch, autograd nor threads. A kernel whose first arguments are `task` and
`tasks` does that share of its work; the shares write to different places, in any order or at once.
"""

from __future__ import annotations

import numpy as np

from degstalk_ns.kernels.compiled import helper, kernel
from degstalk_ns.kernels.lanes import LANES, load, load_column, root, select, some, spread, store, store_column, total

SMALLEST_DISTANCE, LARGEST_DISTANCE = 1e-12, np.finfo(np.float64).max
"""World units: a Gaussian nearer to a camera's centre lies in no direction, one that is farther nowhere."""


@helper
def _sh_basis(degree, x, y, z, basis):  # type: ignore[no-untyped-def]
    """Store the basis functions, LANES directions each, one after the other."""
    store(basis, 0, spread(0.28209479177387814))
    if degree >= 1:
        store(basis, 1 * LANES, -0.4886025119029199 * y)
        store(basis, 2 * LANES, 0.4886025119029199 * z)
        store(basis, 3 * LANES, -0.4886025119029199 * x)
    if degree >= 2:
        store(basis, 4 * LANES, 1.0925484305920792 * x * y)
        store(basis, 5 * LANES, -1.0925484305920792 * y * z)
        store(basis, 6 * LANES, 0.9461746957575601 * z * z - 0.3153915652525201)
        store(basis, 7 * LANES, -1.0925484305920792 * x * z)
        store(basis, 8 * LANES, 0.5462742152960396 * (x * x - y * y))
    if degree >= 3:
        ring = -2.285228997322329 * z * z + 0.4570457994644658
        store(basis, 9 * LANES, -0.5900435899266435 * y * (3.0 * x * x - y * y))
        store(basis, 10 * LANES, 2.890611442640554 * x * y * z)
        store(basis, 11 * LANES, ring * y)
        store(basis, 12 * LANES, z * (1.865881662950577 * z * z - 1.119528997770346))
        store(basis, 13 * LANES, ring * x)
        store(basis, 14 * LANES, 1.445305721320277 * z * (x * x - y * y))
        store(basis, 15 * LANES, -0.5900435899266435 * x * (x * x - 3.0 * y * y))


@helper
def _sh_slope(degree, x, y, z, s):  # type: ignore[no-untyped-def]
    """Gradient with respect to (x, y, z) of the sum of basis functions weighted by s."""
    dx = dy = dz = spread(0.0)
    if degree >= 1:
        dx -= 0.4886025119029199 * load(s, 3 * LANES)
        dy -= 0.4886025119029199 * load(s, 1 * LANES)
        dz += 0.4886025119029199 * load(s, 2 * LANES)
    if degree >= 2:
        k = 1.0925484305920792
        s4, s5, s7, s8 = load(s, 4 * LANES), load(s, 5 * LANES), load(s, 7 * LANES), load(s, 8 * LANES)
        dx += k * (s4 * y - s7 * z + s8 * x)
        dy += k * (s4 * x - s5 * z - s8 * y)
        dz += 2.0 * 0.9461746957575601 * load(s, 6 * LANES) * z - k * (s5 * y + s7 * x)
    if degree >= 3:
        k = -0.5900435899266435
        ring = -2.285228997322329 * z * z + 0.4570457994644658
        s9, s10, s11, s12 = load(s, 9 * LANES), load(s, 10 * LANES), load(s, 11 * LANES), load(s, 12 * LANES)
        s13, s14, s15 = load(s, 13 * LANES), load(s, 14 * LANES), load(s, 15 * LANES)
        dx += s9 * (k * 6.0) * x * y + s10 * 2.890611442640554 * y * z + s13 * ring
        dx += s14 * 2.890611442640554 * z * x + s15 * (k * 3.0) * (x * x - y * y)
        dy += s9 * (k * 3.0) * (x * x - y * y) + s10 * 2.890611442640554 * x * z + s11 * ring
        dy -= s14 * 2.890611442640554 * z * y + s15 * (k * 6.0) * x * y
        dz += s10 * 2.890611442640554 * x * y - 2.0 * 2.285228997322329 * z * (s11 * y + s13 * x)
        dz += s12 * (3.0 * 1.865881662950577 * z * z - 1.119528997770346)
        dz += s14 * 1.445305721320277 * (x * x - y * y)
    return dx, dy, dz


@helper
def _directions(means, centres, c, n, last):  # type: ignore[no-untyped-def]
    """Unit vectors from camera c to the Gaussians from n on, and distances; (0, 0, 0) and a tiny distance where they
    coincide."""
    x = load_column(means, n, last, 0) - centres[c, 0]
    y = load_column(means, n, last, 1) - centres[c, 1]
    z = load_column(means, n, last, 2) - centres[c, 2]
    distance = root(x * x + y * y + z * z)
    # not `larger`: what is not a number must stay that
    distance = select(distance < SMALLEST_DISTANCE, spread(SMALLEST_DISTANCE), distance)
    return x / distance, y / distance, z / distance, distance


@kernel
def sh_forward(task, tasks, degree, means, coeffs, centres, colors):  # type: ignore[no-untyped-def]
    """Fill colors [C, N, 3] from coeffs [N, K * 3], means [N, 3] and camera centres [C, 3]."""
    cameras, count = colors.shape[0], colors.shape[1]
    terms = (degree + 1) * (degree + 1)
    basis = np.empty(16 * LANES)
    end = (task + 1) * count // tasks
    for n in range(task * count // tasks, end, LANES):
        last = end - 1
        for c in range(cameras):
            x, y, z, distance = _directions(means, centres, c, n, last)
            somewhere = distance <= LARGEST_DISTANCE
            _sh_basis(degree, x, y, z, basis)
            red = green = blue = spread(0.5)
            for k in range(terms):
                weight = load(basis, k * LANES)
                red += weight * load_column(coeffs, n, last, 3 * k)
                green += weight * load_column(coeffs, n, last, 3 * k + 1)
                blue += weight * load_column(coeffs, n, last, 3 * k + 2)
            # written so that NaN stays NaN
            store_column(colors[c], n, last, 0, select(somewhere & ~(red < 0.0), red, 0.0))
            store_column(colors[c], n, last, 1, select(somewhere & ~(green < 0.0), green, 0.0))
            store_column(colors[c], n, last, 2, select(somewhere & ~(blue < 0.0), blue, 0.0))


@kernel
def sh_backward(task, tasks, degree, means, coeffs, centres, colors, v_colors, v_means, v_coeffs, v_centres):  # type: ignore[no-untyped-def]
    """Fill v_means [N, 3], v_coeffs [N, K * 3]; v_centres [tasks, C, 3] is zeros on entry, to be summed by the caller.

    A colour of exactly 0 was clamped, and passes nothing.
    """
    cameras, count = colors.shape[0], colors.shape[1]
    terms = (degree + 1) * (degree + 1)
    basis, slopes = np.empty(16 * LANES), np.empty(16 * LANES)
    sums = np.empty(3 * 16 * LANES)
    numbers = np.arange(LANES).astype(np.float64)
    nothing = spread(0.0)
    end = (task + 1) * count // tasks
    for n in range(task * count // tasks, end, LANES):
        last = end - 1
        own = load(numbers, 0) <= float(last - n)
        for k in range(3 * terms):
            store(sums, k * LANES, nothing)
        mean_x = mean_y = mean_z = nothing
        for c in range(cameras):
            red, green, blue = (
                load_column(v_colors[c], n, last, 0),
                load_column(v_colors[c], n, last, 1),
                load_column(v_colors[c], n, last, 2),
            )
            red = select(load_column(colors[c], n, last, 0) > 0.0, red, 0.0)
            green = select(load_column(colors[c], n, last, 1) > 0.0, green, 0.0)
            blue = select(load_column(colors[c], n, last, 2) > 0.0, blue, 0.0)
            dark = (red <= 0.0) & (red >= 0.0) & (green <= 0.0) & (green >= 0.0) & (blue <= 0.0) & (blue >= 0.0)
            if not some(~dark):
                continue
            x, y, z, distance = _directions(means, centres, c, n, last)
            _sh_basis(degree, x, y, z, basis)
            for k in range(terms):
                weight = load(basis, k * LANES)
                at = 3 * k * LANES
                store(sums, at, load(sums, at) + select(dark, nothing, weight * red))
                at += LANES
                store(sums, at, load(sums, at) + select(dark, nothing, weight * green))
                at += LANES
                store(sums, at, load(sums, at) + select(dark, nothing, weight * blue))
                slope = load_column(coeffs, n, last, 3 * k) * red + load_column(coeffs, n, last, 3 * k + 1) * green
                store(slopes, k * LANES, slope + load_column(coeffs, n, last, 3 * k + 2) * blue)
            dx, dy, dz = _sh_slope(degree, x, y, z, slopes)
            along = dx * x + dy * y + dz * z
            dx = select(dark, nothing, (dx - along * x) / distance)
            dy = select(dark, nothing, (dy - along * y) / distance)
            dz = select(dark, nothing, (dz - along * z) / distance)
            mean_x += dx
            mean_y += dy
            mean_z += dz
            v_centres[task, c, 0] -= total(select(own, dx, 0.0))
            v_centres[task, c, 1] -= total(select(own, dy, 0.0))
            v_centres[task, c, 2] -= total(select(own, dz, 0.0))
        store_column(v_means, n, last, 0, mean_x)
        store_column(v_means, n, last, 1, mean_y)
        store_column(v_means, n, last, 2, mean_z)
        for k in range(3 * terms):
            store_column(v_coeffs, n, last, k, load(sums, k * LANES))
        for k in range(3 * terms, coeffs.shape[1]):
            store_column(v_coeffs, n, last, k, nothing)
