"""Compiled derivative of the compositing, back to front; `v_x` is dL/dx throughout.

As in Ye et al. ("gsplat", 2024, appendix) we walk the list backwards and undo T by division. What lies behind
splat i enters only by its product with the incoming gradient v, so one number B per pixel carries it:
dL/dalpha_i = T_i (c_i . v) - B_i / (1 - alpha_i), and B grows by w_i (c_i . v).
Seen from a splat, dL/ds of its pixels enters the gradients of centre and conic by its moments up to second order only.
"""

from __future__ import annotations

import math

import numpy as np

from das3r_ns.model.rasterizer.compositing_kernels import (
    HALF_ROWS,
    MAX_ALPHA,
    NARROW,
    U,
    alpha_of,
    half_rows_of,
    rows_of,
)
from das3r_ns.model.rasterizer.jit import kernel
from das3r_ns.model.rasterizer.lanes import broadcast, load, ramp, store, total, where_ge, where_gt
from das3r_ns.model.rasterizer.tiles import (
    CENTRE_X,
    CENTRE_Y,
    CONIC_XX,
    CONIC_XY,
    CONIC_YY,
    HALF_HEIGHT,
    HALF_WIDTH,
    MIN_ALPHA,
    OPACITY,
    REACH,
    SHEAR,
    SHRINK,
    TILE,
)

# Columns of a (splat, tile) pair's gradient, before those of the colours and of absgrad.
GEOMETRY_GRADS = 6  # centre x, centre y, conic xx, xy, yy, opacity


