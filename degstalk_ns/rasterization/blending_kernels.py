"""Numba kernels that blend: Gaussians over the pixels of a tile, nearest first, and the gradient of that.

They see numpy arrays only and know neither torch, autograd nor threads; see `binning_kernels` for what they are given.
A tile is a square of blocks, a block 4 x 4 pixels, one lane each. For each Gaussian of a tile's list the bits of one
number say which blocks its ellipse touches, and only those are visited.
"""

from __future__ import annotations

import numpy as np

from degstalk_ns.kernels.compiled import helper, kernel
from degstalk_ns.kernels.lanes import (
    LANES,
    exp2,
    larger,
    load,
    lowest_bit,
    magnitude,
    prefetch,
    root,
    row_bits,
    select,
    smaller,
    some,
    spread,
    store,
    store_block,
    total,
    totals,
    whole_below,
)
from degstalk_ns.rasterization.binning_kernels import (
    BLOCK,
    BLOCKS,
    BLOCKS_ACROSS,
    FAINT,
    G_ALONG,
    G_AT,
    G_BOTTOM,
    G_BRIGHT,
    G_INSIDE,
    G_LEFT,
    G_OPACITY,
    G_P,
    G_Q,
    G_R,
    G_RIGHT,
    G_SLANT,
    G_TALL,
    G_TOP,
    G_X,
    G_Y,
    GEOMETRY,
    TILE,
)
from degstalk_ns.rasterization.rules import RULES

MAX_ALPHA = RULES.max_alpha
MIN_TRANSMITTANCE = RULES.min_transmittance
EDGE = 0.01
"""Pixels that an ellipse is widened by when its blocks are sought, far above float32's rounding of its edge."""
GATHERED_AHEAD = 64
"""Gaussians of a list whose blocks are sought before the first of them is blended: the search takes long, but many can
run at once."""
NEVER = 1e9
"""Place in a tile's list where a pixel stops that is never full."""

# Scratch of one worker: for each block these rows of LANES values, then one per channel. Not a plane of the tile for
# each: stores would then lie a whole page's length from loads that follow, and be taken for the same place.
PX = 0 * LANES  # pixel centres relative to the tile's corner
PY = 1 * LANES
LIGHT_LEFT = 2 * LANES  # light left; forward: negative once the pixel takes nothing more
STOP = 3 * LANES  # 1-based place in the list of the Gaussian that was too much for the pixel
BEHIND = 4 * LANES  # backward: loss carried by everything behind the current Gaussian
CHANNEL = 5 * LANES
SCRATCH_ROWS = 5
KEPT = 2 * LANES
"""LIGHT_LEFT and STOP of a block, kept for the backward pass."""

# Columns of one intersection's row in `partial`, before its colours: sums over pixels of g = d loss / d sigma, and of
# g times dx, dy, dx^2, dx dy, dy^2.
SUMS = 6
REGISTER_CHANNELS = 4
"""Channels whose gradients are summed in registers; further ones in memory."""


@helper
def _fill_coordinates(S, step):  # type: ignore[no-untyped-def]
    for block in range(BLOCKS):
        for lane in range(LANES):
            S[block * step + PX + lane] = block % BLOCKS_ACROSS * BLOCK + lane % BLOCK + 0.5
            S[block * step + PY + lane] = block // BLOCKS_ACROSS * BLOCK + lane // BLOCK + 0.5


