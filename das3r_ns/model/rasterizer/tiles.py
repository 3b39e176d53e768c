"""Which splats touch which tile, front to back: the stage between projection and compositing.

The image is cut into tiles of 16x16 pixels. A splat's footprint is, as in gsplat, every tile that the square of its
radius touches; inside it only pixels count where opacity times falloff reaches 1/255, an ellipse, so tiles that the
ellipse's box misses are left out. All splats are sorted by depth once (equal depths keep their order) and dealt to the
tiles in that order, which leaves every tile's list sorted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from das3r_ns.model.rasterizer.jit import in_blocks, kernel

TILE = 16
MIN_ALPHA = 1.0 / 255.0  # what contributes less to a pixel is left out
_BLOCK = 4096

# Columns of a splat record, the numbers that compositing reads.
RECORD = 11
CENTRE_X, CENTRE_Y, CONIC_XX, CONIC_XY, CONIC_YY, OPACITY = range(6)
REACH = 6  # squared half width of the ellipse's middle row
SHRINK = 7  # by how much the squared half width falls per squared row distance
SHEAR = 8  # by how much the middle of a row moves per row
HALF_HEIGHT = 9
HALF_WIDTH = 10

Array = np.ndarray


@dataclass(frozen=True)
class TileLists:
    """The splats of one camera, dealt to tiles. m counts visible splats by depth, n all Gaussians."""

    gaussians: Array  # (m,) int32: index of the Gaussian
    records: Array  # (m, RECORD)
    colors: Array  # (m, channels)
    boxes: Array  # (m, 4) int32: first tile column, first tile row, tile columns, tile rows
    slots: Array  # (m + 1,) int64: where the splat's (splat, tile) pairs begin, boxes row by row
    entries: Array  # (pairs,) int32: m of each tile's splats, tile by tile, front to back
    starts: Array  # (tiles + 1,) int64: where a tile's entries begin
    width: int
    height: int

    @property
    def tile_columns(self) -> int:
        return -(-self.width // TILE)

    @property
    def num_tiles(self) -> int:
        return len(self.starts) - 1


@kernel
def _tile_range(centre, radius, half_extent, num_tiles):
    """First tile, and one past the last, that holds a pixel centre of the ellipse and lies in the radius' square."""
    half = half_extent - 0.5  # pixel centres are half a pixel inside the tile's border
    first = max(centre - radius, centre - half) / TILE
    last = min(centre + radius, centre + half) / TILE
    return math.floor(min(max(first, 0.0), num_tiles)), math.ceil(min(max(last, 0.0), num_tiles))


@kernel
def _measure(start, stop, radii, means2d, opacities, variances, colors, tile_columns, tile_rows, boxes):
    """Write each Gaussian's box of tiles; no columns where it is not to be drawn."""
    for n in range(start, stop):
        boxes[n, 2] = 0
        boxes[n, 3] = 0
        radius = radii[n]
        opacity = np.float64(opacities[n])
        if radius <= 0 or not (opacity >= MIN_ALPHA and math.isfinite(opacity)):
            continue
        finite = True
        for k in range(colors.shape[1]):
            finite = finite and math.isfinite(colors[n, k])
        if not finite:
            continue
        # Falloff is exp(-s) with s <= log(opacity / MIN_ALPHA); a little more guards against rounding.
        s = math.log(opacity / MIN_ALPHA) + 1e-3
        x0, x1 = _tile_range(means2d[n, 0], radius, math.sqrt(2.0 * s * variances[n, 0]), tile_columns)
        y0, y1 = _tile_range(means2d[n, 1], radius, math.sqrt(2.0 * s * variances[n, 1]), tile_rows)
        if x1 > x0 and y1 > y0:
            boxes[n, 0] = x0
            boxes[n, 1] = y0
            boxes[n, 2] = x1 - x0
            boxes[n, 3] = y1 - y0


@kernel
def _sort_by_depth(keys, gaussians, bits):
    """Stable radix sort of `gaussians` by `keys` (bit patterns of positive floats), 11 bits a pass."""
    count = keys.shape[0]
    other_keys = np.empty_like(keys)
    other = np.empty_like(gaussians)
    histogram = np.empty(2048, np.int64)
    for shift in range(0, bits, 11):
        histogram[:] = 0
        for i in range(count):
            histogram[(keys[i] >> shift) & 2047] += 1
        total = 0
        for b in range(2048):
            histogram[b], total = total, total + histogram[b]
        for i in range(count):
            b = (keys[i] >> shift) & 2047
            other_keys[histogram[b]] = keys[i]
            other[histogram[b]] = gaussians[i]
            histogram[b] += 1
        keys, other_keys = other_keys, keys
        gaussians, other = other, gaussians
    return gaussians


