"""Numba kernels that prepare blending: what each Gaussian is on the image, and which tiles list it, nearest first.

They see numpy arrays only and know neither torch, autograd nor threads. A kernel whose first arguments are `task` and
`tasks` does that share of its work; the shares write to different places, in any order or at once.
"""

from __future__ import annotations

import math

import numpy as np

from degstalk_ns.kernels.compiled import helper, kernel
from degstalk_ns.kernels.lanes import (
    LANES,
    larger,
    load_column,
    log2,
    root,
    select,
    smaller,
    store_column,
    store_rows,
    whole_below,
)
from degstalk_ns.rasterization.rules import RULES

TILE = 32
"""Pixels: side of the squares that have a list each. Whole multiples of the rules' tiles, whose borders bound what a
Gaussian may touch; a list then serves more pixels, and a block's bit in a 64-bit number says which of them."""
BLOCK = 4
BLOCKS_ACROSS = TILE // BLOCK
BLOCKS = BLOCKS_ACROSS**2
RULE_TILE = RULES.tile_size
MIN_ALPHA = RULES.min_alpha
FAINT = math.log2(MIN_ALPHA)
RADIX_BITS = 11
"""Of a depth, sorted at a time: at most three passes over float32, with counters that stay in the first-level cache."""
NOBODY = -1
"""Where the list of a camera's Gaussians is at its end."""
LARGEST_ELLIPSE = 4096.0
"""Pixels: reach beyond which an ellipse is drawn in all of its square: float32 no longer says where its edge is."""
LOG2E = 1.4426950408889634
HALF_LOG2E_ROOT = math.sqrt(0.5 * LOG2E)

# Columns of one Gaussian's row in `splats`, before its colours. Its alpha at a pixel that lies (dx, dy) before its
# centre is 2^(BRIGHT - (P dx + Q dy)^2 - (R dy)^2): squares, so that no rounding makes it brighter than its opacity.
G_X, G_Y, G_P, G_Q, G_R, G_BRIGHT, G_OPACITY = range(7)
# The square it is drawn in, pixels: gsplat's whole tiles.
G_LEFT, G_RIGHT, G_TOP, G_BOTTOM = range(7, 11)
# The ellipse that it is drawn in: at height h over its centre, it lies between -SLANT h -+ sqrt(INSIDE - ALONG h^2),
# |h| <= TALL, and is widest to the right at h = AT.
G_SLANT, G_INSIDE, G_ALONG, G_AT, G_TALL = range(11, 16)
GEOMETRY = 16