@kernel
def composite_backward(
    first_tile,
    stop_tile,
    tile_columns,
    starts,
    entries,
    slots,
    boxes,
    records,
    colors,
    background,
    transmittance,
    last,
    v_image,
    v_transmittance,
    absgrad,
    v_pairs,
):
    """Write the gradient of each (splat, tile) pair of tiles first_tile..stop_tile to its slot in `v_pairs`.

    Columns: GEOMETRY_GRADS, then the channels, then with `absgrad` the sums of |dL/dx| and |dL/dy| over pixels.
    """
    dtype = records.dtype.type
    height, width, channels = v_image.shape
    zero, one, half = dtype(0), dtype(1), dtype(0.5)
    max_alpha, min_alpha = dtype(MAX_ALPHA), dtype(MIN_ALPHA)
    # Rows of scratch: T, B, last, then 32 half rows of v per channel, then one row of colour gradient per channel.
    light, behind, final, seen = U(0), U(HALF_ROWS), U(2 * HALF_ROWS), U(3 * HALF_ROWS)
    paint = seen + U(channels * HALF_ROWS)
    scratch = np.empty((3 * HALF_ROWS + channels * HALF_ROWS + channels, 8), records.dtype)
    last_of_row = np.empty(HALF_ROWS, np.int64)

    for tile in range(first_tile, stop_tile):
        column, tile_row = tile % tile_columns, tile // tile_columns
        tile_x, tile_y = column * TILE, tile_row * TILE
        scratch[:] = zero
        last_of_row[:] = 0
        last_of_tile = 0
        for y in range(min(height - tile_y, TILE)):
            for x in range(min(width - tile_x, TILE)):
                row, lane = 2 * y + x // 8, x % 8
                t = transmittance[tile_y + y, tile_x + x]
                place = np.int64(last[tile_y + y, tile_x + x])
                last_of_row[row] = max(last_of_row[row], place)
                last_of_tile = max(last_of_tile, place)
                dot = v_transmittance[tile_y + y, tile_x + x]
                for k in range(channels):
                    v = v_image[tile_y + y, tile_x + x, k]
                    scratch[(3 + k) * HALF_ROWS + row, lane] = v
                    dot += v * background[k]
                scratch[row, lane] = t
                scratch[HALF_ROWS + row, lane] = t * dot
                scratch[2 * HALF_ROWS + row, lane] = dtype(place)

        for i in range(starts[tile + 1] - 1, starts[tile] - 1, -1):
            place = i - starts[tile] + 1
            m = U(entries[i])
            slot = U(slots[m] + (tile_row - boxes[m, 1]) * boxes[m, 2] + column - boxes[m, 0])
            if place > last_of_tile:
                for k in range(v_pairs.shape[1]):
                    v_pairs[slot, k] = zero
                continue
            mark = dtype(place)
            x = records[m, CENTRE_X] - dtype(tile_x) - half
            a, b, c = records[m, CONIC_XX], records[m, CONIC_XY], records[m, CONIC_YY]
            opacity = records[m, OPACITY]
            reach, shrink, shear = records[m, REACH], records[m, SHRINK], records[m, SHEAR]
            y0, y1 = rows_of(records[m, CENTRE_Y], records[m, HALF_HEIGHT], tile_y)
            ramp_x = ramp(-x)
            h0, h1 = half_rows_of(x, records[m, HALF_WIDTH])
            solve = h1 - h0 == 2 and records[m, HALF_WIDTH] > NARROW
            # Moments of dL/ds over the pixels.
            m0 = mx = my = mxx = mxy = myy = abs_x = abs_y = broadcast(zero)
            for k in range(channels):
                store(scratch, paint + U(k), broadcast(zero))
            for y in range(y0, y1):
                dy = dtype(tile_y + y) + half - records[m, CENTRE_Y]
                if solve:
                    square = reach - shrink * dy * dy
                    h0, h1 = half_rows_of(x - shear * dy, math.sqrt(square)) if square > 0 else (0, 0)
                for h in range(h0, h1):
                    row = U(2 * y + h)
                    if place > last_of_row[row]:
                        continue
                    dx = ramp_x + dtype(8 * h)
                    raw, alpha = alpha_of(dx, half * a, b * dy, half * c * dy * dy, opacity, max_alpha, min_alpha)
                    alpha = where_ge(load(scratch, final + row), mark, alpha, zero)
                    undo = one / (one - alpha)
                    t = load(scratch, light + row) * undo
                    weight = alpha * t
                    dot = broadcast(zero)
                    source = seen + row
                    for k in range(channels):
                        v = load(scratch, source)
                        dot = dot + v * colors[m, U(k)]
                        store(scratch, paint + U(k), load(scratch, paint + U(k)) + v * weight)
                        source += U(HALF_ROWS)
                    rest = load(scratch, behind + row)
                    store(scratch, light + row, t)
                    store(scratch, behind + row, rest + weight * dot)
                    # dalpha/ds is -alpha, and 0 where alpha is at its limit.
                    v_s = where_gt(raw, max_alpha, zero, alpha * (rest * undo - t * dot))
                    m0 = m0 + v_s
                    my = my + v_s * dy
                    myy = myy + v_s * (dy * dy)
                    v_s_dx = v_s * dx
                    mx = mx + v_s_dx
                    mxy = mxy + v_s_dx * dy
                    mxx = mxx + v_s_dx * dx
                    if absgrad:
                        v_x, v_y = v_s * (dx * a + b * dy), v_s * (dx * b + c * dy)
                        abs_x = abs_x + where_gt(v_x, zero, v_x, v_x * -one)
                        abs_y = abs_y + where_gt(v_y, zero, v_y, v_y * -one)
            sum_x, sum_y = total(mx), total(my)
            v_pairs[slot, 0] = -(a * sum_x + b * sum_y)
            v_pairs[slot, 1] = -(b * sum_x + c * sum_y)
            v_pairs[slot, 2] = half * total(mxx)
            v_pairs[slot, 3] = total(mxy)
            v_pairs[slot, 4] = half * total(myy)
            v_pairs[slot, 5] = -total(m0) / opacity
            for k in range(channels):
                v_pairs[slot, GEOMETRY_GRADS + k] = total(load(scratch, paint + U(k)))
            if absgrad:
                v_pairs[slot, GEOMETRY_GRADS + channels] = total(abs_x)
                v_pairs[slot, GEOMETRY_GRADS + channels + 1] = total(abs_y)


@kernel
def gather_gradients(start, stop, gaussians, slots, v_pairs, v_means2d, v_conics, v_opacities, v_colors, v_abs):
    """Add up the pairs of splats start..stop, in the order of their tiles, into the rows of their Gaussians.

    `v_abs` has no rows when absgrad is off.
    """
    channels = v_colors.shape[1]
    sums = np.empty(v_pairs.shape[1])
    for m in range(start, stop):
        n = gaussians[m]
        sums[:] = 0.0
        for slot in range(slots[m], slots[m + 1]):
            for k in range(sums.shape[0]):
                sums[k] += v_pairs[slot, k]
        v_means2d[n, 0], v_means2d[n, 1] = sums[0], sums[1]
        v_conics[n, 0], v_conics[n, 1], v_conics[n, 2] = sums[2], sums[3], sums[4]
        v_opacities[n] = sums[5]
        for k in range(channels):
            v_colors[n, k] = sums[GEOMETRY_GRADS + k]
        if v_abs.shape[0] > 0:
            v_abs[n, 0] = sums[GEOMETRY_GRADS + channels]
            v_abs[n, 1] = sums[GEOMETRY_GRADS + channels + 1]
