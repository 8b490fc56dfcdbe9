"""Numba kernels of the sample's light and of what can be seen at all: numpy arrays only, one surfel at a time.

Every helper is inlined: see tests/test_compiled.py. A kernel does share ``task`` of ``tasks`` of its work.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from degstalk_ns.kernels.compiled import kernel

# Columns of the array of lamps: direction, colour, wrap, shine.
LAMP: Final = 8
# Places in the array of settings.
SKY, GROUND, RIM, HIGHLIGHT, HAIR_SHIFT, HAIR_HIGHLIGHT, SHADOW, PENUMBRA, CONTACT = 0, 3, 6, 7, 8, 9, 10, 11, 12
SETTINGS: Final = 13

_one, _half, _zero = np.float32(1.0), np.float32(0.5), np.float32(0.0)


@kernel
def seen(  # type: ignore[no-untyped-def]
    task, tasks, means, normals, parts, closed, hidden_by_head, eye, head, turned_away, visible, inside
):
    """Which surfels can be seen, and which of them only the head hides.

    Args:
        closed, hidden_by_head: [parts] bool, whether a part is a closed surface, and whether the head can hide it.
        eye: [3]. head: [4, 3] the core's axes over their lengths (rows), and its centre; room coordinates.
        visible, inside: [N] bool, filled: not turned away; inside the core or behind it as seen from the eye.
    """
    count = len(means)
    ex, ey, ez = eye[0] - head[3, 0], eye[1] - head[3, 1], eye[2] - head[3, 2]
    sx = head[0, 0] * ex + head[0, 1] * ey + head[0, 2] * ez
    sy = head[1, 0] * ex + head[1, 1] * ey + head[1, 2] * ez
    sz = head[2, 0] * ex + head[2, 1] * ey + head[2, 2] * ez
    for i in range(task * count // tasks, (task + 1) * count // tasks):
        part = parts[i]
        vx, vy, vz = eye[0] - means[i, 0], eye[1] - means[i, 1], eye[2] - means[i, 2]
        facing = normals[i, 0] * vx + normals[i, 1] * vy + normals[i, 2] * vz
        away = facing < turned_away * math.sqrt(vx * vx + vy * vy + vz * vz)
        visible[i] = not (closed[part] and away)
        inside[i] = False
        if hidden_by_head[part]:
            px, py, pz = means[i, 0] - head[3, 0], means[i, 1] - head[3, 1], means[i, 2] - head[3, 2]
            x = head[0, 0] * px + head[0, 1] * py + head[0, 2] * pz
            y = head[1, 0] * px + head[1, 1] * py + head[1, 2] * pz
            z = head[2, 0] * px + head[2, 1] * py + head[2, 2] * pz
            square = x * x + y * y + z * z
            rx, ry, rz = sx - x, sy - y, sz - z
            along = -(x * rx + y * ry + z * rz)
            length = rx * rx + ry * ry + rz * rz
            inside[i] = square < _one or (along > _zero and square - along * along / length < _one)


@kernel
def shade(  # type: ignore[no-untyped-def]
    task, tasks, means, normals, quats, albedo, gloss, shaded, is_hair, eye, lamps, settings, head, colours
):
    """Gamma-encoded colours [N, 3].

    Args:
        shaded: [N] float32 0..1, how much of the head's shadow falls on a surfel. is_hair: [N] bool.
        lamps: [lamps, 8] float32; the first one casts the head's shadow. settings: [13].
        head: [4, 3] the shadow's ellipsoid as for :func:`seen`.
    """
    count = len(means)
    kx, ky, kz = lamps[0, 0], lamps[0, 1], lamps[0, 2]
    # The key lamp's direction where the head is the unit sphere.
    tx = head[0, 0] * kx + head[0, 1] * ky + head[0, 2] * kz
    ty = head[1, 0] * kx + head[1, 1] * ky + head[1, 2] * kz
    tz = head[2, 0] * kx + head[2, 1] * ky + head[2, 2] * kz
    scale = _one / math.sqrt(tx * tx + ty * ty + tz * tz)
    tx, ty, tz = tx * scale, ty * scale, tz * scale
    for i in range(task * count // tasks, (task + 1) * count // tasks):
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        vx, vy, vz = eye[0] - means[i, 0], eye[1] - means[i, 1], eye[2] - means[i, 2]
        scale = _one / math.sqrt(vx * vx + vy * vy + vz * vz)
        vx, vy, vz = vx * scale, vy * scale, vz * scale
        facing = nx * vx + ny * vy + nz * vz

        lit, open_sky = _one, _one
        if shaded[i] > _zero:
            px, py, pz = means[i, 0] - head[3, 0], means[i, 1] - head[3, 1], means[i, 2] - head[3, 2]
            x = head[0, 0] * px + head[0, 1] * py + head[0, 2] * pz
            y = head[1, 0] * px + head[1, 1] * py + head[1, 2] * pz
            z = head[2, 0] * px + head[2, 1] * py + head[2, 2] * pz
            along = x * tx + y * ty + z * tz
            square = x * x + y * y + z * z
            miss = math.sqrt(max(square - along * along, _zero))
            # Only what lies behind the head as the lamp sees it; its lit side is free.
            depth = min(max(-along / np.float32(0.6), _zero), _one)
            cover = min(max((_one + _half * settings[PENUMBRA] - miss) / settings[PENUMBRA], _zero), _one)
            lit = _one - shaded[i] * settings[SHADOW] * depth * cover * cover * (
                np.float32(3.0) - np.float32(2.0) * cover
            )
            near = min(max(np.float32(1.7) - math.sqrt(square), _zero) / np.float32(0.7), _one)
            open_sky = _one - shaded[i] * settings[CONTACT] * near * near

        up = _half + _half * ny
        red = open_sky * (settings[GROUND] + up * (settings[SKY] - settings[GROUND]))
        green = open_sky * (settings[GROUND + 1] + up * (settings[SKY + 1] - settings[GROUND + 1]))
        blue = open_sky * (settings[GROUND + 2] + up * (settings[SKY + 2] - settings[GROUND + 2]))
        glint_red, glint_green, glint_blue = _zero, _zero, _zero
        # A strand's direction: the first column of its rotation, tilted by its scales.
        w, qx, qy, qz = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
        two = np.float32(2.0)
        ax = _one - two * (qy * qy + qz * qz) + settings[HAIR_SHIFT] * nx
        ay = two * (qx * qy + w * qz) + settings[HAIR_SHIFT] * ny
        az = two * (qx * qz - w * qy) + settings[HAIR_SHIFT] * nz
        for k in range(len(lamps)):
            lx, ly, lz, wrap = lamps[k, 0], lamps[k, 1], lamps[k, 2], lamps[k, 6]
            diffuse = max((nx * lx + ny * ly + nz * lz + wrap) / (_one + wrap), _zero)
            diffuse = diffuse * diffuse
            if k == 0:
                diffuse = diffuse * lit
            red += diffuse * lamps[k, 3]
            green += diffuse * lamps[k, 4]
            blue += diffuse * lamps[k, 5]
            hx, hy, hz = vx + lx, vy + ly, vz + lz
            half = hx * hx + hy * hy + hz * hz
            if is_hair[i]:
                along = ax * hx + ay * hy + az * hz
                sine = max(_one - along * along / (half * (ax * ax + ay * ay + az * az)), _zero)
                third = sine * sine * sine
                sixth = third * third
                twelfth = sixth * sixth
                shine = gloss[i] * (np.float32(0.35) * sixth + twelfth * twelfth)
            else:
                cosine = max(nx * hx + ny * hy + nz * hz, _zero)
                square = cosine * cosine / half
                fourth = square * square
                broad = fourth * fourth * fourth
                sharp = broad * broad
                sharp = sharp * sharp
                sharp = sharp * sharp
                shine = gloss[i] * (
                    np.float32(0.35) * broad * (_one - gloss[i])
                    + sharp * (np.float32(0.3) + np.float32(1.5) * gloss[i])
                )
            shine = shine * lamps[k, 7] * math.sqrt(diffuse)
            glint_red += shine * lamps[k, 3]
            glint_green += shine * lamps[k, 4]
            glint_blue += shine * lamps[k, 5]

        edge = min(max(_one - abs(facing), _zero), _one)
        rim = settings[RIM] * edge * edge * edge * max(np.float32(0.4) + np.float32(0.6) * ny, _zero) * open_sky
        for c in range(3):
            base = albedo[i, c] * albedo[i, c]
            light = (red if c == 0 else green if c == 1 else blue) + rim
            glint = glint_red if c == 0 else glint_green if c == 1 else glint_blue
            # A highlight has the lamp's colour on skin and wet things; hair tints it.
            if is_hair[i]:
                glint = glint * settings[HAIR_HIGHLIGHT] * (np.float32(0.15) + np.float32(1.6) * base)
            else:
                glint = glint * settings[HIGHLIGHT]
            colours[i, c] = math.sqrt(min(max(base * light + glint, _zero), _one))