@kernel
def describe_and_order(  # type: ignore[no-untyped-def]
    task, tasks, keys, means2d, conics, opacities, radii, colors, width, height, splats, spans, counts, sort_keys,
    sort_indices,
):  # fmt: skip
    """Two things that need not wait for each other, so that sorting keeps one core busy and not all waiting.

    The first tasks, one a camera, sort: sort_indices[0] [C * N] receives, camera by camera, the indices of the
    Gaussians of a radius above 0, nearest first, ties by index (a radix sort), then NOBODY. keys [C, N]: the bits of
    positive depths as unsigned integers, which order as the depths do. sort_indices and sort_keys are [2, C * N].

    The others fill splats [C * N, GEOMETRY + D] (see above), spans [C * N, 4] (first and last + 1 column and row of
    tiles) and counts [C * N] (tiles that list it; 0: never drawn). The other arrays are [C * N, ...].
    """
    cameras = keys.shape[0]
    if task < cameras:
        _order(task, keys, radii, sort_keys, sort_indices)
        return
    task, tasks = task - cameras, tasks - cameras
    total = radii.shape[0]
    end = (task + 1) * total // tasks
    for start in range(task * total // tasks, end, LANES):
        last = end - 1
        opacity, radius = load_column(opacities, start, last, 0), load_column(radii, start, last, 0)
        drawn = (radius > 0.0) & (opacity >= MIN_ALPHA)
        u, v = load_column(means2d, start, last, 0), load_column(means2d, start, last, 1)
        a, b, c = (
            load_column(conics, start, last, 0),
            load_column(conics, start, last, 1),
            load_column(conics, start, last, 2),
        )
        left = larger(whole_below((u - radius) * (1.0 / RULE_TILE)), 0.0) * RULE_TILE
        top = larger(whole_below((v - radius) * (1.0 / RULE_TILE)), 0.0) * RULE_TILE
        right = smaller(-whole_below((u + radius) * (-1.0 / RULE_TILE)) * RULE_TILE, width + RULE_TILE - 1)
        bottom = smaller(-whole_below((v + radius) * (-1.0 / RULE_TILE)) * RULE_TILE, height + RULE_TILE - 1)

        determinant = a * c - b * b
        per_root = HALF_LOG2E_ROOT / root(a)
        bright = log2(opacity)
        level = (2.0 / LOG2E * 1.001) * (bright - FAINT) + 1e-3  # a little wider, for rounding
        per_determinant, per_a, per_c = 1.0 / determinant, 1.0 / a, 1.0 / c
        wide, tall = root(level * c * per_determinant), root(level * a * per_determinant)
        bounded = (determinant > 1e-12 * a * c) & (larger(wide, tall) < LARGEST_ELLIPSE)
        columns = (
            u,
            v,
            a * per_root,
            b * per_root,
            root(larger(determinant, 0.0)) * per_root,
            bright,
            opacity,
            left,
            right,
            top,
            bottom,
            select(bounded, b * per_a, 0.0),
            select(bounded, level * per_a, 1e30),
            select(bounded, determinant * per_a * per_a, 0.0),
            select(bounded, -b * wide * per_c, 0.0),
            select(bounded, tall, 1e30),
        )
        store_rows(splats, start, last, columns)

        wide, tall = select(bounded, wide + 1.0, 1e30), select(bounded, tall + 1.0, 1e30)
        left, right = larger(left, u - wide), smaller(smaller(right, u + wide), width)
        top, bottom = larger(top, v - tall), smaller(smaller(bottom, v + tall), height)
        drawn = drawn & (left < right) & (top < bottom)
        first_column, last_column = whole_below(left * (1.0 / TILE)), -whole_below(right * (-1.0 / TILE))
        first_row, last_row = whole_below(top * (1.0 / TILE)), -whole_below(bottom * (-1.0 / TILE))
        touched = (last_column - first_column) * (last_row - first_row)
        store_column(spans, start, last, 0, select(drawn, first_column, 0.0))
        store_column(spans, start, last, 1, select(drawn, last_column, 0.0))
        store_column(spans, start, last, 2, select(drawn, first_row, 0.0))
        store_column(spans, start, last, 3, select(drawn, last_row, 0.0))
        store_column(counts, start, last, 0, select(drawn, touched, 0.0))
        for i in range(start, min(start + LANES, end)):
            for k in range(colors.shape[1]):
                splats[i, GEOMETRY + k] = colors[i, k]
            if _is_long(spans, i):
                across = 0
                for row in range(spans[i, 2], spans[i, 3]):
                    first, last_tile = _columns(splats, spans, i, row)
                    across += last_tile - first
                counts[i] = across


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


@helper
def _order(camera, keys, radii, sort_keys, sort_indices):  # type: ignore[no-untyped-def]
    """See `describe_and_order`, for one camera."""
    per_camera = keys.shape[1]
    base = camera * per_camera
    visible = 0
    least = most = keys.dtype.type(0)
    for n in range(per_camera):
        if radii[base + n] > 0:
            key = keys[camera, n]
            least = key if visible == 0 else min(least, key)
            most = max(most, key)
            sort_keys[0, base + visible] = key
            sort_indices[0, base + visible] = base + n
            visible += 1
    buckets = np.empty(1 << RADIX_BITS, np.int64)
    digits = keys.dtype.type((1 << RADIX_BITS) - 1)
    shift, source = 0, 0
    # A head is shallow: what its depths have in common is taken off, and a pass less is left.
    while shift < keys.itemsize * 8 and ((most - least) >> keys.dtype.type(shift)) > 0:
        places = keys.dtype.type(shift)
        for digit in range(1 << RADIX_BITS):
            buckets[digit] = 0
        for k in range(base, base + visible):
            buckets[((sort_keys[source, k] - least) >> places) & digits] += 1
        at = base
        for digit in range(1 << RADIX_BITS):
            here = buckets[digit]
            buckets[digit] = at
            at += here
        for k in range(base, base + visible):
            key = sort_keys[source, k]
            digit = ((key - least) >> places) & digits
            place = buckets[digit]
            buckets[digit] = place + 1
            sort_keys[1 - source, place] = key
            sort_indices[1 - source, place] = sort_indices[source, k]
        shift, source = shift + RADIX_BITS, 1 - source
    if source == 1:
        for k in range(base, base + visible):
            sort_indices[0, k] = sort_indices[1, k]
    for k in range(base + visible, base + per_camera):
        sort_indices[0, k] = NOBODY


@kernel
def count_lists(task, tasks, splats, spans, counts, order, per_camera, tiles_x, tiles_y, histogram):  # type: ignore[no-untyped-def]
    """Add to histogram [tasks, C * tiles] how many of this task's share of `order` each tile lists."""
    total = order.shape[0]
    for rank in range(task * total // tasks, (task + 1) * total // tasks):
        i = order[rank]
        if i == NOBODY:
            continue
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
def lay_out_lists(histogram, starts, counts, offsets):  # type: ignore[no-untyped-def]
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
    """Fill each tile's list, nearest first, with the Gaussians' indices, and `entries`, if it has any, with the numbers
    of the intersections, which are counted Gaussian by Gaussian."""
    keeps = entries.shape[0] > 0
    total = order.shape[0]
    for rank in range(task * total // tasks, (task + 1) * total // tasks):
        i = order[rank]
        if i == NOBODY:
            continue
        base = (i // per_camera) * tiles_x * tiles_y if per_camera < splats.shape[0] else 0
        e = offsets[i]
        if _is_long(spans, i):
            for row in range(spans[i, 2], spans[i, 3]):
                first, last = _columns(splats, spans, i, row)
                for column in range(first, last):
                    at = slots[task, np.uint64(base + row * tiles_x + column)]
                    slots[task, np.uint64(base + row * tiles_x + column)] = at + 1
                    lists[np.uint64(at)] = i
                    if keeps:
                        entries[np.uint64(at)] = e
                    e += 1
        else:
            across = spans[i, 1] - spans[i, 0]
            tile, column = base + spans[i, 2] * tiles_x + spans[i, 0], 0
            for _ in range(counts[i]):
                at = slots[task, np.uint64(tile)]
                slots[task, np.uint64(tile)] = at + 1
                lists[np.uint64(at)] = i
                if keeps:
                    entries[np.uint64(at)] = e
                e += 1
                column += 1
                end_of_row = column == across
                tile += tiles_x - across + 1 if end_of_row else 1
                column = 0 if end_of_row else column
