"""Compiled front-to-back compositing of a tile. The derivative is in `compositing_gradient_kernels`.

A pixel adds colour w = alpha T of each splat, alpha = min(0.999, opacity exp(-s)), s half the squared Mahalanobis
distance of the pixel centre, T what the splats before it left (Kerbl et al., 2023). A splat with alpha under 1/255 is
passed over; the first that would bring T to 1e-4 or less ends the pixel and adds nothing itself.

Pixels go in half rows of eight, one `Lanes`. Which half rows a splat reaches is solved from its ellipse.
"""

from __future__ import annotations

import math

import numpy as np

from das3r_ns.model.rasterizer.jit import kernel
from das3r_ns.model.rasterizer.lanes import exp_minus, load, ramp, store, total, where_ge, where_gt
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

MAX_ALPHA = 0.999
MIN_TRANSMITTANCE = 1e-4

U = np.uintp  # unsigned indices spare the test for negative ones
HALF_ROWS = 32
NARROW = 5.0  # pixels; for an ellipse of less half width, solving each row costs more than it spares
_CHECK_EVERY = 16  # splats between two looks at which half rows still take light


@kernel
def rows_of(centre_y, half_height, tile_y):
    """First row of the tile, and one past the last, whose pixel centres the ellipse may reach."""
    first = math.ceil(max(centre_y - half_height - tile_y, -1.0) - 0.5)
    last = math.floor(min(centre_y + half_height - tile_y, TILE + 1.0) - 0.5)
    return max(first, 0), min(last + 1, TILE)


@kernel
def half_rows_of(middle, half_width):
    """First half row (0 or 1), and one past the last, of a row that is covered about `middle`.

    Columns are counted from the centre of the tile's first pixel.
    """
    if middle + half_width < 0 or middle - half_width > 15:
        return 0, 0
    return 0 if middle - half_width <= 7 else 1, 2 if middle + half_width >= 8 else 1


@kernel
def alpha_of(dx, half_a, b_dy, half_c_dy_dy, opacity, max_alpha, min_alpha):
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
    light, left, final, sums = U(0), U(HALF_ROWS), U(2 * HALF_ROWS), U(3 * HALF_ROWS)
    scratch = np.empty((3 * HALF_ROWS + channels * HALF_ROWS, 8), records.dtype)
    open_rows = np.empty(HALF_ROWS, np.bool_)

    for tile in range(first_tile, stop_tile):
        tile_x, tile_y = tile % tile_columns * TILE, tile // tile_columns * TILE
        columns, rows = min(width - tile_x, TILE), min(height - tile_y, TILE)
        scratch[:] = zero
        for y in range(rows):
            for x in range(columns):
                scratch[2 * y + x // 8, x % 8] = one
                scratch[HALF_ROWS + 2 * y + x // 8, x % 8] = one
        for i in range(starts[tile], starts[tile + 1]):
            place = i - starts[tile]
            if place % _CHECK_EVERY == 0:
                any_open = False
                for row in range(HALF_ROWS):
                    open_rows[row] = total(load(scratch, U(row))) > zero
                    any_open = any_open or open_rows[row]
                if not any_open:
                    break
            m = U(entries[i])
            mark = dtype(place + 1)
            x = records[m, CENTRE_X] - dtype(tile_x) - half
            b = records[m, CONIC_XY]
            half_a, half_c = half * records[m, CONIC_XX], half * records[m, CONIC_YY]
            opacity = records[m, OPACITY]
            reach, shrink, shear = records[m, REACH], records[m, SHRINK], records[m, SHEAR]
            y0, y1 = rows_of(records[m, CENTRE_Y], records[m, HALF_HEIGHT], tile_y)
            ramp_x = ramp(-x)
            h0, h1 = half_rows_of(x, records[m, HALF_WIDTH])
            solve = h1 - h0 == 2 and records[m, HALF_WIDTH] > NARROW
            for y in range(y0, y1):
                dy = dtype(tile_y + y) + half - records[m, CENTRE_Y]
                if solve:
                    square = reach - shrink * dy * dy
                    h0, h1 = half_rows_of(x - shear * dy, math.sqrt(square)) if square > 0 else (0, 0)
                for h in range(h0, h1):
                    row = U(2 * y + h)
                    if not open_rows[row]:
                        continue
                    dx = ramp_x + dtype(8 * h)
                    _, alpha = alpha_of(dx, half_a, b * dy, half_c * dy * dy, opacity, max_alpha, min_alpha)
                    t = load(scratch, light + row)
                    after = t * (one - alpha)
                    weight = where_gt(after, min_t, t * alpha, zero)
                    store(scratch, light + row, where_gt(after, min_t, after, zero))
                    store(scratch, left + row, where_gt(after, min_t, after, load(scratch, left + row)))
                    store(scratch, final + row, where_gt(weight, zero, mark, load(scratch, final + row)))
                    target = sums + row
                    for k in range(channels):
                        store(scratch, target, load(scratch, target) + weight * colors[m, U(k)])
                        target += U(HALF_ROWS)
        for y in range(rows):
            for x in range(columns):
                row, lane = 2 * y + x // 8, x % 8
                t = scratch[HALF_ROWS + row, lane]
                transmittance[tile_y + y, tile_x + x] = t
                last[tile_y + y, tile_x + x] = np.int32(scratch[2 * HALF_ROWS + row, lane])
                for k in range(channels):
                    image[tile_y + y, tile_x + x, k] = scratch[(3 + k) * HALF_ROWS + row, lane] + t * background[k]
