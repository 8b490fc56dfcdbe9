"""Numba kernels that prepare blending: what each Gaussian is on the image, and which tiles list it, nearest first.

They see numpy arrays only and know neither torch, autograd nor threads. A kernel whose first arguments are `task` and
`tasks` does that share of its work; the shares write to different places, in any order or at once.
"""

from __future__ import annotations

import math

import numpy as np

from degstalk_ns.rasterization.compiled import helper, kernel
from degstalk_ns.rasterization.rules import RULES

TILE = 32
"""Pixels: side of the squares that have a list each. Whole multiples of the rules' tiles, whose borders bound what a
Gaussian may touch; a list then serves more pixels, and a block's bit in a 64-bit number says which of them."""
BLOCK = 4
BLOCKS_ACROSS = TILE // BLOCK
BLOCKS = BLOCKS_ACROSS**2
RULE_TILE = RULES.tile_size
MIN_ALPHA = RULES.min_alpha
RADIX_BITS = 11
"""Of a depth, sorted at a time: three passes over float32, with counters that stay in the first-level cache."""
LARGEST_ELLIPSE = 4096.0
"""Pixels: reach beyond which an ellipse is drawn in all of its square: float32 no longer says where its edge is."""
LOG2E = 1.4426950408889634

# Columns of one Gaussian's row in `splats`, before its colours. Its alpha at a pixel that lies (dx, dy) before its
# centre is OPACITY 2^(A dx^2 + B dx dy + C dy^2), drawn if the exponent is not below FAINT (nor above 0).
G_X, G_Y, G_A, G_B, G_C, G_OPACITY, G_FAINT = range(7)
# The square it is drawn in, pixels: gsplat's whole tiles.
G_LEFT, G_RIGHT, G_TOP, G_BOTTOM = range(7, 11)
# The ellipse that it is drawn in: at height h over its centre, it lies between -SLANT h -+ sqrt(INSIDE - ALONG h^2),
# |h| <= TALL, and is widest to the right at h = AT.
G_SLANT, G_INSIDE, G_ALONG, G_AT, G_TALL = range(11, 16)
GEOMETRY = 16


