"""Compiled front-to-back compositing of a tile, and its derivative back to front.

A pixel adds colour w = alpha T of each splat, alpha = min(0.999, opacity exp(-s)), s half the squared Mahalanobis
distance of the pixel centre, T what the splats before it left (Kerbl et al., 2023). A splat with alpha under 1/255 is
passed over; the first that would bring T to 1e-4 or less ends the pixel and adds nothing itself.

The derivative (Ye et al., "gsplat", 2024, appendix) walks the list backwards and undoes T by division. What lies behind
splat i enters only by its product with the incoming gradient v, so one number B per pixel carries it:
dL/dalpha_i = T_i (c_i . v) - B_i / (1 - alpha_i), and B grows by w_i (c_i . v).
Seen from a splat, dL/ds of its pixels enters the gradients of centre and conic by its moments up to second order only.

Pixels go in half rows of eight, one `Lanes`. Which half rows a splat reaches is solved from its ellipse.
"""

from __future__ import annotations

import math

import numpy as np

from das3r_ns.model.rasterizer.jit import kernel
from das3r_ns.model.rasterizer.lanes import broadcast, exp_minus, load, ramp, store, total, where_ge, where_gt
from das3r_ns.model.rasterizer.tiles import (
    CENTRE_X,
    CENTRE_Y,
    CONIC_XX,
    CONIC_XY,
    CONIC_YY,
    HALF_HEIGHT,
    MIN_ALPHA,
    OPACITY,
    REACH,
    SHEAR,
    SHRINK,
    TILE,
)

MAX_ALPHA = 0.999
MIN_TRANSMITTANCE = 1e-4

# Columns of a (splat, tile) pair's gradient, before those of the colours and of absgrad.
GEOMETRY_GRADS = 6  # centre x, centre y, conic xx, xy, yy, opacity

_U = np.uintp  # unsigned indices spare the test for negative ones
_HALF_ROWS = 32
_CHECK_EVERY = 16  # splats between two looks at which half rows still take light


@kernel
def _rows(centre_y, half_height, tile_y):
    """First row of the tile, and one past the last, whose pixel centres the ellipse may reach."""
    first = math.ceil(max(centre_y - half_height - tile_y, -1.0) - 0.5)
    last = math.floor(min(centre_y + half_height - tile_y, TILE + 1.0) - 0.5)
    return max(first, 0), min(last + 1, TILE)


@kernel
def _half_rows(reach, shrink, shear, x, dy):
    """First half row (0 or 1), and one past the last, that the ellipse reaches in the row `dy` below its centre.

    `x` is the ellipse's centre, counted from the centre of the tile's first pixel.
    """
    square = reach - shrink * dy * dy
    if square <= 0:
        return 0, 0
    half = math.sqrt(square)
    middle = x - shear * dy
    first = 0 if middle - half <= 7 else 1
    last = 2 if middle + half >= 8 else 1
    if middle + half < 0 or middle - half > 15:
        return 0, 0
    return first, last


@kernel
def _alpha(dx, half_a, b_dy, half_c_dy_dy, opacity, max_alpha, min_alpha):
    """Lanes of opacity times falloff, before and after the upper limit; 0 where it is too little to count."""
    s = (dx * half_a + b_dy) * dx + half_c_dy_dy
    raw = exp_minus(s) * opacity
    raw = where_ge(raw, min_alpha, raw, min_alpha * 0)
    raw = where_ge(s, min_alpha * 0, raw, min_alpha * 0)
    return raw, where_gt(raw, max_alpha, max_alpha, raw)