@kernel
def _deal(gaussians, all_boxes, tile_columns, boxes, slots, starts):
    """Fill `boxes` (by depth), `slots` and `starts`; return the entries."""
    slots[0] = 0
    starts[:] = 0
    for m in range(gaussians.shape[0]):
        box = all_boxes[gaussians[m]]
        for i in range(4):
            boxes[m, i] = box[i]
        slots[m + 1] = slots[m] + box[2] * box[3]
        for row in range(box[1], box[1] + box[3]):
            for column in range(box[0], box[0] + box[2]):
                starts[row * tile_columns + column + 1] += 1
    for t in range(starts.shape[0] - 1):
        starts[t + 1] += starts[t]
    cursor = starts.copy()
    entries = np.empty(slots[-1], np.int32)
    for m in range(gaussians.shape[0]):
        for row in range(boxes[m, 1], boxes[m, 1] + boxes[m, 3]):
            for column in range(boxes[m, 0], boxes[m, 0] + boxes[m, 2]):
                t = row * tile_columns + column
                entries[cursor[t]] = m
                cursor[t] += 1
    return entries


@kernel
def _record(start, stop, gaussians, means2d, conics, opacities, variances, colors, records, record_colors):
    for m in range(start, stop):
        n = gaussians[m]
        a, b = np.float64(conics[n, 0]), np.float64(conics[n, 1])
        opacity = np.float64(opacities[n])
        s = math.log(opacity / MIN_ALPHA) + 1e-3
        records[m, CENTRE_X] = means2d[n, 0]
        records[m, CENTRE_Y] = means2d[n, 1]
        records[m, CONIC_XX] = a
        records[m, CONIC_XY] = b
        records[m, CONIC_YY] = conics[n, 2]
        records[m, OPACITY] = opacity
        records[m, REACH] = 2.0 * s / a
        records[m, SHRINK] = 1.0 / (a * variances[n, 1])
        records[m, SHEAR] = b / a
        records[m, HALF_HEIGHT] = math.sqrt(2.0 * s * variances[n, 1])
        records[m, HALF_WIDTH] = math.sqrt(2.0 * s * variances[n, 0])
        for k in range(colors.shape[1]):
            record_colors[m, k] = colors[n, k]


def deal_to_tiles(
    radii: Array,
    means2d: Array,
    depths: Array,
    conics: Array,
    opacities: Array,
    variances: Array,
    colors: Array,
    width: int,
    height: int,
) -> TileLists:
    """Sort one camera's splats (n rows each) by depth and list them for every tile.

    Splats that are not visible, fainter than 1/255 or not finite are in no list.
    """
    tile_columns, tile_rows = -(-width // TILE), -(-height // TILE)
    all_boxes = np.empty((len(radii), 4), np.int32)
    in_blocks(
        lambda start, stop: _measure(
            start, stop, radii, means2d, opacities, variances, colors, tile_columns, tile_rows, all_boxes
        ),
        len(radii),
        _BLOCK,
    )
    gaussians = np.flatnonzero(all_boxes[:, 2]).astype(np.int32)
    bits = 8 * depths.dtype.itemsize
    keys = depths[gaussians].view(np.uint32 if bits == 32 else np.uint64)
    gaussians = _sort_by_depth(keys, gaussians, bits)

    count = len(gaussians)
    boxes = np.empty((count, 4), np.int32)
    slots = np.empty(count + 1, np.int64)
    starts = np.empty(tile_columns * tile_rows + 1, np.int64)
    entries = _deal(gaussians, all_boxes, tile_columns, boxes, slots, starts)
    records = np.empty((count, RECORD), means2d.dtype)
    record_colors = np.empty((count, colors.shape[1]), means2d.dtype)
    in_blocks(
        lambda start, stop: _record(
            start, stop, gaussians, means2d, conics, opacities, variances, colors, records, record_colors
        ),
        count,
        _BLOCK,
    )
    return TileLists(gaussians, records, record_colors, boxes, slots, entries, starts, width, height)