@helper
def _place(tile, tiles_x, tiles_y, width, height):  # type: ignore[no-untyped-def]
    """Camera, the tile's corner, and how much of it lies in the image."""
    camera = tile // (tiles_x * tiles_y)
    top = (tile // tiles_x) % tiles_y * TILE
    left = tile % tiles_x * TILE
    return camera, left, top, min(TILE, width - left), min(TILE, height - top)


@helper
def _touched_blocks(G, x, y, left, top, bands, sides, margins):  # type: ignore[no-untyped-def]
    """Bits of the blocks of a tile whose pixel centres the Gaussian's ellipse can reach.

    x, y: its centre relative to the tile's corner. bands: number of the row of blocks that a lane looks at; sides: -1
    in the lanes that seek its left edge, the right edge of its mirror image, 1 in the others; margins: what is added to
    an edge for the first or last pixel of a block.
    In a band the ellipse reaches farthest right at the height of its rightmost point, or where that lies outside, at
    the nearer border.
    """
    low = bands * BLOCK + (0.5 - y)
    high = low + (BLOCK - 1.0)
    at = smaller(larger(low, sides * G[G_AT]), high)
    reach = root(larger(G[G_INSIDE] - G[G_ALONG] * at * at, 0.0)) - sides * (G[G_SLANT] * at)
    edge = whole_below((reach + sides * x + margins) * (1.0 / BLOCK))
    # gsplat's own bound, in whole blocks
    first = max((G[G_LEFT] - left) * (1.0 / BLOCK), 0.0)
    last = min((G[G_RIGHT] - left) * (1.0 / BLOCK), float(BLOCKS_ACROSS)) - 1.0
    edge = larger(smaller(edge, select(sides < 0.0, spread(G.dtype.type(-first)), last)), -BLOCKS_ACROSS)
    tall = G[G_TALL] + EDGE
    reached = (low <= tall) & (high >= -tall)
    reached = reached & (bands * BLOCK >= G[G_TOP] - top) & (bands * BLOCK < G[G_BOTTOM] - top)
    return row_bits(select(reached, edge, -BLOCKS_ACROSS))


@kernel
def blend_forward(  # type: ignore[no-untyped-def]
    task, tasks, splats, lists, starts, tiles_x, tiles_y, width, height, channels, backgrounds, scratch, renders,
    alphas, kept, masks,
):  # fmt: skip
    """Blend every tile into renders [C * H * W * D] and alphas [C * H * W].

    kept [C * tiles, BLOCKS, KEPT] and masks [E] (uint64: the blocks that a list's entry was blended into) receive what
    the backward pass needs; kept has no rows if there will be none. scratch [tasks, ...].
    """
    keeps = kept.shape[0] > 0
    S = scratch[task]
    real = S.dtype.type
    zero, one, max_alpha, min_light = real(0.0), real(1.0), real(MAX_ALPHA), real(MIN_TRANSMITTANCE)
    faint = real(FAINT)
    depth = len(channels)
    step = ((SCRATCH_ROWS + depth) | 1) * LANES
    _fill_coordinates(S, step)
    for lane in range(LANES):
        is_right = lane >= BLOCKS_ACROSS
        S[LIGHT_LEFT + lane] = lane % BLOCKS_ACROSS
        S[STOP + lane] = 1.0 if is_right else -1.0
        # The last block whose first pixel lies inside; mirrored, the first block whose last pixel does.
        S[BEHIND + lane] = EDGE - 0.5 if is_right else EDGE + BLOCK - 0.5
    bands, sides, margins = load(S, LIGHT_LEFT), load(S, STOP), load(S, BEHIND)
    for tile in range(task, starts.shape[0] - 1, tasks):  # neighbours cost alike: interleaving balances the tasks
        camera, left, top, columns, rows = _place(tile, tiles_x, tiles_y, width, height)
        start, end = starts[tile], starts[tile + 1]
        if start == end:
            for row in range(top, top + rows):
                first = (camera * height + row) * width + left
                for pixel in range(first, first + columns):
                    alphas[pixel] = zero
                    for k in range(depth):
                        renders[pixel * depth + k] = backgrounds[camera, k]
            continue
        alive = np.uint64(0)
        for b in range(BLOCKS):
            p = b * step
            in_image = (load(S, PX + p) < real(columns)) & (load(S, PY + p) < real(rows))
            store(S, LIGHT_LEFT + p, select(in_image, spread(one), -zero))
            store(S, STOP + p, spread(real(NEVER)))
            for k in range(depth):
                store(S, CHANNEL + k * LANES + p, spread(zero))
            if some(in_image):
                alive |= np.uint64(1) << np.uint64(b)

        for i in range(start, end):
            if (i - start) % GATHERED_AHEAD == 0:
                for j in range(i, min(i + GATHERED_AHEAD, end)):
                    prefetch(splats, lists[j])
                for b in range(BLOCKS):
                    if not some(load(S, LIGHT_LEFT + b * step) > zero):
                        alive &= ~(np.uint64(1) << np.uint64(b))
                for j in range(i, min(i + GATHERED_AHEAD, end)):
                    G = splats[lists[j]]
                    x, y = G[G_X] - real(left), G[G_Y] - real(top)
                    masks[j] = (
                        _touched_blocks(G, x, y, real(left), real(top), bands, sides, margins)
                        if alive != 0
                        else np.uint64(0)
                    )
            mask = masks[i] & alive
            masks[i] = mask
            G = splats[lists[i]]
            u_p, u_q, v_r, bright = G[G_P], G[G_Q], G[G_R], G[G_BRIGHT]
            x, y = G[G_X] - real(left), G[G_Y] - real(top)
            u_0, v_0 = u_p * x + u_q * y, v_r * y
            place = real(i - start + 1)
            while mask != 0:
                block = lowest_bit(mask)
                mask &= mask - np.uint64(1)
                p = block * step
                u = u_0 - u_p * load(S, PX + p) - u_q * load(S, PY + p)
                v = v_0 - v_r * load(S, PY + p)
                power = bright - u * u - v * v
                alpha = select(power >= faint, smaller(exp2(power), max_alpha), zero)
                light = load(S, LIGHT_LEFT + p)
                left_over = light - alpha * light  # a full pixel's is negative
                fits = left_over > min_light
                store(S, LIGHT_LEFT + p, select(fits, left_over, -magnitude(light)))
                weight = select(fits, alpha * light, zero)
                if keeps:
                    stop = load(S, STOP + p)
                    store(S, STOP + p, select(fits, stop, smaller(stop, place)))
                for k in range(depth):
                    row = CHANNEL + k * LANES + p
                    store(S, row, load(S, row) + weight * G[GEOMETRY + k])

        for b in range(BLOCKS):
            row, column = b // BLOCKS_ACROSS * BLOCK, b % BLOCKS_ACROSS * BLOCK
            if row >= rows or column >= columns:
                continue
            p = b * step
            light = magnitude(load(S, LIGHT_LEFT + p))
            if keeps:
                kept_here = kept[tile, b]
                store(kept_here, 0, light)
                store(kept_here, LANES, load(S, STOP + p))
            at = (camera * height + top + row) * width + left + column
            # A whole block of the usual three channels goes from registers to the picture.
            if row + BLOCK <= rows and column + BLOCK <= columns and depth == 3:
                store_block(alphas, at, width, (one - light,))
                c0 = load(S, CHANNEL + p) + light * backgrounds[camera, 0]
                c1 = load(S, CHANNEL + LANES + p) + light * backgrounds[camera, 1]
                c2 = load(S, CHANNEL + 2 * LANES + p) + light * backgrounds[camera, 2]
                store_block(renders, at * depth, width * depth, (c0, c1, c2))
                continue
            store(S, LIGHT_LEFT + p, light)
            for lane in range(LANES):
                x_in, y_in = lane % BLOCK, lane // BLOCK
                if column + x_in < columns and row + y_in < rows:
                    pixel = at + y_in * width + x_in
                    alphas[pixel] = one - S[LIGHT_LEFT + p + lane]
                    for k in range(depth):
                        worth = S[CHANNEL + k * LANES + p + lane] + S[LIGHT_LEFT + p + lane] * backgrounds[camera, k]
                        renders[pixel * depth + k] = worth


@kernel
def blend_backward(  # type: ignore[no-untyped-def]
    task, tasks, splats, lists, entries, starts, masks, tiles_x, tiles_y, channels, shaping, backgrounds, scratch,
    kept, v_renders, v_alphas, partial,
):  # fmt: skip
    """Fill partial [E, a multiple of LANES] from d loss / d renders [C, H, W, D] and d loss / d alphas [C, H, W].

    Only the first len(shaping) channels have a part in the gradient of alpha.

    Each tile's list is walked from the back. With T the light that reaches a Gaussian, s its colour's worth and B what
    lies behind it (light left times what a unit of it is worth): d loss / d alpha = T s - B / (1 - alpha).
    """
    height, width = v_alphas.shape[1], v_alphas.shape[2]
    S = scratch[task]
    real = S.dtype.type
    zero, one, max_alpha, faint = real(0.0), real(1.0), real(MAX_ALPHA), real(FAINT)
    depth = len(channels)
    step = ((SCRATCH_ROWS + depth) | 1) * LANES
    sums_at = BLOCKS * step
    _fill_coordinates(S, step)
    for tile in range(task, starts.shape[0] - 1, tasks):
        camera, left, top, columns, rows = _place(tile, tiles_x, tiles_y, width, height)
        start, end = starts[tile], starts[tile + 1]
        if start == end:
            continue
        for b in range(BLOCKS):
            p = b * step
            for j in range(KEPT):
                S[LIGHT_LEFT + p + j] = kept[tile, b, j]
            for j in range((1 + depth) * LANES):
                S[BEHIND + p + j] = zero
        for row in range(rows):
            for column in range(columns):
                p = (row // BLOCK * BLOCKS_ACROSS + column // BLOCK) * step + row % BLOCK * BLOCK + column % BLOCK
                worth_here = -v_alphas[camera, top + row, left + column]
                for k in range(depth):
                    value = v_renders[camera, top + row, left + column, k]
                    S[CHANNEL + k * LANES + p] = value
                    if k < len(shaping):
                        worth_here += value * backgrounds[camera, k]
                S[BEHIND + p] = worth_here * S[LIGHT_LEFT + p]

        for i in range(end - 1, start - 1, -1):
            if (end - 1 - i) % GATHERED_AHEAD == 0:
                for j in range(i, max(i - GATHERED_AHEAD, start - 1), -1):
                    prefetch(splats, lists[j])
                    prefetch(partial, entries[j])
            row_sums = partial[entries[i]]
            mask = masks[i]
            if mask == 0:
                for at in range(0, partial.shape[1], LANES):
                    store(row_sums, at, spread(zero))
                continue
            G = splats[lists[i]]
            x, y = G[G_X] - real(left), G[G_Y] - real(top)
            u_p, u_q, v_r, bright = G[G_P], G[G_Q], G[G_R], G[G_BRIGHT]
            place = real(i - start + 1)
            m = mx = my = mxx = mxy = myy = spread(zero)
            c0 = c1 = c2 = c3 = spread(zero)
            for k in range(REGISTER_CHANNELS, depth):
                store(S, sums_at + k * LANES, spread(zero))
            while mask != 0:
                block = lowest_bit(mask)
                mask &= mask - np.uint64(1)
                p = block * step
                dx = x - load(S, PX + p)
                dy = y - load(S, PY + p)
                u, v = u_p * dx + u_q * dy, v_r * dy
                power = bright - u * u - v * v
                raw = exp2(power)
                seen = (power >= faint) & (load(S, STOP + p) > place)
                alpha = select(seen, smaller(raw, max_alpha), zero)
                rest = one / (one - alpha)
                light = load(S, LIGHT_LEFT + p) * rest
                store(S, LIGHT_LEFT + p, light)
                weight = alpha * light
                worth = spread(zero)
                for k in range(len(shaping)):
                    worth += load(S, CHANNEL + k * LANES + p) * G[GEOMETRY + k]
                behind = load(S, BEHIND + p)
                store(S, BEHIND + p, behind + weight * worth)
                g = select(raw <= max_alpha, alpha * (behind * rest - light * worth), zero)
                gx = g * dx
                gy = g * dy
                m += g
                mx += gx
                my += gy
                mxx += gx * dx
                mxy += gx * dy
                myy += gy * dy
                if depth > 0:
                    c0 += weight * load(S, CHANNEL + p)
                if depth > 1:
                    c1 += weight * load(S, CHANNEL + LANES + p)
                if depth > 2:
                    c2 += weight * load(S, CHANNEL + 2 * LANES + p)
                if depth > 3:
                    c3 += weight * load(S, CHANNEL + 3 * LANES + p)
                for k in range(REGISTER_CHANNELS, depth):
                    sums = load(S, sums_at + k * LANES) + weight * load(S, CHANNEL + k * LANES + p)
                    store(S, sums_at + k * LANES, sums)
            store(row_sums, 0, totals((m, mx, my, mxx, mxy, myy, c0, c1, c2, c3)))
            for k in range(REGISTER_CHANNELS, depth):
                row_sums[SUMS + k] = total(load(S, sums_at + k * LANES))


@kernel
def gather_gradients(  # type: ignore[no-untyped-def]
    task, tasks, splats, conics, offsets, partial, v_means2d, v_conics, v_opacities, v_colors
):
    """Sum each Gaussian's intersections, and fill v_means2d [C * N, 2], v_conics, v_opacities, v_colors with them."""
    count = conics.shape[0]
    depth = v_colors.shape[1]
    sums = np.empty(partial.shape[1], partial.dtype)
    for i in range(task * count // tasks, (task + 1) * count // tasks):
        for at in range(0, partial.shape[1], LANES):
            several = spread(partial.dtype.type(0.0))
            for e in range(offsets[i], offsets[i + 1]):
                several += load(partial[e], at)
            store(sums, at, several)
        v_means2d[i, 0] = conics[i, 0] * sums[1] + conics[i, 1] * sums[2]
        v_means2d[i, 1] = conics[i, 1] * sums[1] + conics[i, 2] * sums[2]
        v_conics[i, 0] = 0.5 * sums[3]
        v_conics[i, 1] = sums[4]
        v_conics[i, 2] = 0.5 * sums[5]
        # alpha = opacity exp(-sigma): what moves one by a factor moves the other by its logarithm
        v_opacities[i] = -sums[0] / splats[i, G_OPACITY] if offsets[i + 1] > offsets[i] else 0.0
        for k in range(depth):
            v_colors[i, k] = sums[SUMS + k]