@kernel
def composite_forward(
    first_tile,
    stop_tile,
    tile_columns,
    starts,
    entries,
    records,
    colors,
    background,
    image,
    transmittance,
    last,
):
    """Fill the pixels of tiles first_tile..stop_tile.

    `last` is, per pixel, one more than the place in the tile's list of the last splat that counted.
    """
    dtype = records.dtype.type
    height, width, channels = image.shape
    zero, one, half = dtype(0), dtype(1), dtype(0.5)
    max_alpha, min_alpha, min_t = dtype(MAX_ALPHA), dtype(MIN_ALPHA), dtype(MIN_TRANSMITTANCE)
    # Rows of scratch: T (0 once the pixel is done), T to hand out, last, then 32 half rows per channel.
    light, left, final, sums = _U(0), _U(_HALF_ROWS), _U(2 * _HALF_ROWS), _U(3 * _HALF_ROWS)
    scratch = np.empty((3 * _HALF_ROWS + channels * _HALF_ROWS, 8), records.dtype)
    open_rows = np.empty(_HALF_ROWS, np.bool_)

    for tile in range(first_tile, stop_tile):
        tile_x, tile_y = tile % tile_columns * TILE, tile // tile_columns * TILE
        columns, rows = min(width - tile_x, TILE), min(height - tile_y, TILE)
        scratch[:] = zero
        for y in range(rows):
            for x in range(columns):
                scratch[2 * y + x // 8, x % 8] = one
                scratch[_HALF_ROWS + 2 * y + x // 8, x % 8] = one
        for i in range(starts[tile], starts[tile + 1]):
            place = i - starts[tile]
            if place % _CHECK_EVERY == 0:
                any_open = False
                for row in range(_HALF_ROWS):
                    open_rows[row] = total(load(scratch, _U(row))) > zero
                    any_open = any_open or open_rows[row]
                if not any_open:
                    break
            m = _U(entries[i])
            mark = dtype(place + 1)
            x = records[m, CENTRE_X] - dtype(tile_x) - half
            b = records[m, CONIC_XY]
            half_a, half_c = half * records[m, CONIC_XX], half * records[m, CONIC_YY]
            opacity = records[m, OPACITY]
            reach, shrink, shear = records[m, REACH], records[m, SHRINK], records[m, SHEAR]
            y0, y1 = _rows(records[m, CENTRE_Y], records[m, HALF_HEIGHT], tile_y)
            ramp_x = ramp(-x)
            for y in range(y0, y1):
                dy = dtype(tile_y + y) + half - records[m, CENTRE_Y]
                h0, h1 = _half_rows(reach, shrink, shear, x, dy)
                for h in range(h0, h1):
                    row = _U(2 * y + h)
                    if not open_rows[row]:
                        continue
                    dx = ramp_x + dtype(8 * h)
                    _, alpha = _alpha(dx, half_a, b * dy, half_c * dy * dy, opacity, max_alpha, min_alpha)
                    t = load(scratch, light + row)
                    after = t * (one - alpha)
                    weight = where_gt(after, min_t, t * alpha, zero)
                    store(scratch, light + row, where_gt(after, min_t, after, zero))
                    store(scratch, left + row, where_gt(after, min_t, after, load(scratch, left + row)))
                    store(scratch, final + row, where_gt(weight, zero, mark, load(scratch, final + row)))
                    target = sums + row
                    for k in range(channels):
                        store(scratch, target, load(scratch, target) + weight * colors[m, _U(k)])
                        target += _U(_HALF_ROWS)
        for y in range(rows):
            for x in range(columns):
                row, lane = 2 * y + x // 8, x % 8
                t = scratch[_HALF_ROWS + row, lane]
                transmittance[tile_y + y, tile_x + x] = t
                last[tile_y + y, tile_x + x] = np.int32(scratch[2 * _HALF_ROWS + row, lane])
                for k in range(channels):
                    image[tile_y + y, tile_x + x, k] = scratch[(3 + k) * _HALF_ROWS + row, lane] + t * background[k]


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
    light, behind, final, seen = _U(0), _U(_HALF_ROWS), _U(2 * _HALF_ROWS), _U(3 * _HALF_ROWS)
    paint = seen + _U(channels * _HALF_ROWS)
    scratch = np.empty((3 * _HALF_ROWS + channels * _HALF_ROWS + channels, 8), records.dtype)
    last_of_row = np.empty(_HALF_ROWS, np.int64)

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
                    scratch[(3 + k) * _HALF_ROWS + row, lane] = v
                    dot += v * background[k]
                scratch[row, lane] = t
                scratch[_HALF_ROWS + row, lane] = t * dot
                scratch[2 * _HALF_ROWS + row, lane] = dtype(place)

        for i in range(starts[tile + 1] - 1, starts[tile] - 1, -1):
            place = i - starts[tile] + 1
            m = _U(entries[i])
            slot = _U(slots[m] + (tile_row - boxes[m, 1]) * boxes[m, 2] + column - boxes[m, 0])
            if place > last_of_tile:
                for k in range(v_pairs.shape[1]):
                    v_pairs[slot, k] = zero
                continue
            mark = dtype(place)
            x = records[m, CENTRE_X] - dtype(tile_x) - half
            a, b, c = records[m, CONIC_XX], records[m, CONIC_XY], records[m, CONIC_YY]
            opacity = records[m, OPACITY]
            reach, shrink, shear = records[m, REACH], records[m, SHRINK], records[m, SHEAR]
            y0, y1 = _rows(records[m, CENTRE_Y], records[m, HALF_HEIGHT], tile_y)
            ramp_x = ramp(-x)
            # Moments of dL/ds over the pixels.
            m0 = mx = my = mxx = mxy = myy = abs_x = abs_y = broadcast(zero)
            for k in range(channels):
                store(scratch, paint + _U(k), broadcast(zero))
            for y in range(y0, y1):
                dy = dtype(tile_y + y) + half - records[m, CENTRE_Y]
                h0, h1 = _half_rows(reach, shrink, shear, x, dy)
                for h in range(h0, h1):
                    row = _U(2 * y + h)
                    if place > last_of_row[row]:
                        continue
                    dx = ramp_x + dtype(8 * h)
                    raw, alpha = _alpha(dx, half * a, b * dy, half * c * dy * dy, opacity, max_alpha, min_alpha)
                    alpha = where_ge(load(scratch, final + row), mark, alpha, zero)
                    undo = one / (one - alpha)
                    t = load(scratch, light + row) * undo
                    weight = alpha * t
                    dot = broadcast(zero)
                    source = seen + row
                    for k in range(channels):
                        v = load(scratch, source)
                        dot = dot + v * colors[m, _U(k)]
                        store(scratch, paint + _U(k), load(scratch, paint + _U(k)) + v * weight)
                        source += _U(_HALF_ROWS)
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
                v_pairs[slot, GEOMETRY_GRADS + k] = total(load(scratch, paint + _U(k)))
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