@kernel
def describe(  # type: ignore[no-untyped-def]
    task, tasks, means2d, conics, opacities, radii, colors, width, height, splats, spans, counts
):
    """Fill splats [C * N, GEOMETRY + D] (see above), spans [C * N, 4] (first and last + 1 column and row of tiles) and
    counts [C * N] (tiles that list it; 0: never drawn). The other arrays are [C * N, ...]."""
    total = radii.shape[0]
    for i in range(task * total // tasks, (task + 1) * total // tasks):
        counts[i] = 0
        opacity = float(opacities[i])
        if radii[i] <= 0 or not opacity >= MIN_ALPHA:
            continue
        u, v, radius = float(means2d[i, 0]), float(means2d[i, 1]), float(radii[i])
        a, b, c = float(conics[i, 0]), float(conics[i, 1]), float(conics[i, 2])
        x0 = max(0.0, math.floor(u / RULE_TILE - radius / RULE_TILE)) * RULE_TILE
        y0 = max(0.0, math.floor(v / RULE_TILE - radius / RULE_TILE)) * RULE_TILE
        x1 = min(math.ceil(u / RULE_TILE + radius / RULE_TILE) * RULE_TILE, width + RULE_TILE - 1)
        y1 = min(math.ceil(v / RULE_TILE + radius / RULE_TILE) * RULE_TILE, height + RULE_TILE - 1)
        G = splats[i]
        G[G_LEFT], G[G_RIGHT], G[G_TOP], G[G_BOTTOM] = x0, x1, y0, y1
        G[G_X], G[G_Y], G[G_OPACITY] = means2d[i, 0], means2d[i, 1], opacities[i]
        G[G_A], G[G_B], G[G_C] = -0.5 * LOG2E * a, -LOG2E * b, -0.5 * LOG2E * c
        brightness = math.log(opacity / MIN_ALPHA)
        G[G_FAINT] = -LOG2E * brightness
        level = 2.0 * brightness * 1.001 + 1e-3  # a little wider, for rounding
        determinant = a * c - b * b
        wide = tall = math.inf
        per_determinant = per_a = per_c = 0.0
        if determinant > 1e-12 * a * c:
            shared = 1.0 / (a * c * determinant)  # one division for three
            per_determinant, per_a, per_c = a * c * shared, c * determinant * shared, a * determinant * shared
            wide, tall = math.sqrt(level * c * per_determinant), math.sqrt(level * a * per_determinant)
        if max(wide, tall) < LARGEST_ELLIPSE:
            G[G_SLANT], G[G_INSIDE], G[G_ALONG] = b * per_a, level * per_a, determinant * per_a * per_a
            G[G_AT], G[G_TALL] = -b * wide * per_c, tall
            x0, x1 = max(x0, u - wide - 1.0), min(x1, u + wide + 1.0)
            y0, y1 = max(y0, v - tall - 1.0), min(y1, v + tall + 1.0)
        else:
            G[G_SLANT], G[G_INSIDE], G[G_ALONG], G[G_AT], G[G_TALL] = 0.0, 1e30, 0.0, 0.0, 1e30
        x1, y1 = min(x1, width), min(y1, height)
        if x0 >= x1 or y0 >= y1:
            continue
        first_column, last_column = int(x0) // TILE, int(math.ceil(x1) + (TILE - 1)) // TILE
        first_row, last_row = int(y0) // TILE, int(math.ceil(y1) + (TILE - 1)) // TILE
        spans[i, 0], spans[i, 1], spans[i, 2], spans[i, 3] = first_column, last_column, first_row, last_row
        for k in range(colors.shape[1]):
            G[GEOMETRY + k] = colors[i, k]
        touched = (last_column - first_column) * (last_row - first_row)
        if _is_long(spans, i):
            touched = 0
            for row in range(first_row, last_row):
                first, last = _columns(splats, spans, i, row)
                touched += last - first
        counts[i] = touched


@helper
def _is_long(spans, i):  # type: ignore[no-untyped-def]
    """Whether a Gaussian, perhaps aslant, is listed only where its ellipse passes and not in its whole rectangle."""
    return spans[i, 1] - spans[i, 0] > 2 and spans[i, 3] - spans[i, 2] > 2


@helper
def _columns(splats, spans, i, row):  # type: ignore[no-untyped-def]
    """First and last + 1 tile of a row of tiles that list the long Gaussian i, with a pixel to spare."""
    first, last = np.int64(spans[i, 0]), np.int64(spans[i, 1])
    x, slant = float(splats[i, G_X]), float(splats[i, G_SLANT])
    inside, along = float(splats[i, G_INSIDE]), float(splats[i, G_ALONG])
    low = float(row * TILE) - splats[i, G_Y]
    high = low + TILE
    at = float(splats[i, G_AT])
    right_at, left_at = min(max(at, low), high), min(max(-at, low), high)
    right = math.sqrt(max(0.0, inside - along * right_at * right_at)) - slant * right_at
    left = -math.sqrt(max(0.0, inside - along * left_at * left_at)) - slant * left_at
    left_tile, right_tile = (x + left - 1.0) / TILE, (x + right + 1.0) / TILE
    if left_tile > first:
        first = np.int64(min(left_tile, float(last)))
    if right_tile < last - 1:
        last = max(np.int64(math.floor(max(right_tile, -1.0))) + 1, first)
    return first, last


@kernel
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


@kernel
def count_lists(task, tasks, splats, spans, counts, order, per_camera, tiles_x, tiles_y, histogram):  # type: ignore[no-untyped-def]
    """Add to histogram [tasks, C * tiles] how many of this task's share of `order` each tile lists."""
    total = order.shape[0]
    for rank in range(task * total // tasks, (task + 1) * total // tasks):
        i = order[rank]
        base = (i // per_camera) * tiles_x * tiles_y if per_camera < splats.shape[0] else 0
        if _is_long(spans, i):
            for row in range(spans[i, 2], spans[i, 3]):
                first, last = _columns(splats, spans, i, row)
                for column in range(first, last):
                    histogram[task, np.uint64(base + row * tiles_x + column)] += 1
        else:
            # One loop, not two: most are listed a few times, and the end of a short loop is hard to foresee.
            across = spans[i, 1] - spans[i, 0]
            tile, column = base + spans[i, 2] * tiles_x + spans[i, 0], 0
            for _ in range(counts[i]):
                histogram[task, np.uint64(tile)] += 1
                column += 1
                end_of_row = column == across
                tile += tiles_x - across + 1 if end_of_row else 1
                column = 0 if end_of_row else column


@kernel
def lay_out(histogram, starts, counts, offsets):  # type: ignore[no-untyped-def]
    """Turn counts per task and tile into each task's first slot in each tile's list; fill starts [tiles + 1] and
    offsets [C * N + 1], the first intersection of each Gaussian."""
    at = 0
    for tile in range(histogram.shape[1]):
        starts[tile] = at
        for task in range(histogram.shape[0]):
            here = histogram[task, tile]
            histogram[task, tile] = at
            at += here
    starts[histogram.shape[1]] = at
    at = 0
    for i in range(counts.shape[0]):
        offsets[i] = at
        at += counts[i]
    offsets[counts.shape[0]] = at


@kernel
def fill_lists(task, tasks, splats, spans, counts, order, per_camera, tiles_x, tiles_y, offsets, slots, lists, entries):  # type: ignore[no-untyped-def]
    """Fill each tile's list, nearest first, with the Gaussians' indices, and with the numbers of the intersections,
    which are counted Gaussian by Gaussian."""
    total = order.shape[0]
    for rank in range(task * total // tasks, (task + 1) * total // tasks):
        i = order[rank]
        base = (i // per_camera) * tiles_x * tiles_y if per_camera < splats.shape[0] else 0
        e = offsets[i]
        if _is_long(spans, i):
            for row in range(spans[i, 2], spans[i, 3]):
                first, last = _columns(splats, spans, i, row)
                for column in range(first, last):
                    at = slots[task, np.uint64(base + row * tiles_x + column)]
                    slots[task, np.uint64(base + row * tiles_x + column)] = at + 1
                    lists[np.uint64(at)] = i
                    entries[np.uint64(at)] = e
                    e += 1
        else:
            across = spans[i, 1] - spans[i, 0]
            tile, column = base + spans[i, 2] * tiles_x + spans[i, 0], 0
            for _ in range(counts[i]):
                at = slots[task, np.uint64(tile)]
                slots[task, np.uint64(tile)] = at + 1
                lists[np.uint64(at)] = i
                entries[np.uint64(at)] = e
                e += 1
                column += 1
                end_of_row = column == across
                tile += tiles_x - across + 1 if end_of_row else 1
                column = 0 if end_of_row else column
